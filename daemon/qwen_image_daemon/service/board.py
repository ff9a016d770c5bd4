"""The daemon's status, from the spool's folders and the loops' reports. Touches neither share nor device."""

import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from qwen_image_daemon import __version__
from qwen_image_daemon.outbox.status import STATUS, Counts, DaemonState, DaemonStatus
from qwen_image_daemon.service.items import items, queued_item
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.records import Record
from qwen_image_daemon.spool.reports import (
    GIVE_OUT_REPORT,
    RENDER_REPORT,
    TAKE_IN_REPORT,
    GiveOutReport,
    RenderReport,
    TakeInReport,
    unwritten_is_logged,
)
from qwen_image_daemon.spool.spool import Spool
from qwen_image_daemon.spool.waiting import WaitingJobs

MOST_ITEMS = 200
"""Queue items that the status lists; the counts are always whole."""
_REFRESH_SECONDS = 10.0
"""An unchanged status is written anew so often, so that an old one means a dead daemon."""

_READING_SECONDS = 0.2
"""A long queue that was there at the start is read bit by bit: signals and systemd wait meanwhile."""

_SHARE_OF_COUNTING = 20
"""A folder is counted again after so many times the duration of the last counting: 5 % of the time at most."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class _Length:
    """How many entries a folder had, as of which change of it, and from when on it is worth counting again."""

    changed: int
    count: int
    due: float


class Board:
    """Writes `spool/state/status.json`; the give-out loop carries it to the outbox."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting = WaitingJobs(spool, _READING_SECONDS)
        self._lengths: dict[Path, _Length] = {}
        self._started_at = datetime.now(UTC)
        self._written: DaemonStatus | None = None

    def update(self, state: DaemonState | None, trouble: tuple[str, ...]) -> DaemonStatus:
        """Look, and write the status if it changed or grew old. `state` None means: what the render loop says."""
        status = self._look(state, trouble)
        if self._changed(status):
            with unwritten_is_logged():
                replace_content(self._spool.state / STATUS, status.to_bytes())
            self._written = status
        return status

    def _changed(self, status: DaemonStatus) -> bool:
        before = self._written
        if before is None or (status.updated_at - before.updated_at).total_seconds() > _REFRESH_SECONDS:
            return True
        return status.model_copy(update={"updated_at": before.updated_at}) != before

    def _look(self, state: DaemonState | None, trouble: tuple[str, ...]) -> DaemonStatus:
        spool = self._spool
        render = _read(spool.state / RENDER_REPORT, RenderReport) or RenderReport(activity="starting")
        take_in = _read(spool.state / TAKE_IN_REPORT, TakeInReport) or TakeInReport()
        give_out = _read(spool.state / GIVE_OUT_REPORT, GiveOutReport) or GiveOutReport()
        queued = self._waiting.refresh()[:MOST_ITEMS]
        active, rendered = spool.entries(spool.active), spool.entries(spool.rendered)
        listed = [
            *items(active[:MOST_ITEMS], "rendering"),
            *items(rendered[:MOST_ITEMS], "rendered"),
            *map(queued_item, queued),
        ]
        return DaemonStatus(
            daemon_version=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            state=state or render.activity,
            note=render.note if state is None else None,
            trouble=(*trouble, *filter(None, (take_in.trouble, render.trouble, give_out.trouble))),
            started_at=self._started_at,
            updated_at=datetime.now(UTC),
            current=render.current if state != "stopped" else None,
            queue=tuple(listed[:MOST_ITEMS]),
            waiting=take_in.waiting,
            counts=Counts(
                waiting=len(take_in.waiting),
                queued=self._waiting.count,
                rendering=len(active),
                rendered=len(rendered),
                succeeded=self._length(spool.shelf("succeeded")),
                failed=self._length(spool.shelf("failed")),
                refused=self._length(spool.shelf("refused")),
                cancelled=self._length(spool.shelf("cancelled")),
                duplicate=self._length(spool.shelf("duplicate")),
            ),
            model=render.model if state != "stopped" else None,
            loading=render.loading if state != "stopped" else None,
            memory=render.memory,
            memory_floor=render.memory_floor,
        )

    def _length(self, folder: Path) -> int:
        """Count a folder's entries, not more often than it is worth: shelves grow long."""
        known = self._lengths.get(folder)
        changed = folder.stat().st_mtime_ns
        started = time.monotonic()
        if known is None or (known.changed != changed and started >= known.due):
            with os.scandir(folder) as listing:
                count = sum(1 for _ in listing)
            ended = time.monotonic()
            known = self._lengths[folder] = _Length(changed, count, ended + _SHARE_OF_COUNTING * (ended - started))
        return known.count


def _read(path: Path, model: type[R]) -> R | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        # Not written yet, or by another version.
        return None


def summary(status: DaemonStatus) -> str:
    """Give the status in one line."""
    doing: str = status.state
    if status.loading is not None:
        doing = status.loading.told()
    elif status.current is not None:
        job = status.current
        doing = f"rendering {job.name}, picture {job.image} of {job.images}, step {job.step} of {job.steps}"
    counts = status.counts
    line = (
        f"{doing}; {counts.queued} queued, {counts.succeeded} succeeded, {counts.failed + counts.refused} failed"
    )
    if counts.cancelled:
        line = f"{line}, {counts.cancelled} cancelled"
    more = status.trouble[0] if status.trouble else status.note
    return f"{line}; {more}" if more else line
