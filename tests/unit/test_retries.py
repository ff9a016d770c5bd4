"""Pauses between tries, on a clock that the test sets."""

from dataclasses import dataclass

from qwen_image_daemon.render.retries import Retries


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_with_the_failures_of_one_job_and_concern_no_other() -> None:
    clock = Clock()
    retries = Retries(2.0, clock)
    assert retries.is_due("job")
    retries.after("job", 1)
    assert (retries.is_due("job"), retries.is_due("other"), retries.waiting()) == (False, True, 1)
    clock.now = 2.0
    assert (retries.is_due("job"), retries.waiting()) == (True, 0)
    retries.after("job", 2)
    clock.now = 11.9
    assert not retries.is_due("job")
    clock.now = 12.0
    assert retries.is_due("job")


def test_no_pause_is_endless() -> None:
    clock = Clock()
    retries = Retries(2.0, clock)
    retries.after("job", 9)
    clock.now = 600.0
    assert retries.is_due("job")
