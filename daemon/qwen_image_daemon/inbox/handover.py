"""The last step of taking a drop: once the spool holds it, the inbox lets go of it. Safe to repeat."""

import hashlib
import shutil
import stat
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

import structlog

from qwen_image_daemon.inbox.claims import Claim, Claims
from qwen_image_daemon.spool.batches import is_being_let_in
from qwen_image_daemon.spool.durable import read_plain, sync_folder
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.identity import ID_LENGTH, time_of_id
from qwen_image_daemon.spool.records import FileRecord, JobRecord
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

TAKEN = ".taken"
_NAME_BYTES = 120


def hand_over(inbox: Path, path: str, job_id: str) -> bool:
    """Rename a taken drop, file or folder, into `.taken`, where it stays for a while. False where it is gone."""
    name = PurePosixPath(path).name
    # Names may be 255 bytes long already; the end holds the suffix.
    kept = name.encode(errors="surrogateescape")[-_NAME_BYTES:].decode(errors="ignore")
    try:
        # Somebody may have cleared it away; the rename would then fail as if the source were gone.
        (inbox / TAKEN).mkdir(exist_ok=True)
        (inbox / path).rename(inbox / TAKEN / f"{job_id}-{kept}")
    except FileNotFoundError:
        return False
    sync_folder(inbox / TAKEN)
    sync_folder((inbox / path).parent)
    return True


def finish_hand_overs(inbox: Path, spool: Spool, claims: Claims, *, shared: bool) -> None:
    """Settle what a take-in that died left in `incoming`, and its claims. Copies in `tmp` are thrown away before.

    A source that is another file than the one that was copied is a new drop, and stays.
    """
    ours = {claim.job_id: claim for claim in claims.ours()}
    taken = {path.name[:ID_LENGTH] for path in (inbox / TAKEN).iterdir()}
    for entry in spool.entries(spool.incoming):
        if entry.id in taken or _finish(inbox, entry, ours.get(entry.id), shared=shared):
            spool.let_in(entry)
            log.info("drop.let_in_late", id=entry.id)
        else:
            spool.withdraw(entry)
            log.warning("drop.withdrawn", id=entry.id, reason="another daemon took it, or it was taken back")
    for claim in ours.values():
        claims.release(claim.path)
    if not shared:
        claims.drop_torn()


def _finish(inbox: Path, entry: Entry, claim: Claim | None, *, shared: bool) -> bool:
    """Take the drop of a committed job away if it is still there; say whether the job is ours to run."""
    try:
        record = entry.record()
    except (FileNotFoundError, ValueError):
        # Let in all the same: the render loop gives it out as broken, and its drop stays where it is.
        return True
    path, witness = (claim.path, claim.witness) if claim else (record.source.path, record.source.path)
    if is_being_let_in(entry.folder):
        # A batch, of which jobs may be in the queue already.
        return True
    if claim is None and shared:
        return False
    if _same(inbox / witness, record):
        return hand_over(inbox, path, entry.id)
    # Gone, or another file by now. Alone on this inbox, nobody but us has taken what was committed.
    return not shared


def forget_old_taken(inbox: Path, days: float, most_bytes: int, now: datetime) -> None:
    """Delete from `.taken` what is older than `days`, and the oldest of what is more than `most_bytes` in all.

    Age goes by the id in each name, which our own clock made: file times may be another machine's.
    """
    kept = 0
    for path in sorted((inbox / TAKEN).iterdir(), reverse=True):
        taken_at = time_of_id(path.name)
        if taken_at is None:
            continue
        kept += _bytes_below(path)
        if now - taken_at < timedelta(days=days) and kept <= most_bytes:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _bytes_below(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files)


def _same(source: Path, record: JobRecord) -> bool:
    known: FileRecord = record.source
    try:
        status = source.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_size != known.size_bytes:
            return False
        # Oversized files were never hashed; their size has to do.
        if not known.sha256:
            return True
        return known.sha256 == hashlib.sha256(read_plain(source, known.size_bytes)).hexdigest()
    except OSError:
        return False
