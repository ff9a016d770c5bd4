"""When a dropped file counts as whole. The clock is a number that the test hands in."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_image_daemon.inbox.listing import Stamp
from qwen_image_daemon.inbox.settling import LOOKS, Settling

SETTLE = 2.0
QUIET = frozenset({"job.toml"})


def stamp(version: int) -> Stamp:
    return Stamp(size=version, mtime_ns=version, ctime_ns=version, inode=1)


pauses = st.floats(min_value=0.0, max_value=5.0)
looks = st.lists(st.tuples(pauses, st.booleans()), min_size=1, max_size=40)


@given(looks)
def test_a_file_is_quiet_only_after_all_of_the_settling_time_and_enough_looks(
    course: list[tuple[float, bool]],
) -> None:
    settling = Settling(SETTLE)
    now, version, since, seen = 0.0, 0, 0.0, 0
    for pause, changes in course:
        now += pause
        if changes or seen == 0:
            version, since, seen = version + 1, now, 0
        seen += 1
        quiet = settling.observe({"job.toml": stamp(version)}, set(), now=now)
        assert bool(quiet) == (seen >= LOOKS and now - since >= SETTLE)


@given(st.lists(pauses, max_size=20))
def test_a_file_that_changes_at_every_look_is_never_quiet(course: list[float]) -> None:
    settling = Settling(SETTLE)
    now = 0.0
    for version, pause in enumerate(course):
        now += pause
        assert settling.observe({"job.toml": stamp(version)}, set(), now=now) == frozenset()


@given(looks, st.floats(min_value=SETTLE, max_value=1e6))
def test_a_file_that_stopped_changing_is_quiet_in_the_end(course: list[tuple[float, bool]], later: float) -> None:
    settling = Settling(SETTLE)
    now = 0.0
    for version, (pause, _) in enumerate(course):
        now += pause
        settling.observe({"job.toml": stamp(version)}, set(), now=now)
    last = stamp(len(course) - 1)
    for _ in range(LOOKS):
        now += later
        quiet = settling.observe({"job.toml": last}, set(), now=now)
    assert quiet == QUIET


def test_one_long_look_does_not_pass_for_a_long_quiet() -> None:
    settling = Settling(SETTLE)
    assert settling.observe({"job.toml": stamp(1)}, set(), now=0.0) == frozenset()
    assert settling.observe({"job.toml": stamp(1)}, set(), now=3600.0) == frozenset()


def test_a_renamed_file_is_whole_at_once_and_stays_so_until_it_changes() -> None:
    settling = Settling(SETTLE)
    assert settling.observe({"job.toml": stamp(1)}, QUIET, now=0.0) == QUIET
    assert settling.observe({"job.toml": stamp(1)}, set(), now=0.1) == QUIET
    assert settling.observe({"job.toml": stamp(2)}, set(), now=0.2) == frozenset()


def test_a_file_that_was_away_for_a_look_begins_anew() -> None:
    settling = Settling(SETTLE)
    for now in (0.0, 1.0):
        settling.observe({"job.toml": stamp(1)}, set(), now=now)
    settling.observe({}, set(), now=2.0)
    assert settling.observe({"job.toml": stamp(1)}, set(), now=3.0) == frozenset()


@given(st.sampled_from(["size", "mtime_ns", "ctime_ns", "inode"]))
def test_any_part_of_the_stamp_tells_a_change(part: str) -> None:
    settling = Settling(SETTLE)
    before = {"size": 1, "mtime_ns": 1, "ctime_ns": 1, "inode": 1}
    for now in (0.0, 1.0):
        settling.observe({"job.toml": Stamp(**before)}, set(), now=now)
    changed = Stamp(**{**before, part: 2})
    assert settling.observe({"job.toml": changed}, set(), now=2.5) == frozenset()
