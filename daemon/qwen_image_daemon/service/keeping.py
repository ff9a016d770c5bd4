"""Keeping one loop alive: started again when it dies or stops giving signs of life, until that is pointless.

Nothing here waits: a process in the kernel's uninterruptible sleep does not even die of SIGKILL while its file
server is away. It is left to die in its own time, and its successor starts when it has.
"""

import time
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from qwen_image_daemon.service.loops import LoopName
from qwen_image_daemon.service.running import RunningLoop

log = structlog.get_logger(__name__)

MOST_DEATHS: Final = 10
"""Deaths in a row without a single job getting on in between.

Jobs that kill the renderer are tried twice, the second time after all others, so that several first kills may
follow each other. Above that it is not the jobs.
"""
SHARES: Final[dict[LoopName, str]] = {"take-in": "inbox", "give-out": "outbox"}
"""The loops that work on what may be a share. Their hanging is the file server's fault, however long it lasts."""

_LONGEST_BACKOFF_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
"""A loop on a share that was asked to stop is ended after so long. Each of its steps is safe against that."""
_DYING_SECONDS: Final = 5.0
"""When we stop, a process that was killed is waited for no longer than this."""
_SIGNS_OF_LIFE: Final = 2
"""The first comes before a loop touches its share, the second after."""

DeathNotice = Callable[[LoopName, str, float | None], None]
"""Hears of a loop's death: which, how, and after how many seconds of silence it was killed by us, if it was."""


def _unheard(_name: LoopName, _how: str, _silent_seconds: float | None) -> None:
    pass


class KeptLoop:
    """One of the daemon's loops over all its lives."""

    def __init__(
        self,
        name: LoopName,
        start: Callable[[LoopName], RunningLoop],
        notice: DeathNotice = _unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name: LoopName = name
        self._clock = clock
        self._start = start
        self._notice = notice
        self._deaths = 0
        self._progress: Hashable = None
        self._restart_at: float | None = None
        self._last_death = ""
        self._stop_by: float | None = None
        self._killed_at: float | None = None
        self.running = start(name)
        self.abandoned = False
        self.hung_since: datetime | None = None
        """When the silence began that it was killed for; None once a successor gave signs of life."""

    @property
    def over(self) -> bool:
        """Say whether it has ended for good, or is waited for no longer."""
        return self.abandoned or self.running.state() in {"ended", "gave up"}

    @property
    def gave_up(self) -> bool:
        """Say whether it ended with work left that it could not do."""
        return self.running.state() == "gave up" or (self.abandoned and self.hung_since is not None)

    @property
    def healthy(self) -> bool:
        """Say whether it runs and keeps its word, or has rightly ended."""
        return self.over or (self.running.state() == "running" and not self.running.overdue())

    @property
    def trouble(self) -> str | None:
        """Say in a sentence what is wrong with it."""
        if self.hung_since is not None and self._name in SHARES:
            since = f"{self.hung_since:%Y-%m-%d %H:%M} UTC"
            return f"The {SHARES[self._name]}'s file server does not answer since {since}. All else goes on."
        if self.hung_since is not None:
            return "The render process hangs, and is replaced as soon as it is gone."
        if self._restart_at is not None:
            return f"The {self._name} loop died ({self._last_death}) and is started again."
        return None

    def ask_to_stop(self) -> None:
        """Ask it to end; a second time: at the next step. A share is not waited for."""
        if self._stop_by is None and self._name in SHARES:
            self._stop_by = self._clock() + _STOP_SECONDS
        self.running.ask_to_stop()

    def abandon_hung(self) -> None:
        """Wait no longer for a share that does not answer: for a run that is to end by itself."""
        if self.hung_since is not None and self._name in SHARES and not self.abandoned:
            log.error("loop.gave_up", name=self._name, reason=self.trouble)
            self.abandoned = True

    def keep(self, progress: Hashable, *, stopping: bool) -> str | None:
        """Look after the loop. Gives None, or the reason why it cannot be kept alive.

        `progress` is a value that changes whenever a job gets on; `stopping` says that a dead loop stays dead.
        """
        if self.over:
            return None
        if self._restart_at is not None:
            self._restart_when_due(stopping=stopping)
            return None
        match self.running.state():
            case "running":
                return self._watch(stopping=stopping)
            case "died":
                return self._mourn(progress, stopping=stopping)
            case "renewed":
                self._renew(stopping=stopping)
            case _:
                # It has ended since we looked.
                pass
        return None

    def _renew(self, *, stopping: bool) -> None:
        if stopping:
            self.abandoned = True
        else:
            self.running = self._start(self._name)

    def _restart_when_due(self, *, stopping: bool) -> None:
        if stopping:
            self.abandoned = True
        elif self._restart_at is not None and self._clock() >= self._restart_at:
            self._restart_at = self._killed_at = None
            if self._name not in SHARES:
                self.hung_since = None
            self.running = self._start(self._name)
            log.info("loop.restarted", name=self._name)

    def _watch(self, *, stopping: bool) -> str | None:
        if self._killed_at is not None:
            self.abandoned = stopping and self._clock() - self._killed_at >= _DYING_SECONDS
        elif self.running.overdue():
            silent = self.running.silent_seconds()
            log.error("loop.hung", name=self._name, silent_seconds=silent)
            self.hung_since = self.hung_since or datetime.now(UTC) - timedelta(seconds=silent)
            if not self.running.replaceable:
                return f"The {self._name} loop hangs, and runs in no process of its own that could be replaced."
            self._kill()
        elif self._stop_by is not None and self._clock() >= self._stop_by:
            log.warning("loop.stopped_hard", name=self._name)
            self._kill()
        elif self.hung_since is not None and self.running.signs_of_life() >= _SIGNS_OF_LIFE:
            log.info("loop.answers_again", name=self._name)
            self.hung_since = None
        return None

    def _kill(self) -> None:
        self.running.kill()
        self._killed_at = self._clock()

    def _mourn(self, progress: Hashable, *, stopping: bool) -> str | None:
        death = self._last_death = self.running.describe_death()
        we_killed_it = self._killed_at is not None and self.hung_since is not None
        log.error("loop.died", name=self._name, how=death)
        self._notice(self._name, death, self.running.silent_seconds() if we_killed_it else None)
        if stopping:
            self.abandoned = True
            return None
        if we_killed_it and self._name in SHARES:
            # However long the server is away: it is nobody's fault here, and the next look may find it back.
            self._restart_at = self._clock()
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
