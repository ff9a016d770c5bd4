"""Who takes a drop: an exclusive create. A rename is no exclusive claim over SMB; creating a file is."""

import hashlib
import os
import socket
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from qwen_image_daemon.spool.durable import opened, sync_folder
from qwen_image_daemon.spool.records import Record

CLAIMS = ".claims"


class Claim(Record):
    """What a claim file says: who took which drop as which job."""

    host: str
    boot_id: str
    pid: int
    job_id: str
    quoted_path: str
    """The job file, relative to the inbox, percent-encoded: names need not be UTF-8."""

    @property
    def path(self) -> str:
        """The job file, relative to the inbox."""
        return os.fsdecode(unquote_to_bytes(self.quoted_path))


class Claims:
    """The claims folder of one inbox, seen by one host."""

    def __init__(self, inbox: Path) -> None:
        self._folder = inbox / CLAIMS

    def prepare(self) -> None:
        """Make the folder."""
        self._folder.mkdir(exist_ok=True)

    def claim(self, path: str, job_id: str) -> Claim | None:
        """Claim a drop, on the disk when this returns. Gives None for success, or the claim that was first."""
        claim = Claim(
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid=os.getpid(),
            job_id=job_id,
            quoted_path=quote_from_bytes(os.fsencode(path)),
        )
        file = self._file(path)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except FileExistsError:
            return self._read(file) or claim.model_copy(update={"host": "unknown"})
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
        """Give the claims that this host made: at the start, those of a take-in that died."""
        claims = (self._read(file) for file in sorted(self._folder.glob("*.json")))
        return [claim for claim in claims if claim is not None and claim.host == socket.gethostname()]

    def drop_torn(self) -> None:
        """Delete claims that say nothing: their maker died while writing. For an inbox's only daemon."""
        for file in self._folder.glob("*.json"):
            if self._read(file) is None:
                file.unlink(missing_ok=True)

    def _file(self, path: str) -> Path:
        # The path itself may be longer than a name may be.
        return self._folder / f"{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:32]}.json"

    def _read(self, file: Path) -> Claim | None:
        try:
            return Claim.model_validate_json(file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
