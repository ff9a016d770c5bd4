"""One look at the inbox: which drops are ready, and their way into the spool."""

import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import structlog

from qwen_image_daemon.inbox.beneath import ChangedMeanwhile, copy_beneath, ends_in_zeros, read_beneath
from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.handover import hand_over
from qwen_image_daemon.inbox.listing import Stamp, list_inbox
from qwen_image_daemon.inbox.names import is_job, kept_name, printable
from qwen_image_daemon.inbox.pictures import UnfitPicture, check_size, upright_size
from qwen_image_daemon.inbox.settling import Settling
from qwen_image_daemon.inbox.spellings import spellings
from qwen_image_daemon.inbox.waiting_notes import WaitingNotes
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import AnyJob, source_images
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.problems import Problem, Rejection
from qwen_image_daemon.jobs.reading import read_job
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.logs import job_log
from qwen_image_daemon.settings import InboxSettings
from qwen_image_daemon.spool.identity import natural_order
from qwen_image_daemon.spool.records import FileRecord, JobRecord, Outcome, ProblemRecord
from qwen_image_daemon.spool.spool import DROPPED, INPUTS, Entry, Spool

log = structlog.get_logger(__name__)

MAX_SEED_BY_LOT = 2**31
"""Seeds drawn by lot stay short enough to be typed again."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    taken: int
    """Drops that were accepted or refused."""
    waiting: Mapping[str, str]
    """Job files that wait, with the reason, by path."""
    unsettled: bool
    """Something is still changing, or was seen for the first time: look again soon."""


class TakeIn:
    """Takes drops out of one inbox into one spool. Remembers what it saw, so that files can settle."""

    def __init__(
        self,
        inbox: Path,
        spool: Spool,
        catalogue: Catalogue,
        settings: InboxSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._inbox = inbox
        self._spool = spool
        self._catalogue = catalogue
        self._settings = settings
        self._clock = clock
        self._claims = Claims(inbox)
        self._settling = Settling(settings.settle_seconds)
        self._notes = WaitingNotes(inbox)
        self._read: dict[str, tuple[Stamp, AnyJob | Rejection]] = {}
        self._sequence = spool.next_sequence()

    def look(self, renamed: Collection[str], *, now: float, go_on: Callable[[], bool] = lambda: True) -> Look:
        """List the inbox, and take what is ready. `now` is in monotonic seconds. Raises OSError.

        `go_on` is asked before each drop: one look may take thousands.
        """
        listing = list_inbox(self._inbox)
        quiet = self._settling.observe(listing, renamed, now=now)
        self._read = {path: read for path, read in self._read.items() if path in listing}
        waiting: dict[str, str] = {}
        taken = 0
        for path in sorted(filter(is_job, quiet), key=natural_order):
            if not go_on():
                # The notes stay as they are: what was not looked at may be waiting still.
                return Look(taken, waiting, unsettled=True)
            try:
                reason = self._take_if_ready(path, listing, quiet)
            except ChangedMeanwhile:
                continue
            except PermissionError as error:
                # Others' drops go on; this one says why it does not.
                reason = f"cannot be taken: {error.strerror}. Let the daemon's user read it"
            if reason is None:
                taken += 1
            else:
                waiting[path] = reason
        self._notes.update(waiting)
        return Look(taken, waiting, unsettled=len(quiet) < len(listing))

    def _take_if_ready(self, path: str, listing: Mapping[str, Stamp], quiet: Collection[str]) -> str | None:
        """Take one job file, or say what it waits for."""
        job = self._read_once(path, listing[path])
        if isinstance(job, Rejection):
            return self._take(path, listing, job, {})
        # The job's name for each picture, and where that lies in the inbox.
        pictures = {name: _place(path, name, listing) for name in source_images(job)}
        for name, place in pictures.items():
            if place not in listing:
                return f"waits for the picture {name}, which is not there yet"
            if place not in quiet or ends_in_zeros(self._inbox, place, listing[place]):
                return f"waits for the picture {name}, which is still being written"
        oversized = self._oversized(path, {name: listing[place].size for name, place in pictures.items()})
        if oversized:
            return self._take(path, listing, Rejection(oversized), {})
        return self._take(path, listing, job, pictures)

    def _oversized(self, path: str, sizes: Mapping[str, int]) -> tuple[Problem, ...]:
        problems: list[Problem] = []
        for name, size_bytes in sizes.items():
            try:
                check_size(size_bytes, self._settings)
            except UnfitPicture as unfit:
                problems.append(_complaint(path, name, unfit))
        return tuple(problems)

    def _read_once(self, path: str, stamp: Stamp) -> AnyJob | Rejection:
        known = self._read.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        # One byte more than is allowed shows the reader that the file is too long.
        content = read_beneath(self._inbox, path, stamp, MAX_JOB_BYTES + 1)
        job = read_job(content, PurePosixPath(printable(path)).name, self._catalogue)
        self._read[path] = (stamp, job)
        return job

    def _take(
        self, path: str, listing: Mapping[str, Stamp], job: AnyJob | Rejection, pictures: Mapping[str, str]
    ) -> str | None:
        """Claim, copy, commit, take away. Gives None, or why the drop waits on."""
        entry = self._spool.begin(self._clock())
        try:
            first = self._claims.claim(path, entry.id)
        except OSError:
            shutil.rmtree(entry.folder, ignore_errors=True)
            raise
        if first is not None:
            shutil.rmtree(entry.folder)
            return f"is claimed by {first.host}"
        try:
            with job_log(entry.log_file, entry.id):
                record = self._copy(path, listing, job, pictures, entry)
                self._commit(entry, record, job)
        except (ChangedMeanwhile, OSError):
            # Nothing is committed: the drop stays where it is, and is looked at again.
            shutil.rmtree(entry.folder, ignore_errors=True)
            self._claims.release(path)
            raise
        hand_over(self._inbox, path, entry.id)
        self._claims.release(path)
        return None

    def _copy(
        self,
        path: str,
        listing: Mapping[str, Stamp],
        job: AnyJob | Rejection,
        pictures: Mapping[str, str],
        entry: Entry,
    ) -> JobRecord:
        if listing[path].size <= MAX_JOB_BYTES:
            target = entry.folder / DROPPED / kept_name(path)
            source = copy_beneath(self._inbox, path, listing[path], target)
            source = source.model_copy(update={"path": printable(path)})
        else:
            # Refused for its size: it is kept in the inbox's `.taken`, not carried through spool and outbox.
            source = FileRecord(path=printable(path), size_bytes=listing[path].size, sha256="")
        inputs = tuple(
            copy_beneath(self._inbox, place, listing[place], entry.folder / INPUTS / name).model_copy(
                update={"path": name}
            )
            for name, place in pictures.items()
        )
        stem = PurePosixPath(printable(path)).stem
        title = stem if isinstance(job, Rejection) else job.name or stem
        self._sequence += 1
        return JobRecord(
            id=entry.id,
            name=title,
            sequence=self._sequence,
            received_at=self._clock(),
            source=source,
            inputs=inputs,
        )

    def _commit(self, entry: Entry, record: JobRecord, job: AnyJob | Rejection) -> None:
        problems = job.problems if isinstance(job, Rejection) else ()
        sizes: dict[str, Size] = {}
        for picture in record.inputs:
            try:
                sizes[picture.path] = upright_size(entry.input_path(picture.path), self._settings)
            except UnfitPicture as unfit:
                problems = (*problems, _complaint(record.source.path, picture.path, unfit))
        if isinstance(job, Rejection) or problems:
            reports = tuple(ProblemRecord.of(problem) for problem in problems)
            outcome = Outcome(status="refused", finished_at=self._clock(), problems=reports)
            # Logged first: once committed, the entry and its log are the next loop's.
            log.warning("drop.refused", file=record.source.path, problems=len(problems))
            self._spool.refuse(entry, record, outcome)
            return
        effective = resolve(
            job,
            self._catalogue,
            seed=secrets.randbelow(MAX_SEED_BY_LOT),
            source=next(iter(sizes.values()), None),
        )
        log.info("job.accepted", file=record.source.path, images=job.num_images, task=job.task)
        self._spool.admit(entry, record.model_copy(update={"requested": job, "effective": effective}))


def _place(path: str, name: str, listing: Mapping[str, Stamp]) -> str:
    """Say where the picture lies that a job names, or where it ought to lie."""
    beside = PurePosixPath(path).parent
    places = [(beside / spelling).as_posix() for spelling in spellings(name)]
    return next((place for place in places if place in listing), places[0])


def _complaint(path: str, picture: str, unfit: UnfitPicture) -> Problem:
    return Problem(where=f"{PurePosixPath(printable(path)).name}: {picture}", what=str(unfit), fix=unfit.fix)
