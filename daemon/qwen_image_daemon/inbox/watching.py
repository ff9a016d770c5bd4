"""File events of the inbox, as hints: each only says look again, and which files came by a rename."""

import os
import threading
import time
from pathlib import Path
from typing import Literal, Self

import structlog
from watchdog.events import (
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyFullEmitter

from qwen_image_daemon.inbox.names import is_ignored
from qwen_image_daemon.loop_control import Stopping
from qwen_image_daemon.spool.mounts import mount_of

log = structlog.get_logger(__name__)

_GLANCE_SECONDS = 0.1
"""How long a stop may go unnoticed while waiting."""

WatchKind = Literal["auto", "events", "rescan"]

# Opening and reading are left out: our own looking must not wake us.
_TELLING = (
    DirMovedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileClosedEvent,
    FileDeletedEvent,
)


class _Bell(FileSystemEventHandler):
    """Runs in the observer's thread, which an exception would end: it only notes and rings."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._lock = threading.Lock()
        self._renamed: set[str] = set()
        self.rung = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not isinstance(event, _TELLING):
            return
        renamed = isinstance(event, DirMovedEvent | FileMovedEvent)
        path = Path(os.fsdecode(event.dest_path if renamed else event.src_path))
        if not path.is_relative_to(self._inbox):
            return
        relative = path.relative_to(self._inbox)
        if any(is_ignored(part) for part in relative.parts):
            return
        if renamed:
            with self._lock:
                self._renamed.add(relative.as_posix())
        self.rung.set()

    def collect(self) -> frozenset[str]:
        with self._lock:
            renamed = frozenset(self._renamed)
            self._renamed.clear()
        return renamed


class InboxWatch:
    """Wakes a waiting loop when something happens in the inbox. Enter it to begin watching, leave it to end."""

    def __init__(self, inbox: Path, watch: WatchKind = "auto") -> None:
        self._inbox = inbox
        self._kind: WatchKind = watch
        self._bell = _Bell(inbox)
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self.keep_up()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def keep_up(self) -> None:
        """Begin anew where the inbox is another folder than before: an observer of a deleted one stays silent."""
        try:
            status = self._inbox.stat()
        except OSError:
            self._end()
            return
        if (status.st_dev, status.st_ino) == self._watched:
            return
        self._end()
        self._watched = (status.st_dev, status.st_ino)
        if not self._brings_events():
            return
        # The full emitter tells of files renamed in from outside as moved; the plain one calls them created.
        observer = BaseObserver(InotifyFullEmitter)
        try:
            observer.schedule(self._bell, str(self._inbox), recursive=True)
            observer.start()
        except OSError as error:
            # No watches left, or a file system without events: the rescan finds everything, only later.
            log.warning("inbox.unwatched", reason=str(error))
        else:
            self._observer = observer

    def _brings_events(self) -> bool:
        """Say whether file events tell of what is dropped. On a share they tell only of what this machine does.

        There the rescan does it all: a PollingObserver over 100,000 files took 41 % of a core and 242 MB, our own
        listing takes half a second.
        """
        if self._kind != "auto":
            return self._kind == "events"
        mount = mount_of(self._inbox)
        if mount.is_shared:
            log.info("inbox.rescanned", file_system=mount.type, reason="others' changes bring no events here")
        return not mount.is_shared

    def renamed(self) -> frozenset[str]:
        """Give the paths that were renamed into place since the last call."""
        return self._bell.collect()

    def wait(self, seconds: float, stopping: Stopping) -> None:
        """Wait until something happens, a stop is asked, or the time is over."""
        end = time.monotonic() + seconds
        while not stopping.is_asked() and (left := end - time.monotonic()) > 0:
            if self._bell.rung.wait(min(left, _GLANCE_SECONDS)):
                self._bell.rung.clear()
                return

    def _end(self) -> None:
        self._watched = None
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None
