"""Telling a caller how far the loading of a model is, out of libraries with threads of their own."""

import threading
import time
from collections.abc import Callable
from typing import Final

from qwen_image_daemon.render.renderer import Loading

_SECONDS_BETWEEN: Final = 0.25


class Telling:
    """Hands progress to the caller, not more often than anyone looks, and from one thread at a time.

    `is_callers_own` turns true where the caller's function raises. While it merely runs in one thread, what
    another one raises is not its own.
    """

    def __init__(self, tell: Callable[[Loading], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Loading | None = None
        self._told_at = 0.0
        self._has_raised = False

    def __call__(self, loading: Loading) -> None:
        """Call the caller's function where a stage begins or ends, or after some time."""
        with self._lock:
            last, now = self._last, self._clock()
            goes_on = last is not None and last.stage == loading.stage
            is_news = not goes_on or (loading.done_bytes >= loading.total_bytes and loading != last)
            if not is_news and now - self._told_at < _SECONDS_BETWEEN:
                return
            self._last, self._told_at = loading, now
            try:
                self._tell(loading)
            except BaseException:
                self._has_raised = True
                raise

    def is_callers_own(self) -> bool:
        """Say whether an exception that is under way came out of the caller's function."""
        return self._has_raised


class Count:
    """Bytes of one stage that are done, added up over threads."""

    def __init__(self, loading: Loading, tell: Callable[[Loading], None]) -> None:
        """Begin with what `loading` says; `tell` hears of it at once."""
        self._stage, self._total, self._done = loading.stage, loading.total_bytes, loading.done_bytes
        self._tell = tell
        self._lock = threading.Lock()
        tell(loading)

    def add(self, size: int, part: str) -> None:
        """Add bytes of a part that are done. Raises what the teller raises."""
        with self._lock:
            self._done += size
            now = Loading(self._stage, self._done, self._total, part)
        self._tell(now)

    def reach(self, size: int) -> None:
        """Say how many bytes are done in all; fewer than before are no news. Raises what the teller raises."""
        with self._lock:
            if size <= self._done:
                return
            self._done = min(size, self._total)
            now = Loading(self._stage, self._done, self._total)
        self._tell(now)
