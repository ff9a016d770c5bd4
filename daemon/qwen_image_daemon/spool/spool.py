"""The durable queue. A job is where its folder is; a state change is a rename; `ls` shows the state."""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.spool.batches import JOBS, is_batch_folder, let_in_batch
from qwen_image_daemon.spool.durable import (
    move_durably,
    sync_all,
    sync_folder,
    sync_tree,
    write_durably,
    write_synced,
)
from qwen_image_daemon.spool.identity import new_id
from qwen_image_daemon.spool.records import (
    AttemptMark,
    ErrorReport,
    FileRecord,
    ImageRecord,
    JobRecord,
    Outcome,
    OutcomeStatus,
)

JOB = "job.json"
OUTCOME = "outcome.json"
DROPPED = "dropped"
INPUTS = "inputs"
IMAGES = "images"
ORIGINALS = "originals"
"""In a job of a batch: the file that was dropped, and its prompt list."""
LOG = "job.log"
LOST = "lost"
"""How an attempt ended with which the whole daemon or the machine went down."""


class Entry:
    """One job's folder in the spool, in whichever state it is. Holds no state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        """The job's id: its folder's name."""
        return self.folder.name

    @property
    def log_file(self) -> Path:
        """Where this job's log lines go."""
        return self.folder / LOG

    def record(self) -> JobRecord:
        """Read `job.json`. Raises OSError or ValueError where it is unreadable."""
        return JobRecord.model_validate_json((self.folder / JOB).read_bytes())

    def outcome(self) -> Outcome:
        """Read `outcome.json`. Raises OSError or ValueError where it is unreadable."""
        return Outcome.model_validate_json((self.folder / OUTCOME).read_bytes())

    def dropped_files(self) -> list[Path]:
        """List the job file as it was dropped (one, or none where it could not be copied)."""
        return sorted((self.folder / DROPPED).iterdir()) if (self.folder / DROPPED).is_dir() else []

    def input_path(self, relative: str) -> Path:
        """Give the job's own copy of a picture that it names."""
        return self.folder / INPUTS / relative

    def image_path(self, index: int, suffix: str) -> Path:
        """Give the path of finished picture `index`, counted from 0."""
        return self.folder / IMAGES / f"{index:04d}.{suffix}"

    def finished_images(self) -> dict[int, ImageRecord]:
        """Read the records of all finished pictures by index. A broken record counts as not finished."""
        finished: dict[int, ImageRecord] = {}
        for path in sorted((self.folder / IMAGES).glob("*.json")):
            try:
                finished[int(path.stem)] = ImageRecord.model_validate_json(path.read_bytes())
            except ValueError:
                path.unlink()
        return finished

    def keep_image(
        self, index: int, suffix: str, content: bytes, record: ImageRecord, layers: Mapping[str, bytes]
    ) -> None:
        """Put a finished picture on the disk: the picture first, then its record, which makes it count.

        `layers` are further files that belong to it, by name.
        """
        path = self.image_path(index, suffix)
        path.parent.mkdir(exist_ok=True)
        write_synced(path, content)
        for name, layer in layers.items():
            write_synced(path.with_name(name), layer)
        crash_point("render.image-written")
        write_durably(path.with_suffix(".json"), record.to_bytes())
        crash_point("render.image-kept")

    def begin_attempt(self, now: datetime) -> int:
        """Make an attempt durable before the accelerator is touched. Gives its number, counted from 1."""
        number = 1 + max(self.attempts(), default=0)
        mark = AttemptMark(began_at=now, finished_images=len(self.finished_images()))
        write_durably(self.folder / f"attempt.{number}", mark.to_bytes())
        crash_point("render.attempt-marked")
        return number

    def first_attempt_at(self) -> datetime | None:
        """Say when the first attempt began, as far as it is known."""
        began = (self._mark(number, end) for number, end in self.attempts().items())
        return min((mark.began_at for mark in began if mark is not None), default=None)

    def died_attempt_at(self) -> datetime | None:
        """Say when the last attempt began, where it died with its process and that is known."""
        attempts = self.attempts()
        last = max(attempts, default=0)
        mark = self._mark(last, "") if attempts.get(last) == "" else None
        return None if mark is None else mark.began_at

    def died(self) -> bool:
        """Say whether the last attempt died with its process, or is still under way."""
        attempts = self.attempts()
        return attempts.get(max(attempts, default=0)) == ""

    def kills(self) -> int:
        """Count the attempts with which the process alone died since the last picture was finished."""
        return sum(end == "" for end in self._ends_since_last_picture())

    def deaths(self) -> int:
        """Count those too with which the whole daemon or the machine went down: perhaps for other reasons."""
        return sum(end in {"", LOST} for end in self._ends_since_last_picture())

    def _ends_since_last_picture(self) -> list[str]:
        attempts = self.attempts()
        ends: list[str] = []
        if not {"", LOST} & set(attempts.values()):
            return ends
        finished = finished_by_its_end = len(self.finished_images())
        for number in sorted(attempts, reverse=True):
            if finished_by_its_end < finished:
                break
            ends.append(attempts[number])
            mark = self._mark(number, attempts[number])
            # One that lost its content to a power cut says nothing against counting the one before it.
            finished_by_its_end = finished if mark is None else mark.finished_images
        return ends

    def _mark(self, number: int, end: str) -> AttemptMark | None:
        name = f"attempt.{number}.{end}" if end else f"attempt.{number}"
        try:
            return AttemptMark.model_validate_json((self.folder / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def end_last_attempt(self, how: str) -> None:
        """Note how the last attempt ended: `interrupted` by a stop, `failed`, or `lost` with the whole daemon."""
        attempts = self.attempts()
        last = max(attempts, default=0)
        if attempts.get(last) == "":
            (self.folder / f"attempt.{last}").rename(self.folder / f"attempt.{last}.{how}")
            sync_folder(self.folder)

    def attempts(self) -> dict[int, str]:
        """Give each attempt's end by its number: `interrupted`, `failed`, `lost`, or "" for one that died."""
        try:
            with os.scandir(self.folder) as listing:
                marks = [item.name.split(".") for item in listing if item.name.startswith("attempt.")]
        except FileNotFoundError:
            # It moved on meanwhile.
            return {}
        return {int(mark[1]): (mark[2] if len(mark) > 2 else "") for mark in marks if mark[1].isdecimal()}  # noqa: PLR2004

    def is_concluded(self) -> bool:
        """Say whether it is written down how the job ended."""
        return (self.folder / OUTCOME).is_file()

    def conclude(self, outcome: Outcome) -> None:
        """Write how the job ended. The move to `rendered` is the spool's."""
        write_durably(self.folder / OUTCOME, outcome.to_bytes())


class Spool:
    """The states of all jobs. Lives on a local disk, in one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"
        self.incoming = root / "incoming"
        """Copied and committed, but the inbox still holds the drop. Only the take-in loop looks here."""
        self.queue = root / "queue"
        self.active = root / "active"
        self.rendered = root / "rendered"
        self.done = root / "done"
        self.state = root / "state"
        self.control = root / "control"

    def prepare(self) -> None:
        """Make the folders that are missing."""
        shelves = [self.shelf(status) for status in get_args(OutcomeStatus)]
        states = (self.tmp, self.incoming, self.queue, self.active, self.rendered)
        for folder in (*states, *shelves, self.state, self.control):
            folder.mkdir(parents=True, exist_ok=True)

    def shelf(self, status: OutcomeStatus) -> Path:
        """Say where the jobs that ended so are kept after they were given out."""
        return self.done / status

    def find(self, job_id: str) -> Entry | None:
        """Find a job in whichever committed state it is. One that moves meanwhile is found in its later state."""
        shelves = [self.shelf(status) for status in get_args(OutcomeStatus)]
        states = (self.incoming, self.queue, self.active, self.rendered, *shelves)
        return next((Entry(state / job_id) for state in states if (state / job_id).is_dir()), None)

    def entries(self, state: Path) -> list[Entry]:
        """List the entries of one state by id, which is by time."""
        with os.scandir(state) as listing:
            names = sorted(item.name for item in listing if item.is_dir() and not item.name.startswith("."))
        return [Entry(state / name) for name in names]

    def begin(self, now: datetime) -> Entry:
        """Open a fresh entry in `tmp`, with folders for the dropped file and the inputs."""
        entry = Entry(self.tmp / new_id(now))
        (entry.folder / DROPPED).mkdir(parents=True)
        (entry.folder / INPUTS).mkdir()
        return entry

    def next_sequence(self) -> int:
        """Give a sequence number above that of every job in the spool. Reads them all: for the start."""
        known = (self.incoming, self.queue, self.active, self.rendered)
        sequences = (_sequence(entry) for state in known for entry in self.entries(state))
        return 1 + max(sequences, default=0)

    def begin_in_batch(self, batch: Entry, number: int, now: datetime) -> Entry:
        """Open an entry for one job of a batch, numbered from 1, inside of the batch's own entry in `tmp`."""
        # A millisecond for each: so their ids follow each other in the order of the file, and are never equal.
        entry = Entry(batch.folder / JOBS / new_id(now + timedelta(milliseconds=number)))
        (entry.folder / DROPPED).mkdir(parents=True)
        return entry

    def commit(self, entry: Entry, record: JobRecord, outcome: Outcome | None = None) -> Entry:
        """Commit a copied drop to `incoming` by one rename; with an outcome, one that is not to be run."""
        if outcome is not None:
            write_synced(entry.folder / OUTCOME, outcome.to_bytes())
        write_synced(entry.folder / JOB, record.to_bytes())
        sync_tree(entry.folder)
        committed = self.incoming / entry.id
        move_durably(entry.folder, committed)
        return Entry(committed)

    def commit_batch(self, entry: Entry, record: JobRecord, alive: Callable[[], None]) -> Entry:
        """Commit a batch whose jobs are written below its entry to `incoming`, all of them by one rename."""
        write_synced(entry.folder / JOB, record.to_bytes())
        sync_all(entry.folder, alive)
        crash_point("take-in.batch-written")
        committed = self.incoming / entry.id
        move_durably(entry.folder, committed)
        return Entry(committed)

    def let_in(self, entry: Entry) -> Entry:
        """Move a committed job whose drop has left the inbox to the queue, or to what is to be given out.

        A batch goes job by job; what a kill leaves of it is let in by the next call.
        """
        if is_batch_folder(entry.folder):
            let_in_batch(entry.folder, lambda job: self._admitted(Entry(job)), self.tmp / entry.id)
            return entry
        state = self._admitted(entry)
        move_durably(entry.folder, state / entry.id)
        return Entry(state / entry.id)

    def _admitted(self, entry: Entry) -> Path:
        return self.rendered if entry.is_concluded() else self.queue

    def withdraw(self, entry: Entry) -> None:
        """Forget a job that is not ours to run: its drop stays in the inbox, or another daemon has it."""
        # First out of sight: half of a committed job must not be found by the next start.
        gone = self.tmp / entry.id
        entry.folder.rename(gone)
        shutil.rmtree(gone)

    def take(self, entry: Entry) -> Entry:
        """Move a queued job to `active`."""
        taken = self._move(entry, self.active)
        crash_point("render.taken")
        return taken

    def put_back(self, entry: Entry) -> Entry:
        """Move an active job back into the queue."""
        return self._move(entry, self.queue)

    def finish(self, entry: Entry, outcome: Outcome) -> Entry:
        """Write how a job ended and move it to `rendered`."""
        entry.conclude(outcome)
        crash_point("render.concluded")
        finished = self.release(entry)
        crash_point("render.finished")
        return finished

    def release(self, entry: Entry) -> Entry:
        """Move a concluded job to `rendered`."""
        return self._move(entry, self.rendered)

    @property
    def identity(self) -> str:
        """What this spool is called among others: made by lot once, and kept."""
        file = self.state / "identity"
        if not file.exists():
            write_durably(file, secrets.token_hex(8).encode())
        return file.read_text(encoding="ascii")

    @property
    def lock_file(self) -> Path:
        """What the one daemon of this spool holds locked while it runs."""
        return self.state / "daemon.lock"

    def file_done(self, entry: Entry) -> Entry:
        """Move a published job to its shelf of `done`, and drop there what the outbox now holds."""
        done = self._move(entry, self.shelf(entry.outcome().status))
        for name in (IMAGES, INPUTS, DROPPED, ORIGINALS):
            shutil.rmtree(done.folder / name, ignore_errors=True)
        done.log_file.unlink(missing_ok=True)
        return done

    def quarantine(self, entry: Entry, report: ErrorReport, now: datetime) -> Entry:
        """Give up a job whose folder cannot be read or run any more: with what is known, to `rendered`."""
        try:
            record = entry.record()
        except (OSError, ValueError):
            record = JobRecord(
                id=entry.id, name=entry.id, sequence=0, received_at=now, source=_unknown_source(entry)
            )
            write_durably(entry.folder / JOB, record.to_bytes())
        images = entry.finished_images()
        outcome = Outcome(
            status="failed",
            finished_at=now,
            started_at=entry.first_attempt_at(),
            attempts=len(entry.attempts()),
            images=tuple(images[index] for index in sorted(images)),
            error=report,
        )
        return self.finish(entry, outcome)

    def discard_unfinished_copies(self) -> int:
        """Delete what a killed take-in left in `tmp`; its sources are still in the inbox. Gives their number."""
        left = self.entries(self.tmp)
        for entry in left:
            shutil.rmtree(entry.folder)
        return len(left)

    def _move(self, entry: Entry, state: Path) -> Entry:
        # Not synced: after a power cut the entry is in the one state or the other, and either is gone on from.
        # Only what an inbox lets go of (admit, refuse) must be certain, and what an attempt or an outcome says.
        return Entry(entry.folder.rename(state / entry.id))


def _sequence(entry: Entry) -> int:
    try:
        return entry.record().sequence
    except (OSError, ValidationError):
        return 0


def _unknown_source(entry: Entry) -> FileRecord:
    names = [path.name for path in entry.dropped_files()]
    return FileRecord(path=names[0] if names else "", size_bytes=0, sha256="")
