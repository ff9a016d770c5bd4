"""When a job that failed is tried again: after pauses that grow, in which other jobs are drawn."""

import time
from collections.abc import Callable
from typing import Final

_GROWTH: Final = 5.0
_LONGEST_SECONDS: Final = 600.0


class Retries:
    """The next tries of jobs, by our own monotonic clock; a new process begins without any pause."""

    def __init__(self, first_pause_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_pause_seconds = first_pause_seconds
        self._clock = clock
        self._due: dict[str, float] = {}

    def after(self, job_id: str, failures: int) -> None:
        """Note that a job failed for so many times, at least once."""
        pause = self._first_pause_seconds * _GROWTH ** (failures - 1)
        self._due[job_id] = self._clock() + min(pause, _LONGEST_SECONDS)

    def is_due(self, job_id: str) -> bool:
        """Say whether a job need not wait, or no longer."""
        if job_id not in self._due:
            return True
        if self._clock() < self._due[job_id]:
            return False
        del self._due[job_id]
        return True

    def waiting(self) -> int:
        """Count the jobs that must wait still."""
        return sum(self._clock() < due for due in self._due.values())
