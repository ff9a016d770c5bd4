"""What a loop hears from the service and tells it: stop, I am alive, nothing more will come."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

GLANCE_SECONDS = 0.05
"""How long a loop that has nothing to do looks away."""
_LONGEST_REST_SECONDS = 60.0
_REST_ALLOWANCE_SECONDS = 60.0


class Stopping:
    """How urgently a loop is asked to end. Signal handlers only count up; loops only look."""

    def __init__(self) -> None:
        self._requests = 0

    def ask(self) -> None:
        """Ask to end; a second time: to end at the next step."""
        self._requests += 1

    def is_asked(self) -> bool:
        """Say whether to end after the current image."""
        return self._requests > 0

    def is_urgent(self) -> bool:
        """Say whether to end at the next step."""
        return self._requests > 1


def _never() -> bool:
    return False


def _unheard(_allowance_seconds: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class LoopControl:
    """One loop's line to the service."""

    stopping: Stopping = field(default_factory=Stopping)
    beat: Callable[[float], None] = _unheard
    """Say: I am alive, and will say so again within so many seconds."""
    no_more: Callable[[], bool] = _never
    """Say whether the room upstream has ended for good: drain what is there, then end."""
    share_timeout_seconds: float = 120.0
    """What to announce with `beat` before touching a share; a file server that takes longer does not answer."""
    drain: bool = False
    """End when nothing is left to do, and give up where only waiting could help."""

    def rest(self, troubles: int) -> None:
        """Wait for a fault of the surroundings to pass: longer after each trouble in a row, shorter than a minute.

        A stop ends the waiting, and the service hears signs of life.
        """
        end = time.monotonic() + min(2.0**troubles, _LONGEST_REST_SECONDS)
        while time.monotonic() < end and not self.stopping.is_asked():
            self.beat(_REST_ALLOWANCE_SECONDS)
            time.sleep(GLANCE_SECONDS)


class GaveUp(Exception):
    """A draining loop cannot go on without somebody's help. `str()` says why. What was dropped is still there."""


class Renewed(Exception):
    """A loop asks to be started anew, in a fresh process. Nothing is wrong; `str()` says what for."""
