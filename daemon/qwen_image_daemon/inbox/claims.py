"""Who takes a drop: an exclusive create. A rename is no exclusive claim over SMB; creating a file is.

Where several daemons share an inbox, each shows by a counter that it is alive. A claim is broken by another only
after its owner's counter stood still for long by the other's own clock: other machines' clocks are not trusted.
"""

import hashlib
import os
import socket
from pathlib import Path
from typing import Annotated
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import AfterValidator, Field

from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.spool.durable import opened, read_plain, replace_content, sync_folder
from qwen_image_daemon.spool.records import Record

CLAIMS = ".claims"
STALE_SECONDS = 600.0
"""A claim whose owner's counter stood still for so long is nobody's."""
_MOST_BYTES = 16 * 1024
"""More than any claim has: a path of eight folders, each byte written as three."""
_ALIVE_SUFFIX = ".alive"
_BREAKING_SUFFIX = ".breaking"


def _refuse_leading_out(quoted_path: str) -> str:
    parts = os.fsdecode(unquote_to_bytes(quoted_path)).split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise ValueError("leads out of the inbox")
    return quoted_path


def _refuse_controls(text: str) -> str:
    if any(map(is_control, text)):
        raise ValueError("holds control characters")
    return text


# Whoever may write to the inbox may write claims too: what they say is checked like a job.
QuotedPath = Annotated[str, AfterValidator(_refuse_leading_out)]


class Claim(Record):
    """What a claim file says: who took which drop as which job."""

    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,64}$")]
    """The spool that it is claimed for: its identity, made by lot once."""
    host: Annotated[str, AfterValidator(_refuse_controls)]
    boot_id: str
    pid: int
    job_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    quoted_path: QuotedPath
    """The drop, relative to the inbox, percent-encoded: names need not be UTF-8."""
    quoted_witness: QuotedPath
    """The file by whose content the drop is recognised, likewise."""

    @property
    def path(self) -> str:
        """The drop, relative to the inbox."""
        return os.fsdecode(unquote_to_bytes(self.quoted_path))

    @property
    def witness(self) -> str:
        """The file by whose content the drop is recognised, relative to the inbox."""
        return os.fsdecode(unquote_to_bytes(self.quoted_witness))


class Claims:
    """The claims folder of one inbox, seen by the daemon of one spool: `owner` is that spool's identity."""

    def __init__(self, inbox: Path, owner: str) -> None:
        self._folder = inbox / CLAIMS
        self._owner = owner
        self._beats = 0
        self._seen: dict[str, tuple[bytes, float]] = {}
        """Foreign owners' counters, and since when they have been so, on our clock."""

    @staticmethod
    def prepare(inbox: Path) -> None:
        """Make the folder."""
        (inbox / CLAIMS).mkdir(exist_ok=True)

    def claim(self, path: str, witness: str, job_id: str) -> Claim | None:
        """Claim a drop, on the disk when this returns. Gives None for success, or the claim that was first."""
        claim = Claim(
            owner=self._owner,
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid=os.getpid(),
            job_id=job_id,
            quoted_path=quote_from_bytes(os.fsencode(path)),
            quoted_witness=quote_from_bytes(os.fsencode(witness)),
        )
        file = self._file(path)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except FileExistsError:
            return self._read(file) or claim.model_copy(update={"owner": "", "host": "unknown"})
        try:
            with opened(descriptor):
                os.write(descriptor, claim.to_bytes())
                os.fsync(descriptor)
            sync_folder(self._folder)
        except OSError:
            # A claim that says nothing would keep the drop from us too.
            file.unlink(missing_ok=True)
            raise
        return None

    def release(self, path: str) -> None:
        """Take our claim away; the drop is free, or gone."""
        self._file(path).unlink(missing_ok=True)

    def ours(self) -> list[Claim]:
        """Give the claims that were made for this spool: at the start, those of a take-in that died."""
        claims = (self._read(file) for file in sorted(self._folder.glob("*.json")))
        return [claim for claim in claims if claim is not None and claim.owner == self._owner]

    def is_ours(self, claim: Claim) -> bool:
        """Say whether a claim was made for this spool."""
        return claim.owner == self._owner

    def holds(self, path: str, job_id: str) -> bool:
        """Say whether a drop is still claimed for this job of ours."""
        claim = self._read(self._file(path))
        return claim is not None and self.is_ours(claim) and claim.job_id == job_id

    def show_life(self) -> None:
        """Count one up, for the other daemons on this inbox."""
        self._beats += 1
        replace_content(
            self._folder / f"{self._owner}{_ALIVE_SUFFIX}", f"{_boot_id()} {os.getpid()} {self._beats}\n".encode()
        )

    def break_stale(self, *, now: float) -> list[Claim]:
        """Free the drops whose claimant's counter stood still for ten minutes, and give their claims.

        `now` is in monotonic seconds; this is called again and again. Torn claims have no owner: they count as
        those of one that never shows life.
        """
        broken: list[Claim] = []
        for file in self._folder.glob("*.json"):
            claim = self._read(file)
            if claim is not None and self.is_ours(claim):
                continue
            owner = claim.owner if claim is not None else file.name
            if self._is_still(owner, now) and self._break(file, claim) and claim is not None:
                broken.append(claim)
        return broken

    def free_foreign(self) -> list[Claim]:
        """Free all drops that another daemon claimed: only for a person who knows that it is gone."""
        freed = []
        for file in self._folder.glob("*.json"):
            claim = self._read(file)
            if claim is not None and not self.is_ours(claim):
                file.unlink(missing_ok=True)
                freed.append(claim)
        return freed

    def _is_still(self, owner: str, now: float) -> bool:
        try:
            counter = read_plain(self._folder / f"{owner}{_ALIVE_SUFFIX}", _MOST_BYTES)
        except OSError:
            counter = b""
        known = self._seen.get(owner)
        if known is None or known[0] != counter:
            self._seen[owner] = (counter, now)
            return False
        return now - known[1] >= STALE_SECONDS

    def _break(self, file: Path, stale: Claim | None) -> bool:
        """Take a stale claim away, unless another daemon is about to, or did and made its own."""
        guard = file.with_suffix(_BREAKING_SUFFIX)
        try:
            guard.touch(exist_ok=False)
        except FileExistsError:
            return False
        try:
            if self._read(file) != stale:
                return False
            file.unlink(missing_ok=True)
            return True
        finally:
            guard.unlink(missing_ok=True)

    def drop_torn(self) -> None:
        """Delete claims that say nothing: their maker died while writing. For an inbox's only daemon."""
        for file in self._folder.glob("*.json"):
            if self._read(file) is None and not file.is_dir():
                file.unlink(missing_ok=True)

    def _file(self, path: str) -> Path:
        # The path itself may be longer than a name may be.
        return self._folder / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:32]}.json"

    def _read(self, file: Path) -> Claim | None:
        try:
            return Claim.model_validate_json(read_plain(file, _MOST_BYTES))
        except (OSError, ValueError):
            return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
