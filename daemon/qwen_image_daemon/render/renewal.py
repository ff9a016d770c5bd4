"""When the render process is to be replaced although nothing is wrong: it idles with a model, or it grew."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from qwen_image_daemon.render.host_memory import own_bytes
from qwen_image_daemon.render.renderer import CleanUp
from qwen_image_daemon.settings import RenderSettings
from qwen_image_daemon.spool.reports import MemoryFloor

_JOBS_OF_A_FLOOR: Final = 5
"""Caches come and go, LoRAs too: a leak is what so many jobs in a row did not give back."""


class Lifetime:
    """Of one render process. Only its end gives everything back that it holds, the card's context included."""

    def __init__(
        self,
        settings: RenderSettings,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], int] = own_bytes,
    ) -> None:
        self._unload_after = settings.unload_after_seconds
        self._most_growth = settings.renew_growth_bytes
        self._clock = clock
        self._memory = memory
        self._worked_at = clock()
        self._left: dict[tuple[str, str | None, frozenset[str]], _Left] = {}
        """What jobs left, by model, arrangement and what else is loaded: others take other memory, and that is no
        growth."""
        self._floor: MemoryFloor | None = None

    def worked(self) -> None:
        """Note that a job came to an end."""
        self._worked_at = self._clock()

    def left_in_use(self, model: str, cleaned: CleanUp, loaded: frozenset[str]) -> MemoryFloor:
        """Note the memory that a job left in use when it had been cleaned up, and give the floor.

        `loaded` are all models that are, the job's among them.
        """
        left = self._left.setdefault((model, cleaned.arrangement, loaded), _Left())
        # What other models keep on the device comes and goes with the room that there is.
        on_device = cleaned.left.allocated_bytes - cleaned.left.standing_by_bytes
        left.note(self._memory(), None if cleaned.left.device == "cpu" else on_device)
        self._floor = MemoryFloor(
            model=model,
            arrangement=cleaned.arrangement,
            jobs=left.jobs,
            host_first_bytes=left.host.first,
            host_bytes=left.host.now,
            device_first_bytes=left.device.first if left.device.seen else None,
            device_bytes=left.device.now if left.device.seen else None,
        )
        return self._floor

    def over_between_jobs(self) -> str | None:
        """Say why the process is to be replaced before its next job, or None."""
        growth = 0 if self._floor is None else self._floor.growth_bytes
        if growth <= self._most_growth:
            return None
        return f"its memory has grown by {growth / 2**30:.1f} GiB (render.renew_growth_bytes)"

    def over_when_idle(self) -> str | None:
        """Say why a process that holds a model and has nothing to do is to be replaced, or None."""
        idle = self._clock() - self._worked_at
        if self._unload_after is None or idle < self._unload_after:
            return None
        return f"its model was not needed for {idle:.0f} s (render.unload_after_seconds)"


class _Floor:
    """The lowest of the first few readings, and of the last few."""

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=_JOBS_OF_A_FLOOR)
        self.first = 0
        self.seen = 0

    def note(self, reading: int) -> None:
        self._last.append(reading)
        self.seen += 1
        if self.seen <= _JOBS_OF_A_FLOOR:
            self.first = self.now

    @property
    def now(self) -> int:
        return min(self._last)


class _Left:
    """What the jobs with one model in one arrangement left in use."""

    def __init__(self) -> None:
        self.host = _Floor()
        self.device = _Floor()

    @property
    def jobs(self) -> int:
        return self.host.seen

    def note(self, host: int, device: int | None) -> None:
        self.host.note(host)
        if device is not None:
            self.device.note(device)
