"""Jobs that are sent twice: which of them carry the same key, and whether they are the same."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import Field

from qwen_image_daemon.jobs.models import MAX_ID_CHARACTERS, AnyJob
from qwen_image_daemon.spool.durable import write_durably
from qwen_image_daemon.spool.records import OutcomeStatus, Record
from qwen_image_daemon.spool.spool import Spool

_MAY_BE_SENT_AGAIN: Final[frozenset[OutcomeStatus]] = frozenset({"failed", "refused", "cancelled"})


class SameIdOtherContent(Exception):
    """A job with this key was sent before, and asked for something else. `str()` is that job's id."""


class DoneBefore(Exception):
    """The same job was sent before, and wants to be refused then. `str()` is that job's id."""


class _Sent(Record):
    """Who came first with a key."""

    job_id: str
    content: str
    jobs: dict[str, str] = Field(default_factory=dict)
    """Of a batch: the ids of its jobs by their numbers in the file."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Give the ids of all jobs that were sent with the key."""
        return tuple(self.jobs.values()) or (self.job_id,)


class Repeats:
    """Remembers the keys of jobs as long as the spool remembers the jobs themselves."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._folder = spool.state / "ids"

    def earlier(self, job: AnyJob, content: str) -> str | None:
        """Give the id of the earlier job that answers this one, by its own id or by what is asked.

        Raises SameIdOtherContent or DoneBefore.
        """
        if job.id is not None and (known := self.find(job.id, content)) is not None:
            return known
        if job.on_exists == "draw":
            return None
        known = self.find(_key_of(content), content)
        if known is not None and job.on_exists == "refuse":
            raise DoneBefore(known)
        return known

    def note(self, job: AnyJob, content: str, job_id: str) -> None:
        """Note what a job can be known by again, on the disk when this returns; before the job is committed."""
        if job.id is not None:
            self.remember(job.id, content, job_id)
        if job.on_exists != "draw":
            # The same bytes say the same of on_exists: no other job is ever asked for.
            self.remember(_key_of(content), content, job_id)

    def find(self, key: str, content: str) -> str | None:
        """Give the id of the earlier job with this key and content; None where there is none, or it may run again.

        Raises SameIdOtherContent.
        """
        sent = self._sent(key)
        if sent is None:
            return None
        standing = next((job_id for job_id in sent.ids if self._stands(job_id)), None)
        if standing is not None and (sent.content != content or sent.jobs):
            raise SameIdOtherContent(standing)
        return standing

    def find_batch(self, key: str, content: str) -> Mapping[int, str]:
        """Give the ids of the earlier jobs of a batch by their numbers, without those that may run again.

        Raises SameIdOtherContent.
        """
        sent = self._sent(key)
        if sent is None:
            return {}
        standing = {number: job_id for number, job_id in sent.jobs.items() if self._stands(job_id)}
        other = next(iter(standing.values()), None) or (sent.job_id if self._stands(sent.job_id) else None)
        if other is not None and (sent.content != content or not sent.jobs):
            raise SameIdOtherContent(other)
        return {int(number): job_id for number, job_id in standing.items()}

    def remember(
        self, key: str, content: str, job_id: str, jobs: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Note a job's key, on the disk when this returns; before the job itself is committed.

        For a batch, `jobs` has the id of each of its jobs by its number in the file.
        """
        self._folder.mkdir(exist_ok=True)
        sent = _Sent(job_id=job_id, content=content, jobs={str(number): one for number, one in jobs.items()})
        write_durably(self._file(key), sent.to_bytes())

    def _sent(self, key: str) -> _Sent | None:
        try:
            return _Sent.model_validate_json(self._file(key).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _stands(self, job_id: str) -> bool:
        """Say whether a job is known, and has not ended so that it may be sent again."""
        entry = self._spool.find(job_id)
        return entry is not None and not (entry.is_concluded() and entry.outcome().status in _MAY_BE_SENT_AGAIN)

    def forget_all_but_known(self) -> None:
        """Delete the keys of jobs that the spool has forgotten."""
        for file in self._folder.glob("*.json"):
            try:
                sent = _Sent.model_validate_json(file.read_bytes())
                known = any(self._spool.find(job_id) is not None for job_id in sent.ids)
            except (FileNotFoundError, ValueError):
                known = False
            if not known:
                file.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _key_of(content: str) -> str:
    """Give a key for what a job asks for, which no author can write: it is longer than any id."""
    return f"content:{content}".ljust(2 * MAX_ID_CHARACTERS)
