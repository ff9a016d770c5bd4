"""Jobs as lines of a list: those on their way, and those that ended otherwise than hoped."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import nlargest
from typing import Final

from pydantic import ConfigDict

from qwen_image_daemon.outbox.status import QueueItem, QueueStatus
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import JobRecord, OutcomeStatus, Record
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT, TakeInReport
from qwen_image_daemon.spool.spool import Spool
from qwen_image_daemon.spool.waiting import WaitingJob, WaitingJobs

MOST_ENDED: Final = 10
_SHELVES: Final[tuple[OutcomeStatus, ...]] = ("failed", "refused", "cancelled")


class EndedJob(Record):
    """A job that was given out, and did not succeed."""

    id: str
    name: str
    status: OutcomeStatus
    finished_at: datetime


class JobList(Record):
    """Every job on its way, what waits in the inbox, and the last that failed."""

    model_config = ConfigDict(title="qwen-image-daemon list")

    jobs: tuple[QueueItem, ...]
    """In the order in which they will be done."""
    waiting: dict[str, str]
    """Job files in the inbox that wait, with the reason, as the daemon saw them last."""
    ended: tuple[EndedJob, ...]
    """The last jobs that failed or were refused or cancelled, the latest first."""


def jobs_on_their_way(spool: Spool) -> Iterator[QueueItem]:
    """Give all jobs that are not given out yet. Raises OSError."""
    yield from items(spool.entries(spool.rendered), "rendered")
    yield from items(spool.entries(spool.active), "rendering")
    yield from map(queued_item, WaitingJobs(spool).refresh())


def list_jobs(spool: Spool) -> JobList:
    """Look through the spool. Raises OSError."""
    try:
        waiting = TakeInReport.model_validate_json((spool.state / TAKE_IN_REPORT).read_bytes()).waiting
    except (FileNotFoundError, ValueError):
        waiting = {}
    shelved = (entry for status in _SHELVES for entry in spool.entries(spool.shelf(status)))
    latest = nlargest(MOST_ENDED, shelved, key=lambda entry: entry.id)
    return JobList(jobs=tuple(jobs_on_their_way(spool)), waiting=waiting, ended=tuple(_ended(latest)))


def items(entries: Iterable[Entry], status: QueueStatus) -> Iterator[QueueItem]:
    """Give the entries that can be read as items of a list."""
    for entry in entries:
        try:
            yield _item(entry.record(), status, entry.first_attempt_at())
        except (OSError, ValueError):
            # It moved on while we looked.
            continue


def queued_item(job: WaitingJob) -> QueueItem:
    """Give a waiting job as an item of a list."""
    return QueueItem(
        id=job.id,
        name=job.name,
        status="queued",
        priority=job.priority,
        images=job.images,
        received_at=job.received_at,
        started_at=job.started_at,
        not_before=job.not_before,
        batch=job.batch,
    )


def _item(record: JobRecord, status: QueueStatus, started_at: datetime | None) -> QueueItem:
    return QueueItem(
        id=record.id,
        name=record.name,
        status=status,
        priority=record.priority,
        images=record.effective.num_images if record.effective else 0,
        received_at=record.received_at,
        started_at=started_at,
        not_before=record.not_before,
        batch=record.group,
    )


def _ended(entries: Iterable[Entry]) -> Iterator[EndedJob]:
    for entry in entries:
        try:
            record, outcome = entry.record(), entry.outcome()
        except (OSError, ValueError):
            continue
        yield EndedJob(id=entry.id, name=record.name, status=outcome.status, finished_at=outcome.finished_at)
