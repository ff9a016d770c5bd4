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

    def state(self) -> State:
        return self.condition

    def overdue(self) -> bool:
        return self.late

    def ask_to_stop(self) -> None:
        self.condition = "ended"

    def let_end(self) -> None:
        self.condition = "ended"

    def kill(self) -> None:
        self.kills += 1
        if self.replaceable:
            self.condition = "died"

    def describe_death(self) -> str:
        return "signal SIGSEGV"


@dataclass
class Ward:
    """Starts patients, and holds the clock."""

    now: float = 0.0
    replaceable: bool = True
    started: list[Patient] = field(default_factory=list)

    def start(self, name: LoopName) -> RunningLoop:
        self.started.append(Patient(name, replaceable=self.replaceable))
        return self.started[-1]

    def kept(self) -> KeptLoop:
        return KeptLoop("render", self.start, clock=lambda: self.now)

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
    ward.now += 2
    loop.keep(0, stopping=False)
    assert (len(ward.started), loop.healthy) == (2, True)


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
