"""When the time of a job is over."""

import pytest

from qwen_image_daemon.render.deadline import Deadline
from qwen_image_daemon.render.renderer import TookTooLong


class Clock:
    """A clock that stands until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_job_may_draw_until_its_time_is_over_and_no_longer() -> None:
    clock = Clock()
    deadline = Deadline(90.0, clock)
    clock.now += 89.9
    deadline.check()
    clock.now += 0.1
    with pytest.raises(TookTooLong, match="within 90 seconds"):
        deadline.check()


def test_without_a_limit_the_time_is_never_over() -> None:
    clock = Clock()
    deadline = Deadline(None, clock)
    clock.now += 1e9
    deadline.check()
