"""The last step of taking a drop: once the spool holds it, the inbox lets go of it. Safe to repeat."""

import hashlib
import stat
import time
from pathlib import Path, PurePosixPath

import structlog

from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.names import printable
from qwen_image_daemon.spool.durable import sync_folder
from qwen_image_daemon.spool.spool import Entry, Spool

log = structlog.get_logger(__name__)

TAKEN = ".taken"
_NAME_BYTES = 120


def hand_over(inbox: Path, path: str, job_id: str) -> None:
    """Rename a taken job file into `.taken`, where it stays for a while. Does nothing where it is gone already."""
    name = PurePosixPath(path).name
    # Names may be 255 bytes long already; the end holds the suffix.
    kept = name.encode(errors="surrogateescape")[-_NAME_BYTES:].decode(errors="ignore")
    try:
        # Somebody may have cleared it away; the rename would then fail as if the source were gone.
        (inbox / TAKEN).mkdir(exist_ok=True)
        (inbox / path).rename(inbox / TAKEN / f"{job_id}-{kept}")
    except FileNotFoundError:
        return
    sync_folder(inbox / TAKEN)
    sync_folder((inbox / path).parent)


def finish_hand_overs(inbox: Path, spool: Spool, claims: Claims) -> None:
    """Settle the claims of a take-in that died: finish what the spool holds, free what it does not.

    A source that is another file than the one that was copied is a new drop, and stays.
    """
    for claim in claims.ours():
        entry = spool.find(claim.job_id)
        if entry is not None and _same(inbox / claim.path, entry):
            hand_over(inbox, claim.path, claim.job_id)
            log.info("drop.handed_over_late", id=claim.job_id, file=printable(claim.path))
        claims.release(claim.path)
    claims.drop_torn()


def forget_old_taken(inbox: Path, days: float) -> None:
    """Delete what has lain in `.taken` for longer than `days`, by our own change time of the rename."""
    oldest = time.time() - days * 86_400
    for path in (inbox / TAKEN).iterdir():
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_ctime < oldest:
            path.unlink(missing_ok=True)


def _same(source: Path, entry: Entry) -> bool:
    try:
        record = entry.record()
        if source.stat(follow_symlinks=False).st_size != record.source.size_bytes:
            return False
        # Oversized files were never hashed; their size has to do.
        return record.source.sha256 in {"", hashlib.sha256(source.read_bytes()).hexdigest()}
    except (OSError, ValueError):
        return False
