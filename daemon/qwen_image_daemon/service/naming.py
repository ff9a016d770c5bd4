"""Finding the one job that a person means by an id, a part of one, or a name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from qwen_image_daemon.spool.identity import ID_LENGTH, slug

_MOST_CANDIDATES: Final = 10


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job as people speak of it."""

    id: str
    name: str


class NotOneJob(Exception):
    """What was said names no job, or several. `str()` says so, with those that it could be."""


def the_one(word: str, jobs: Iterable[NamedJob]) -> NamedJob:
    """Give the job with this id, this unique beginning or end of one, or this name. Raises NotOneJob."""
    known = list(jobs)
    exact = [job for job in known if job.id == word]
    meant = exact or [job for job in known if _may_be(word, job)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise NotOneJob(f"{word} could be {len(meant)} jobs. Say which, by its id:\n{_lines(meant)}")
    if known:
        raise NotOneJob(f"{word}: no such job. There are:\n{_lines(known)}")
    raise NotOneJob(f"{word}: no such job. There is none at all.")


def batch_named(word: str, batches: Iterable[str | None]) -> str | None:
    """Give the batch of this id, this name, or both as its folder is called; None where it is not exactly one."""
    known = {batch for batch in batches if batch is not None}
    meant = {batch for batch in known if word in (batch, batch[-ID_LENGTH:], batch[: -ID_LENGTH - 1])}
    return meant.pop() if len(meant) == 1 else None


def _may_be(word: str, job: NamedJob) -> bool:
    return bool(word) and (job.id.startswith(word) or job.id.endswith(word) or slug(job.name) == slug(word))


def _lines(jobs: list[NamedJob]) -> str:
    lines = [f"  {job.id}  {job.name}" for job in jobs[:_MOST_CANDIDATES]]
    if len(jobs) > _MOST_CANDIDATES:
        lines.append(f"  … and {len(jobs) - _MOST_CANDIDATES} more")
    return "\n".join(lines)
