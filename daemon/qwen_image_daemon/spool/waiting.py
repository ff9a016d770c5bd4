"""The order of the queue: an index in memory, rebuilt from the folders, so that a job is read only once."""

import os
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.spool import Spool

_SHARE_OF_LISTING: Final = 20
"""The next listing comes after so many times the last one's duration: 5 % of the time at most goes into it."""
_MANY: Final = 100
"""From so many new jobs on, sorting once is cheaper than putting each into its place."""

Order = tuple[bool, int, int, str]


@dataclass(frozen=True, slots=True)
class WaitingJob:
    """What the order of the queue, and a list of it, must know of a job. A queue may hold very many."""

    id: str
    name: str
    sequence: int
    priority: int
    suspect: bool
    """It took the render process down with it: everybody else goes first."""
    model: str
    images: int
    received_at: datetime
    started_at: datetime | None
    """When its first attempt began; None where none did."""
    batch: str | None = None
    """The batch that it is one job of."""
    loras: tuple[str, ...] = ()
    """Their names, in order."""
    not_before: datetime | None = None
    """Its author wants it to be begun no sooner. It keeps its place, and others go first until then."""

    def is_for_later(self, now: datetime) -> bool:
        """Say whether the job must not be begun yet."""
        return self.not_before is not None and now < self.not_before

    @classmethod
    def of(cls, entry: Entry) -> "WaitingJob":
        """Read an entry. Raises OSError or ValueError where it is unreadable."""
        record = entry.record()
        parameters = record.to_do()
        was_begun = bool(entry.attempts())
        return cls(
            id=entry.id,
            name=record.name,
            sequence=record.sequence,
            priority=record.priority,
            suspect=was_begun and entry.deaths() > 0,
            model=parameters.model,
            images=parameters.num_images,
            received_at=record.received_at,
            started_at=entry.first_attempt_at() if was_begun else None,
            not_before=record.not_before,
            batch=record.group,
            loras=tuple(lora.name for lora in parameters.loras),
        )


def _order(job: WaitingJob) -> Order:
    return job.suspect, -job.priority, job.sequence, job.id


class WaitingJobs:
    """Queued jobs in the order in which they will be taken: suspects last, then priority, then arrival.

    One refresh spends at most about `reading_seconds` on reading jobs that it did not know; the next goes on.
    """

    def __init__(
        self, spool: Spool, reading_seconds: float = inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spool = spool
        self._reading_seconds = reading_seconds
        self._clock = clock
        self._jobs: list[WaitingJob] = []
        self._known: dict[str, WaitingJob] = {}
        self._listing_due = -inf
        self._unread: list[str] = []
        self.unreadable: list[Entry] = []
        """Entries whose `job.json` is missing or broken, found by the last refresh."""
        self.withheld: dict[str, str] = {}
        """Jobs that the disk did not give, with its reason. They are tried again at each listing."""

    @property
    def count(self) -> int:
        """Count all that are queued, read or not."""
        return len(self._jobs) + len(self._unread) + len(self.withheld)

    @property
    def behind(self) -> int:
        """Say how many jobs were listed and are still to be read."""
        return len(self._unread)

    def refresh(self) -> Sequence[WaitingJob]:
        """List the queue anew where that is due, and give all jobs in order. Raises OSError."""
        self.unreadable = []
        if self._clock() >= self._listing_due:
            self._list()
        if self._unread:
            self._read()
        return self._jobs

    def expire(self) -> None:
        """Make the next refresh list the queue anew."""
        self._listing_due = -inf

    def forget(self, job_id: str) -> None:
        """Leave out a job that was taken, until it is listed or put back."""
        job = self._known.pop(job_id, None)
        if job is not None:
            del self._jobs[bisect_left(self._jobs, _order(job), key=_order)]

    def put_back(self, entry: Entry) -> None:
        """Put a job into its place again, as it now is."""
        self.forget(entry.id)
        self._add(entry)

    def _list(self) -> None:
        started = self._clock()
        with os.scandir(self._spool.queue) as listing:
            names = {item.name for item in listing if not item.name.startswith(".") and item.is_dir()}
        if self._known.keys() - names:
            self._jobs = [job for job in self._jobs if job.id in names]
            self._known = {job.id: job for job in self._jobs}
        self._unread = sorted(names - self._known.keys(), reverse=True)
        self.withheld = {}
        ended = self._clock()
        self._listing_due = ended + _SHARE_OF_LISTING * (ended - started)

    def _read(self) -> None:
        """Read what was listed and is not known yet, the oldest first, for as long as may be."""
        until = self._clock() + self._reading_seconds
        many = len(self._unread) > _MANY
        add = self._append if many else self._add
        while self._unread and self._clock() <= until:
            add(Entry(self._spool.queue / self._unread.pop()))
        if many:
            self._jobs.sort(key=_order)

    def _add(self, entry: Entry) -> None:
        job = self._fetch(entry)
        if job is not None:
            insort(self._jobs, job, key=_order)

    def _append(self, entry: Entry) -> None:
        job = self._fetch(entry)
        if job is not None:
            self._jobs.append(job)

    def _fetch(self, entry: Entry) -> WaitingJob | None:
        """Read a job, unless it is known or gone; note down those that cannot be read, each for its reason."""
        if entry.id in self._known:
            return None
        try:
            job = self._known[entry.id] = WaitingJob.of(entry)
        except FileNotFoundError:
            # Taken by the render loop between the listing and the reading, or truly without job.json.
            if entry.folder.is_dir():
                self.unreadable.append(entry)
            return None
        except ValueError:
            self.unreadable.append(entry)
            return None
        except OSError as error:
            # The disk's fault, which may pass: no reason to give the job up.
            self.withheld[entry.id] = str(error)
            return None
        return job
