"""What people ask for by a file: `PAUSE`, `<job>.cancel`. Carried to the spool, where the render loop looks."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath

import structlog

from qwen_image_daemon.inbox.drops import Drop
from qwen_image_daemon.inbox.handover import hand_over
from qwen_image_daemon.inbox.listing import Stamp
from qwen_image_daemon.inbox.names import PAUSE_NAMES, is_cancel, kept_path, printable
from qwen_image_daemon.spool.control import CANCEL_SUFFIX, Controls
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.identity import new_id
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)


class Requests:
    """Follows the requests that lie in one inbox."""

    def __init__(self, inbox: Path, spool: Spool, clock: Callable[[], datetime]) -> None:
        self._inbox = inbox
        self._spool = spool
        self._controls = Controls(spool)
        self._clock = clock

    def follow(self, listing: Mapping[str, Stamp], drops: Iterable[Drop]) -> dict[str, str]:
        """Do what is asked for. Gives the requests that nothing answers to, with the reason. Raises OSError."""
        asked = any("/" not in path and path.casefold() in PAUSE_NAMES for path in listing)
        if asked != ("inbox" in self._controls.paused_by()):
            change = self._controls.pause if asked else self._controls.resume
            change("inbox")
            log.info("pause.asked" if asked else "pause.ended")
        return dict(self._unanswered([path for path in listing if is_cancel(path)], drops))

    def _unanswered(self, cancels: list[str], drops: Iterable[Drop]) -> Iterable[tuple[str, str]]:
        for path in cancels:
            meant = path[: -len(CANCEL_SUFFIX)]
            waiting = [drop for drop in drops if _names(meant, drop.path)]
            running = [] if waiting else self._jobs_called(printable(meant))
            if not waiting and not running:
                # Perhaps another daemon's job, or one that is still on its way.
                yield path, "names no job that waits or runs here. Delete it, unless the job is still to come"
                continue
            for drop in waiting:
                hand_over(self._inbox, drop.path, new_id(self._clock()))
                log.info("drop.cancelled", file=printable(drop.path))
            for entry in running:
                self._controls.cancel(entry.id)
                log.info("cancel.asked", id=entry.id)
            hand_over(self._inbox, path, new_id(self._clock()))

    def _jobs_called(self, meant: str) -> list[Entry]:
        """Find jobs that are not finished, by id or by the name of what was dropped, which may be many jobs."""
        folder, _, name = meant.rpartition("/")
        named = self._spool.find(name)
        if named is not None:
            return [named] if named.folder.parent in (self._spool.queue, self._spool.active) else []
        entries = (*self._spool.entries(self._spool.queue), *self._spool.entries(self._spool.active))
        return [entry for entry in entries if _is_called(entry, folder, name)]


def _is_called(entry: Entry, folder: str, name: str) -> bool:
    try:
        record = entry.record()
    except (OSError, ValueError):
        # It moved on, or is broken.
        return False
    if record.batch is not None and name in (record.batch.id, record.group):
        return True
    return record.folder == kept_path(folder) and (
        record.name == name or _names(name, PurePosixPath(record.source.path).name)
    )


def _names(meant: str, path: str) -> bool:
    """Say whether a request means a drop: by its name with or without the suffix."""
    return meant in (path, str(PurePosixPath(path).with_suffix("")))
