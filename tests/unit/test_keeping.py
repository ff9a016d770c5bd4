"""Keeping a loop alive, on a loop that dies and hangs as the test says and a clock that the test sets."""

from dataclasses import dataclass, field

import pytest

from qwen_image_daemon.service.keeping import MOST_DEATHS, KeptLoop
from qwen_image_daemon.service.loops import LoopName
from qwen_image_daemon.service.running import RunningLoop, State


class Patient:
    """A loop that is as well as the test says."""

    def __init__(self, name: LoopName, *, replaceable: bool = True) -> None:
        self.name: LoopName = name
        self.replaceable = replaceable
        self.condition: State = "running"
        self.late = False
        self.kills = 0
        self.mortal = True
        self.signs = 0
        self.stops = 0

    def state(self) -> State:
        return self.condition

    def overdue(self) -> bool:
        return self.late

    def silent_seconds(self) -> float:
        return 120.0

    def signs_of_life(self) -> int:
        return self.signs

    def ask_to_stop(self) -> None:
        self.stops += 1

    def let_end(self) -> None:
        self.condition = "ended"

    def kill(self) -> None:
        self.kills += 1
        if self.replaceable and self.mortal:
            self.condition = "died"

    def describe_death(self) -> str:
        return "signal SIGSEGV"


@dataclass
class Ward:
    """Starts patients, and holds the clock."""

    now: float = 0.0
    replaceable: bool = True
    started: list[Patient] = field(default_factory=list)
    notices: list[tuple[LoopName, str, float | None]] = field(default_factory=list)

    def start(self, name: LoopName) -> RunningLoop:
        self.started.append(Patient(name, replaceable=self.replaceable))
        return self.started[-1]

    def kept(self, name: LoopName = "render") -> KeptLoop:
        return KeptLoop(name, self.start, lambda *notice: self.notices.append(notice), clock=lambda: self.now)

    @property
    def last(self) -> Patient:
        return self.started[-1]


@pytest.fixture
def ward() -> Ward:
    return Ward()


def test_a_loop_that_runs_is_left_alone(ward: Ward) -> None:
    loop = ward.kept()
    assert loop.keep(0, stopping=False) is None
    assert (loop.healthy, loop.over, len(ward.started)) == (True, False, 1)


def test_a_dead_loop_is_started_again_after_pauses_that_grow(ward: Ward) -> None:
    loop = ward.kept()
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0):
        ward.last.condition = "died"
        assert loop.keep(0, stopping=False) is None
        assert not loop.healthy
        before = len(ward.started)
        ward.now += pause - 0.01
        loop.keep(0, stopping=False)
        assert len(ward.started) == before
        ward.now += 0.02
        loop.keep(0, stopping=False)
        assert len(ward.started) == before + 1
        assert loop.healthy


def test_a_loop_that_dies_again_and_again_without_a_job_getting_on_is_given_up(ward: Ward) -> None:
    loop = ward.kept()
    reasons: list[str | None] = []
    for _ in range(MOST_DEATHS):
        ward.last.condition = "died"
        reasons.append(loop.keep(0, stopping=False))
        ward.now += 100
        loop.keep(0, stopping=False) if reasons[-1] is None else None
    assert reasons[:-1] == [None] * (MOST_DEATHS - 1)
    assert reasons[-1] is not None
    assert f"died {MOST_DEATHS} times in a row (last: signal SIGSEGV)" in reasons[-1]


def test_a_loop_that_gets_on_between_its_deaths_is_never_given_up(ward: Ward) -> None:
    loop = ward.kept()
    for progress in range(MOST_DEATHS * 5):
        ward.last.condition = "died"
        assert loop.keep(progress, stopping=False) is None
        ward.now += 1.01
        assert loop.keep(progress, stopping=False) is None
        assert loop.healthy


def test_a_loop_that_hangs_is_killed_and_replaced(ward: Ward) -> None:
    loop = ward.kept()
    ward.last.late = True
    assert not loop.healthy
    assert loop.keep(0, stopping=False) is None
    assert ward.started[0].kills == 1
    loop.keep(0, stopping=False)
    assert ward.notices == [("render", "signal SIGSEGV", 120.0)]
    ward.now += 2
    loop.keep(0, stopping=False)
    assert (len(ward.started), loop.healthy, loop.trouble) == (2, True, None)


def test_a_loop_that_dies_while_we_stop_stays_dead(ward: Ward) -> None:
    loop = ward.kept()
    ward.last.condition = "died"
    assert loop.keep(0, stopping=True) is None
    assert loop.over
    ward.now += 1000
    loop.keep(0, stopping=True)
    assert len(ward.started) == 1


def test_a_loop_that_waits_for_its_restart_is_abandoned_when_we_stop(ward: Ward) -> None:
    loop = ward.kept()
    ward.last.condition = "died"
    loop.keep(0, stopping=False)
    loop.keep(0, stopping=True)
    assert loop.over


@pytest.mark.parametrize(("condition", "gave_up"), [("ended", False), ("gave up", True)])
def test_a_loop_that_ended_is_over_and_well(ward: Ward, condition: State, *, gave_up: bool) -> None:
    loop = ward.kept()
    ward.last.condition = condition
    assert loop.keep(0, stopping=False) is None
    assert (loop.over, loop.healthy, loop.gave_up) == (True, True, gave_up)


@pytest.mark.parametrize("how", ["died", "hangs"])
def test_a_thread_that_died_or_hangs_takes_the_daemon_with_it(how: str) -> None:
    ward = Ward(replaceable=False)
    loop = ward.kept()
    ward.last.condition = "died" if how == "died" else "running"
    ward.last.late = how == "hangs"
    reason = loop.keep(0, stopping=False)
    assert reason is not None
    assert how in reason
    assert "could be replaced" in reason


def hung(ward: Ward, name: LoopName) -> KeptLoop:
    """Give a loop that was killed for its silence and does not die: the kernel waits for a server."""
    loop = ward.kept(name)
    ward.last.late, ward.last.mortal = True, False
    assert loop.keep(0, stopping=False) is None
    return loop


@pytest.mark.parametrize(("name", "share"), [("take-in", "inbox"), ("give-out", "outbox")])
def test_a_loop_whose_file_server_hangs_is_told_of_and_waited_for_without_waiting(
    ward: Ward, name: LoopName, share: str
) -> None:
    loop = hung(ward, name)
    for _ in range(3):
        ward.now += 1000
        assert loop.keep(0, stopping=False) is None
    assert (ward.last.kills, len(ward.started), loop.over) == (1, 1, False)
    assert (loop.trouble or "").startswith(f"The {share}'s file server does not answer since 2")


def test_a_hung_loop_has_a_successor_once_it_is_gone_and_the_trouble_ends_with_its_signs_of_life(
    ward: Ward,
) -> None:
    loop = hung(ward, "take-in")
    since = loop.hung_since
    ward.last.condition = "died"
    loop.keep(0, stopping=False)
    loop.keep(0, stopping=False)
    assert len(ward.started) == 2
    # The first sign comes before it touches the share.
    ward.last.signs = 1
    loop.keep(0, stopping=False)
    assert loop.hung_since == since
    ward.last.signs = 2
    loop.keep(0, stopping=False)
    assert (loop.hung_since, loop.trouble, loop.healthy) == (None, None, True)


def test_a_file_server_may_be_away_for_as_long_as_it_likes(ward: Ward) -> None:
    loop = ward.kept("give-out")
    for _ in range(MOST_DEATHS * 3):
        ward.last.late = True
        for _ in range(3):
            ward.now += 200
            assert loop.keep(0, stopping=False) is None
        ward.last.signs = 1
    assert len(ward.started) > MOST_DEATHS * 2
    assert not loop.over


def test_deaths_of_a_share_loop_by_itself_are_counted(ward: Ward) -> None:
    loop = ward.kept("take-in")
    reasons: list[str | None] = []
    for _ in range(MOST_DEATHS):
        ward.last.condition = "died"
        reasons.append(loop.keep(0, stopping=False))
        assert reasons[-1] is not None or "died (signal SIGSEGV)" in (loop.trouble or "")
        ward.now += 100
        loop.keep(0, stopping=False) if reasons[-1] is None else None
    assert reasons[-1] is not None


@pytest.mark.parametrize("name", ["take-in", "give-out"])
def test_a_stop_leaves_a_loop_behind_that_waits_for_a_dead_server(ward: Ward, name: LoopName) -> None:
    loop = hung(ward, name)
    ward.now += 100
    loop.ask_to_stop()
    assert loop.keep(0, stopping=True) is None
    assert loop.over


def test_a_stop_gives_a_share_a_moment_and_then_does_without(ward: Ward) -> None:
    loop = ward.kept("take-in")
    ward.last.mortal = False
    loop.ask_to_stop()
    loop.keep(0, stopping=True)
    assert (ward.last.stops, ward.last.kills, loop.over) == (1, 0, False)
    ward.now += 11
    loop.keep(0, stopping=True)
    assert (ward.last.kills, loop.over) == (1, False)
    ward.now += 6
    loop.keep(0, stopping=True)
    assert loop.over
    assert not loop.gave_up


def test_a_stop_waits_for_the_image_that_is_being_drawn(ward: Ward) -> None:
    loop = ward.kept("render")
    loop.ask_to_stop()
    ward.now += 10_000
    loop.keep(0, stopping=True)
    assert (ward.last.kills, loop.over) == (0, False)


def test_a_run_that_is_to_end_by_itself_gives_up_a_share_that_hangs(ward: Ward) -> None:
    loop = hung(ward, "take-in")
    loop.abandon_hung()
    assert (loop.over, loop.gave_up) == (True, True)
    render = hung(ward, "render")
    render.abandon_hung()
    assert not render.over


def test_a_loop_that_wants_to_be_renewed_is_started_at_once_and_mourned_by_nobody(ward: Ward) -> None:
    loop = ward.kept()
    for _ in range(2 * MOST_DEATHS):
        ward.last.condition = "renewed"
        assert loop.keep(0, stopping=False) is None
        assert loop.healthy
    assert len(ward.started) == 2 * MOST_DEATHS + 1
    assert ward.notices == []
    assert loop.trouble is None


def test_a_loop_that_wants_to_be_renewed_while_all_stops_has_ended(ward: Ward) -> None:
    loop = ward.kept()
    ward.last.condition = "renewed"
    assert loop.keep(0, stopping=True) is None
    assert loop.over
    assert len(ward.started) == 1
