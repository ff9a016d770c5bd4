"""When the render process is to be replaced although nothing is wrong: it idles with a model, or it grew."""

import time
from collections.abc import Callable

from qwen_image_daemon.render.host_memory import own_bytes
from qwen_image_daemon.settings import RenderSettings


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
        self._floors: dict[str, int] = {}
        """Memory after the first job with each model."""
        self._grown = 0

    def worked(self, model: str) -> None:
        """Note that a job of a model came to an end, and look at the memory that is left in use."""
        self._worked_at = self._clock()
        now = self._memory()
        self._grown = now - self._floors.setdefault(model, now)

    def over_between_jobs(self) -> str | None:
        """Say why the process is to be replaced before its next job, or None."""
        if self._grown <= self._most_growth:
            return None
        return f"its memory has grown by {self._grown / 2**30:.1f} GiB (render.renew_growth_bytes)"

    def over_when_idle(self) -> str | None:
        """Say why a process that holds a model and has nothing to do is to be replaced, or None."""
        idle = self._clock() - self._worked_at
        if self._unload_after is None or idle < self._unload_after:
            return None
        return f"its model was not needed for {idle:.0f} s (render.unload_after_seconds)"
