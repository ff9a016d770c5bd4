"""The durable queue. A job is where its folder is; a state change is a rename; `ls` shows the state."""

import os
import secrets
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.spool.batches import JOBS, is_batch_folder, let_in_batch
from qwen_image_daemon.spool.durable import (
    move_durably,
    sync_all,
    sync_tree,
    write_durably,
    write_synced,
)
from qwen_image_daemon.spool.entry import DROPPED, IMAGES, INPUTS, JOB, ORIGINALS, OUTCOME, Entry
from qwen_image_daemon.spool.identity import new_id
from qwen_image_daemon.spool.records import (
    ErrorReport,
    FileRecord,
    JobRecord,
    Outcome,
    OutcomeStatus,
)


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
