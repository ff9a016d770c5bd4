"""Jobs that are sent twice: which of them carry the same key, and whether they are the same."""

import hashlib
from pathlib import Path
from typing import Final

from qwen_image_daemon.spool.durable import write_durably
from qwen_image_daemon.spool.records import OutcomeStatus, Record
from qwen_image_daemon.spool.spool import Spool

_MAY_BE_SENT_AGAIN: Final[frozenset[OutcomeStatus]] = frozenset({"failed", "refused", "cancelled"})


class SameIdOtherContent(Exception):
    """A job with this key was sent before, and asked for something else. `str()` is that job's id."""


class _Sent(Record):
    """Who came first with a key."""

    job_id: str
    content: str


class Repeats:
    """Remembers the keys of jobs as long as the spool remembers the jobs themselves."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._folder = spool.state / "ids"

    def find(self, key: str, content: str) -> str | None:
        """Give the id of the earlier job with this key and content; None where there is none, or it may run again.

        Raises SameIdOtherContent.
        """
        try:
            sent = _Sent.model_validate_json(self._file(key).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        entry = self._spool.find(sent.job_id)
        if entry is None or (entry.is_concluded() and entry.outcome().status in _MAY_BE_SENT_AGAIN):
            return None
        if sent.content != content:
            raise SameIdOtherContent(sent.job_id)
        return sent.job_id

    def remember(self, key: str, content: str, job_id: str) -> None:
        """Note a job's key, on the disk when this returns; before the job itself is committed."""
        self._folder.mkdir(exist_ok=True)
        write_durably(self._file(key), _Sent(job_id=job_id, content=content).to_bytes())

    def forget_all_but_known(self) -> None:
        """Delete the keys of jobs that the spool has forgotten."""
        for file in self._folder.glob("*.json"):
            try:
                known = self._spool.find(_Sent.model_validate_json(file.read_bytes()).job_id) is not None
            except (FileNotFoundError, ValueError):
                known = False
            if not known:
                file.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
