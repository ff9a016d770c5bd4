"""The jobs of one file, each as a complete entry of the spool: own job file, own record, shared pictures."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

import structlog

from qwen_image_daemon.inbox.verdicts import (
    Pictures,
    content_of,
    done_before,
    other_content,
    seed_by_lot,
    undrawable,
)
from qwen_image_daemon.jobs.batches import Batch, BatchedJob, job_text, numbered
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.models import AnyJob, source_paths
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.problems import Problem
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.logs import job_log
from qwen_image_daemon.spool.entry import DROPPED, INPUTS, JOB, ORIGINALS, OUTCOME, Entry
from qwen_image_daemon.spool.records import BatchPlace, FileRecord, JobRecord, Outcome, ProblemRecord
from qwen_image_daemon.spool.repeats import DoneBefore, Repeats, SameIdOtherContent
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

_STEM_CHARACTERS: Final = 60
"""Of the dropped file's name in the names of the jobs' own files."""
LEFT_OUT: Final = "left-out"
_LEFT_OUT_JOBS: Final = f"{LEFT_OUT}.json"


class BatchRefused(Exception):
    """A batch that cannot be taken, though each of its jobs is well written."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__()
        self.problems = problems


@dataclass(frozen=True, slots=True)
class BatchWriting:
    """Writes batches into their entries in the spool's `tmp`. Nothing is synced: the commit does that for all."""

    spool: Spool
    catalogue: Catalogue
    repeats: Repeats
    clock: Callable[[], datetime]
    alive: Callable[[], None]

    def write(self, entry: Entry, record: JobRecord, batch: Batch, pictures: Pictures) -> int:
        """Write an entry for each job, and one for the report on those left out. Gives their number.

        Raises BatchRefused, before anything is remembered; OSError.
        """
        batch = self._without_bad_pictures(record, batch, pictures)
        originals = tuple(_recorded(path) for path in entry.dropped_files())
        place = BatchPlace(id=entry.id, name=record.name, key=batch.id, files=originals)
        whole = _Whole(entry, record, place, pictures, _Sent(self.repeats, record, place, batch))
        for number, job in enumerate(batch.jobs, start=1):
            self._write_job(whole, number, job)
            self.alive()
        if batch.problems:
            self._write_left_out(whole, len(batch.jobs) + 1, batch)
        whole.sent.remember()
        log.info("batch.accepted", file=record.source.path, jobs=len(batch.jobs), left_out=len(batch.left_out))
        return len(batch.jobs) + bool(batch.problems)

    def _without_bad_pictures(self, record: JobRecord, batch: Batch, pictures: Pictures) -> Batch:
        """Leave out the jobs whose pictures cannot be used. Raises BatchRefused where all or none count."""
        file = PurePosixPath(record.source.path).name
        good: list[BatchedJob] = []
        left_out = list(batch.left_out)
        problems: dict[Problem, None] = {}
        for job in batch.jobs:
            where = f"{file}, job {job.origin.index} of {job.origin.of}"
            unfit = [pictures.unfit[name] for name in source_paths(job.job) if name in pictures.unfit]
            found = [*unfit, *undrawable(job.job, where, pictures, self.catalogue)]
            problems |= dict.fromkeys(found)
            if found:
                left_out.append(job.values)
            else:
                good.append(job)
        if problems and (batch.on_invalid == "refuse" or not good):
            raise BatchRefused((*batch.problems, *problems))
        return replace(batch, jobs=tuple(good), problems=(*batch.problems, *problems), left_out=tuple(left_out))

    def _write_job(self, whole: "_Whole", number: int, job: BatchedJob) -> None:
        names = source_paths(job.job)
        own = self._begin(whole, number, names)
        (own.folder / DROPPED / f"{_file_stem(whole.record, job)}.json").write_bytes(job.text)
        title = numbered(whole.record.name, job.origin.index, job.origin.of, _STEM_CHARACTERS)
        record = whole.record_of(own, number, names).model_copy(
            update={
                "name": job.job.name or title,
                "batch": whole.place.model_copy(update={"origin": job.origin}),
                "requested": job.job,
            }
        )
        source = record.source.path
        with job_log(own.log_file, own.id):
            earlier = whole.sent.earlier(job, own.id)
            if earlier is not None:
                log.info("drop.repeated", file=source, earlier=earlier)
                outcome = Outcome(status="duplicate", finished_at=self.clock(), earlier=earlier)
                (own.folder / OUTCOME).write_bytes(outcome.to_bytes())
            else:
                size = whole.pictures.decisive_size(job.job)
                effective = resolve(job.job, self.catalogue, seed=seed_by_lot(), source=size)
                record = record.model_copy(update={"effective": effective})
                log.info("job.accepted", file=source, images=job.job.num_images, task=job.job.task)
        (own.folder / JOB).write_bytes(record.to_bytes())

    def _write_left_out(self, whole: "_Whole", number: int, batch: Batch) -> None:
        """Write an entry that is refused: what is wrong, and the jobs to be corrected, as a file of their own."""
        values = [value for job in batch.left_out for value in job.values()]
        lists = [entry for value in values if isinstance(value, list) for entry in value]
        named = {name for name in (*values, *lists) if isinstance(name, str)}
        names = [file.path for file in whole.record.inputs if file.path in named]
        own = self._begin(whole, number, names)
        text = job_text({"jobs": batch.left_out})
        if len(text) <= MAX_JOB_BYTES:
            (own.folder / DROPPED / _LEFT_OUT_JOBS).write_bytes(text)
        record = whole.record_of(own, number, names).model_copy(
            update={"name": f"{whole.record.name} {LEFT_OUT}", "batch": whole.place}
        )
        problems = tuple(map(ProblemRecord.of, batch.problems))
        with job_log(own.log_file, own.id):
            log.warning("jobs.left_out", file=record.source.path, jobs=len(batch.left_out), problems=len(problems))
        outcome = Outcome(status="refused", finished_at=self.clock(), problems=problems)
        (own.folder / OUTCOME).write_bytes(outcome.to_bytes())
        (own.folder / JOB).write_bytes(record.to_bytes())

    def _begin(self, whole: "_Whole", number: int, pictures: Sequence[str]) -> Entry:
        """Open the entry of one job, with its share of the pictures and of what was dropped."""
        own = self.spool.begin_in_batch(whole.entry, number, whole.record.received_at)
        _link(whole.entry.folder / DROPPED, own.folder / ORIGINALS, [file.path for file in whole.place.files])
        _link(whole.entry.folder / INPUTS, own.folder / INPUTS, pictures)
        return own


@dataclass(frozen=True, slots=True)
class _Whole:
    """A batch while its jobs are written."""

    entry: Entry
    record: JobRecord
    """As if it were one job that was not read."""
    place: BatchPlace
    pictures: Pictures
    sent: "_Sent"

    def record_of(self, own: Entry, number: int, pictures: Sequence[str]) -> JobRecord:
        """Give what is the same for all jobs, for the one in this entry."""
        return self.record.model_copy(
            update={
                "id": own.id,
                "sequence": self.record.sequence + number,
                "inputs": tuple(file for file in self.record.inputs if file.path in pictures),
            }
        )


class _Sent:
    """Which jobs of a batch were sent before: by the file's id, or by their own."""

    def __init__(self, repeats: Repeats, record: JobRecord, place: BatchPlace, batch: Batch) -> None:
        self._repeats = repeats
        self._place = place
        self._content = content_of(record, *(file.sha256 for file in place.files))
        self._contents = {job.origin.index: _content_of(job, record) for job in batch.jobs}
        self._known: Mapping[int, str] = {}
        self._ids: dict[int, str] = {}
        self._own: list[tuple[AnyJob, str, str]] = []
        try:
            if place.key is not None:
                self._known = self._repeats.find_batch(place.key, self._content)
            for job in batch.jobs:
                self._repeats.earlier(job.job, self._contents[job.origin.index])
        except SameIdOtherContent as other:
            raise BatchRefused((other_content(record, other),)) from None
        except DoneBefore as done:
            raise BatchRefused((done_before(record, done),)) from None

    def earlier(self, job: BatchedJob, job_id: str) -> str | None:
        """Give the id of the earlier job that answers this one; None where this one, `job_id`, is to be drawn."""
        known = self._known.get(job.origin.index)
        if known is None:
            content = self._contents[job.origin.index]
            known = self._repeats.earlier(job.job, content)
            if known is None:
                self._own.append((job.job, content, job_id))
        self._ids[job.origin.index] = known or job_id
        return known

    def remember(self) -> None:
        """Note all that is new, before the batch is committed."""
        for job, content, job_id in self._own:
            self._repeats.note(job, content, job_id)
        if self._place.key is not None:
            self._repeats.remember(self._place.key, self._content, self._place.id, self._ids)


def _content_of(job: BatchedJob, record: JobRecord) -> str:
    """Give one hash over what one job of a batch asks for, whichever file it came in."""
    names = source_paths(job.job)
    hashes = (hashlib.sha256(job.text).hexdigest(), *(file.sha256 for file in record.inputs if file.path in names))
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _recorded(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(path=path.name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _file_stem(whole: JobRecord, job: BatchedJob) -> str:
    stem = PurePosixPath(whole.source.path).stem
    return numbered(stem, job.origin.index, job.origin.of, _STEM_CHARACTERS)


def _link(source: Path, target: Path, names: Sequence[str]) -> None:
    """Give a job of a batch its share of the batch's own copies: the same bytes, without copying them."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(source / name, target / name)
