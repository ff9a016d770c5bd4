"""How long the drawing of a job may take, by our own monotonic clock."""

import time
from collections.abc import Callable

from qwen_image_daemon.render.renderer import TookTooLong


class Deadline:
    """Begins when it is made. None is no limit."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._began = clock()

    def check(self) -> None:
        """Raise TookTooLong where the time is over."""
        if self._seconds is not None and self._clock() - self._began >= self._seconds:
            raise TookTooLong(
                f"Its pictures were not finished within {self._seconds:g} seconds (timeout_seconds).",
                "Raise timeout_seconds or leave it out; or ask for fewer pictures, fewer steps or a smaller size.",
            )
