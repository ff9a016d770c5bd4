"""Pauses and cancelled jobs as files in the spool."""

from pathlib import Path

import pytest

from qwen_image_daemon.spool.control import BY_FILE, Controls, who_paused
from rooms import Rooms


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


@pytest.fixture
def controls(rooms: Rooms) -> Controls:
    return Controls(rooms.spool)


def test_a_pause_lasts_until_every_cause_is_gone_and_outlives_the_daemon(rooms: Rooms, controls: Controls) -> None:
    assert controls.paused_by() == ()
    controls.pause("command")
    controls.pause("inbox")
    controls.pause("inbox")
    assert Controls(rooms.spool).paused_by() == ("command", "inbox")
    controls.resume("command")
    assert controls.paused_by() == ("inbox",)
    controls.resume("inbox")
    controls.resume("inbox")
    assert controls.paused_by() == ()


def test_whoever_paused_it_is_named_with_the_way_to_go_on() -> None:
    assert "`resume` goes on" in who_paused(("command",))
    assert "PAUSE in the inbox" in who_paused(("inbox",))
    assert len(who_paused(("command", "inbox"))) > len(who_paused(("inbox",)))


def test_a_request_for_a_jobs_end_stands_until_it_is_forgotten(rooms: Rooms, controls: Controls) -> None:
    controls.cancel("b", by="anna")
    controls.cancel("a")
    controls.pause("inbox")
    (rooms.spool.control / ".c.cancel.tmp").write_bytes(b"half")
    assert controls.cancelled() == ["a", "b"]
    assert (controls.is_cancelled("a"), controls.is_cancelled("c")) == (True, False)
    assert (controls.cancelled_by("a"), controls.cancelled_by("b")) == (BY_FILE, "anna")
    controls.forget_cancel("a")
    controls.forget_cancel("a")
    assert controls.cancelled() == ["b"]


def test_the_name_of_who_asked_may_be_of_any_bytes(controls: Controls) -> None:
    controls.cancel("a", by="f\udcfcr")
    assert controls.cancelled_by("a") == "f\\udcfcr"
