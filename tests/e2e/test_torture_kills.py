"""Short versions of the torture suite: kills, named points, poison. `make torture` runs all of it."""

from pathlib import Path

import pytest

from torture.kills import kill_at_random
from torture.points import coded_points, kill_at_points, listed_points
from torture.poison import poison_jobs


def test_random_kills_lose_double_and_tear_nothing(tmp_path: Path) -> None:
    row = kill_at_random(tmp_path, kills=8, jobs=24, boxes=2)
    assert row.faults == []


def test_the_decision_lists_every_crash_point_of_the_code() -> None:
    assert set(listed_points()) == coded_points()


@pytest.mark.parametrize("point", listed_points())
def test_a_kill_at_any_named_point_loses_doubles_and_tears_nothing(tmp_path: Path, point: str) -> None:
    row = kill_at_points(tmp_path, times=1, points=[point], modes=["threads"])
    assert row.faults == []


def test_jobs_that_kill_or_hang_the_renderer_are_given_up_and_all_others_go_on(tmp_path: Path) -> None:
    row = poison_jobs(tmp_path, jobs=12, one_in=6, step_timeout_seconds=1.0)
    assert row.faults == []
