"""Keeping one loop alive: started again when it dies or stops giving signs of life, until that is pointless."""

import time
from collections.abc import Callable, Hashable

import structlog

from qwen_image_daemon.service.loops import LoopName
from qwen_image_daemon.service.running import RunningLoop

log = structlog.get_logger(__name__)

MOST_DEATHS = 6
"""Deaths in a row without a single job getting on in between.

Above the two kills after which a job is set aside, so that a job that kills the renderer never ends the daemon.
"""
_LONGEST_BACKOFF_SECONDS = 30.0


class KeptLoop:
    """One of the daemon's loops over all its lives."""

    def __init__(
        self,
        name: LoopName,
        start: Callable[[LoopName], RunningLoop],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name: LoopName = name
        self._clock = clock
        self._start = start
        self._deaths = 0
        self._progress: Hashable = None
        self._restart_at: float | None = None
        self.running = start(name)
        self.abandoned = False

    @property
    def over(self) -> bool:
        """Say whether it has ended for good."""
        return self.abandoned or self.running.state() in {"ended", "gave up"}

    @property
    def gave_up(self) -> bool:
        """Say whether it ended with work left that it could not do."""
        return self.running.state() == "gave up"

    @property
    def healthy(self) -> bool:
        """Say whether it runs and keeps its word, or has rightly ended."""
        return self.over or (self.running.state() == "running" and not self.running.overdue())

    def keep(self, progress: Hashable, *, stopping: bool) -> str | None:
        """Look after the loop. Gives None, or the reason why it cannot be kept alive.

        `progress` is a value that changes whenever a job gets on; `stopping` says that a dead loop stays dead.
        """
        if self.over:
            return None
        if self._restart_at is not None:
            if stopping:
                self.abandoned = True
            elif self._clock() >= self._restart_at:
                self._restart_at = None
                self.running = self._start(self._name)
                log.info("loop.restarted", name=self._name)
            return None
        if self.running.state() == "running" and self.running.overdue():
            log.error("loop.hung", name=self._name)
            self.running.kill()
            if not self.running.replaceable:
                return f"The {self._name} loop hangs, and runs in no process of its own that could be replaced."
        if self.running.state() != "died":
            return None
        return self._mourn(progress, stopping=stopping)

    def _mourn(self, progress: Hashable, *, stopping: bool) -> str | None:
        death = self.running.describe_death()
        log.error("loop.died", name=self._name, how=death)
        if stopping:
            self.abandoned = True
            return None
        self._deaths = 1 if progress != self._progress else self._deaths + 1
        self._progress = progress
        if not self.running.replaceable:
            return (
                f"The {self._name} loop died ({death}), and runs in no process of its own that could be replaced."
            )
        if self._deaths >= MOST_DEATHS:
            return f"The {self._name} loop died {self._deaths} times in a row (last: {death}). The log says more."
        self._restart_at = self._clock() + min(2.0 ** (self._deaths - 1), _LONGEST_BACKOFF_SECONDS)
        return None
