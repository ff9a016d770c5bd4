"""The way of one drop that is ready: claim, copy, commit, hand over, let in. Each step is safe against a kill."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import structlog

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.inbox.batch_writing import BatchRefused, BatchWriting
from qwen_image_daemon.inbox.beneath import ChangedMeanwhile, copy_beneath
from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.drops import Drop
from qwen_image_daemon.inbox.handover import hand_over
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.listing import Stamp, list_inbox
from qwen_image_daemon.inbox.names import kept_name, kept_path, printable
from qwen_image_daemon.inbox.pictures import UnfitPicture, upright_size
from qwen_image_daemon.inbox.verdicts import (
    Pictures,
    complaint,
    content_of,
    done_before,
    other_content,
    seed_by_lot,
    undrawable,
)
from qwen_image_daemon.jobs.batches import Batch
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import AnyJob
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.problems import Problem, Rejection
from qwen_image_daemon.jobs.prompt_lists import MAX_LIST_BYTES
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.logs import job_log
from qwen_image_daemon.spool.durable import copy_synced
from qwen_image_daemon.spool.entry import DROPPED, INPUTS, Entry
from qwen_image_daemon.spool.records import FileRecord, JobRecord, Outcome, ProblemRecord
from qwen_image_daemon.spool.repeats import DoneBefore, Repeats, SameIdOtherContent

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A drop that is whole, with all that it needs."""

    drop: Drop
    job: AnyJob | Batch | Rejection
    files: Mapping[str, Stamp]
    """Every file of the inbox that belongs to it, as it was when it was found quiet."""
    pictures: Mapping[str, str]
    """The job's name for each of its pictures, and where that lies in the inbox."""
    composed: tuple[str, bytes] | None = None
    """Name and content of the job file where none was dropped: a recipe with its picture named."""
    prompt_list: str | None = None
    """Where the prompt list that the job file names lies in the inbox."""


class Claimed(Exception):
    """Another daemon was first. `str()` says which."""


class Admission:
    """Takes ready drops out of one inbox into one spool."""

    def __init__(
        self, intake: Intake, claims: Claims, clock: Callable[[], datetime], alive: Callable[[], None]
    ) -> None:
        self._inbox = intake.inbox
        self._spool = intake.spool
        self._claims = claims
        self._catalogue = intake.catalogue
        self._settings = intake.settings
        self._clock = clock
        self._alive = alive
        self._repeats = Repeats(intake.spool)
        self._sequence = intake.spool.next_sequence()

    def admit(self, ready: Ready) -> None:
        """Take a drop. Raises Claimed; ChangedMeanwhile or PermissionError where it stays; OSError.

        After any other OSError the drop may be half-way: only a new start settles it.
        """
        drop = ready.drop
        crash_point("take-in.unclaimed")
        entry = self._begin(drop)
        crash_point("take-in.claimed")
        try:
            with job_log(entry.log_file, entry.id):
                record = self._copy(ready, entry)
                self._check_unchanged(ready)
                crash_point("take-in.copied")
                entry = self._commit(entry, record, ready.job)
        except (ChangedMeanwhile, OSError):
            # Nothing is committed: the drop stays where it is, and is looked at again.
            shutil.rmtree(entry.folder, ignore_errors=True)
            self._claims.release(drop.path)
            raise
        crash_point("take-in.committed")
        self._hand_over(drop, entry)
        crash_point("take-in.handed-over")
        self._spool.let_in(entry)
        crash_point("take-in.queued")
        self._claims.release(drop.path)

    def _begin(self, drop: Drop) -> Entry:
        entry = self._spool.begin(self._clock())
        try:
            first = self._claims.claim(drop.path, drop.witness, entry.id)
        except OSError:
            shutil.rmtree(entry.folder, ignore_errors=True)
            raise
        if first is not None:
            shutil.rmtree(entry.folder)
            raise Claimed(
                f"is claimed by another daemon, on {first.host}. If that one is gone for good: "
                "qwen-image-daemon free-claims"
            )
        return entry

    def _hand_over(self, drop: Drop, entry: Entry) -> None:
        try:
            # Whoever slept for ten minutes since it claimed may have lost its claim to another daemon.
            ours = self._claims.holds(drop.path, entry.id) and hand_over(self._inbox, drop.path, entry.id)
        except PermissionError:
            # The rename was refused, so nobody has it: the drop stays, and says why.
            self._spool.withdraw(entry)
            self._claims.release(drop.path)
            raise
        if not ours:
            # Taken back by its author, or taken by another daemon.
            self._spool.withdraw(entry)
            raise ChangedMeanwhile(drop.path)

    def _copy(self, ready: Ready, entry: Entry) -> JobRecord:
        inputs = tuple(
            self._copied(ready, place, entry.folder / INPUTS / name).model_copy(update={"path": name})
            for name, place in ready.pictures.items()
        )
        # One that is refused for its size is not carried through spool and outbox.
        if ready.prompt_list is not None and ready.files[ready.prompt_list].size <= MAX_LIST_BYTES:
            self._copied(ready, ready.prompt_list, entry.folder / DROPPED / kept_name(ready.prompt_list))
        if ready.composed is not None:
            name, content = ready.composed
            copy_synced([content], entry.folder / DROPPED / name)
            [picture] = (
                file
                for name, file in zip(ready.pictures, inputs, strict=True)
                if ready.pictures[name] == ready.drop.path
            )
            source = picture.model_copy(update={"path": printable(ready.drop.path)})
        elif ready.files[ready.drop.job_file].size <= MAX_JOB_BYTES:
            target = entry.folder / DROPPED / kept_name(ready.drop.job_file)
            source = self._copied(ready, ready.drop.job_file, target)
        else:
            # Refused for its size: it is kept in the inbox's `.taken`, not carried through spool and outbox.
            size = ready.files[ready.drop.job_file].size
            source = FileRecord(path=printable(ready.drop.job_file), size_bytes=size, sha256="")
        self._sequence += 1
        named = None if isinstance(ready.job, Rejection) else ready.job.name
        return JobRecord(
            id=entry.id,
            name=named or printable(ready.drop.title),
            sequence=self._sequence,
            received_at=self._clock(),
            source=source,
            folder=kept_path(ready.drop.folder),
            inputs=inputs,
        )

    def _copied(self, ready: Ready, path: str, target: Path) -> FileRecord:
        record = copy_beneath(self._inbox, path, ready.files[path], target, self._alive)
        return record.model_copy(update={"path": printable(path)})

    def _check_unchanged(self, ready: Ready) -> None:
        """Look again, by path: another file may lie there by now, or one more in a folder that is taken whole."""
        for path, stamp in ready.files.items():
            try:
                if Stamp.of((self._inbox / path).lstat()) != stamp:
                    raise ChangedMeanwhile(path)
            except FileNotFoundError:
                raise ChangedMeanwhile(path) from None
        if ready.drop.kind == "folder":
            now = {f"{ready.drop.path}/{path}" for path in list_inbox(self._inbox / ready.drop.path)}
            if now != {path for path in ready.files if path.startswith(f"{ready.drop.path}/")}:
                raise ChangedMeanwhile(ready.drop.path)

    def _commit(self, entry: Entry, record: JobRecord, job: AnyJob | Batch | Rejection) -> Entry:
        pictures = self._examined(entry, record)
        if isinstance(job, Batch):
            return self._commit_batch(entry, record, job, pictures)
        problems = (*(job.problems if isinstance(job, Rejection) else ()), *pictures.unfit.values())
        if not isinstance(job, Rejection):
            where = PurePosixPath(record.source.path).name
            problems = (*problems, *undrawable(job, where, pictures, self._catalogue))
        if isinstance(job, Rejection) or problems:
            return self._refuse(entry, record, problems)
        requested = record.model_copy(update={"requested": job})
        content = content_of(record)
        try:
            earlier = self._repeats.earlier(job, content)
        except SameIdOtherContent as other:
            return self._refuse(entry, requested, (other_content(record, other),))
        except DoneBefore as done:
            return self._refuse(entry, requested, (done_before(record, done),))
        if earlier is not None:
            log.info("drop.repeated", file=record.source.path, earlier=earlier)
            outcome = Outcome(status="duplicate", finished_at=self._clock(), earlier=earlier)
            return self._spool.commit(entry, requested, outcome)
        self._repeats.note(job, content, entry.id)
        effective = resolve(job, self._catalogue, seed=seed_by_lot(), source=pictures.decisive_size(job))
        # Logged first: once committed, the entry and its log are the next loop's.
        log.info("job.accepted", file=record.source.path, images=job.num_images, task=job.task)
        return self._spool.commit(entry, requested.model_copy(update={"effective": effective}))

    def _commit_batch(self, entry: Entry, record: JobRecord, batch: Batch, pictures: Pictures) -> Entry:
        """Write the jobs of a batch, and commit them together; or refuse the file."""
        writing = BatchWriting(self._spool, self._catalogue, self._repeats, self._clock, self._alive)
        try:
            self._sequence += writing.write(entry, record, batch, pictures)
        except BatchRefused as refused:
            return self._refuse(entry, record, refused.problems)
        return self._spool.commit_batch(entry, record, self._alive)

    def _examined(self, entry: Entry, record: JobRecord) -> Pictures:
        """Look at each picture that was copied."""
        sizes: dict[str, Size] = {}
        unfit: dict[str, Problem] = {}
        for picture in record.inputs:
            try:
                sizes[picture.path] = upright_size(entry.input_path(picture.path), self._settings)
            except UnfitPicture as fault:
                unfit[picture.path] = complaint(record.source.path, picture.path, fault)
            self._alive()
        return Pictures(sizes, unfit, {picture.path: entry.input_path(picture.path) for picture in record.inputs})

    def _refuse(self, entry: Entry, record: JobRecord, problems: tuple[Problem, ...]) -> Entry:
        reports = tuple(ProblemRecord.of(problem) for problem in problems)
        log.warning("drop.refused", file=record.source.path, problems=len(problems))
        return self._spool.commit(
            entry, record, Outcome(status="refused", finished_at=self._clock(), problems=reports)
        )
