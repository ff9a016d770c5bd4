"""One file, many jobs: each an ordinary job, checked as one, with a job file of its own that runs alone."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from pathlib import PurePosixPath
from typing import Any, Final

from qwen_image_daemon.jobs.batch_settings import BATCH_KEYS, BatchSettings, OnInvalid, batch_settings
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.checking import check
from qwen_image_daemon.jobs.expansion import Draft, Hindered, ListLine, Place, expand
from qwen_image_daemon.jobs.models import AnyJob, StrictModel
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES, Document
from qwen_image_daemon.jobs.problems import Fault, Problem, Rejection, rejection_of
from qwen_image_daemon.jobs.prompt_lists import Row, read_list
from qwen_image_daemon.jobs.quoting import escaped, key_name, quoted

_MAX_FAULTY_JOBS: Final = 50
"""After so many bad jobs the others are not looked at, where one refuses the file."""
_MAX_NAMED: Final = 3
"""How many jobs are named by number that all have the same fault."""
_NAME_CHARACTERS: Final = 120

FillIn = Callable[[Mapping[str, Any]], dict[str, Any]]
"""What is done to each job's settings before they are checked: a recipe names its picture."""


class Origin(StrictModel):
    """Where a job of a batch comes from."""

    index: int
    """Which of the file's jobs it is, counted from 1."""
    of: int
    """How many jobs the file makes."""
    template: str | None = None
    """The prompt with its choices, before they were made; None where it has none."""
    line: int | None = None
    """The line of the prompt list that it comes from, counted from 1; None where there is no list."""
    matrix: dict[str, Any] = {}  # noqa: RUF012  pydantic copies it
    """What the matrix sets for it."""


@dataclass(frozen=True, slots=True)
class BatchedJob:
    """One job of a batch."""

    job: AnyJob
    values: Mapping[str, Any]
    """Its settings, as a job file of its own would say them."""
    text: bytes
    """The job file (JSON) that asks for this job alone."""
    origin: Origin


@dataclass(frozen=True, slots=True)
class Batch:
    """What a file with many jobs asks for. At least one of them is good."""

    name: str | None
    """What the file calls all of it together."""
    id: str | None
    """Its sender's key for the file."""
    jobs: tuple[BatchedJob, ...]
    list_name: str | None = None
    """The prompt list that it reads, relative to the job file."""
    on_invalid: OnInvalid = "refuse"
    """What is done with all where one of its jobs turns out to be bad."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the jobs that are left out because the file wants bad ones to be skipped."""
    left_out: tuple[Mapping[str, Any], ...] = ()
    """The settings of those jobs."""


@dataclass(frozen=True, slots=True)
class PromptList:
    """The list beside the job file: its name there, and what it holds."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class WantsList:
    """A file that cannot be read without the prompt list of this name, relative to it."""

    name: str


def is_batch(values: Mapping[str, Any]) -> bool:
    """Say whether a document stands for several jobs."""
    return any(key in values for key in BATCH_KEYS)


def job_text(values: Mapping[str, Any]) -> bytes:
    """Write settings down as a job file (JSON)."""
    return json.dumps(values, indent=2, ensure_ascii=False, default=_as_text).encode() + b"\n"


def _as_text(value: date | time) -> str:
    # What TOML has and JSON lacks.
    return value.isoformat()


def read_batch(
    document: Document,
    filename: str,
    catalogue: Catalogue,
    prompt_list: PromptList | None = None,
    fill_in: FillIn = dict,
) -> Batch | Rejection | WantsList:
    """Expand and check the jobs of a parsed file. Never raises for anything a person wrote.

    Asks for the prompt list where the file names one and it was not given.
    """
    reading = _Reading(document, filename, catalogue, prompt_list, fill_in)
    settings = batch_settings(document.values)
    if not isinstance(settings, BatchSettings):
        jobs = document.values.get("jobs")
        return reading.rejection(list(map(_of_its_job, settings)), of=len(jobs) if isinstance(jobs, list) else 0)
    listed = settings.prompts_from
    if listed is None:
        return reading.batch(settings, ())
    if prompt_list is None or prompt_list.name != listed:
        return WantsList(listed)
    rows = read_list(prompt_list.content, prompt_list.name)
    return Rejection((rows,)) if isinstance(rows, Problem) else reading.batch(settings, rows)


@dataclass(frozen=True, slots=True)
class _Found:
    """A fault with its place, and the number of its job where it is one job's."""

    place: Place
    fault: Fault
    job: int | None = None


def _of_its_job(fault: Fault) -> _Found:
    """Say a fault in the table of one job of that job: `jobs.2.prompt` is the prompt of job 3."""
    match fault.path:
        case ("jobs", int(at), *within) if within:
            return _Found(fault.path, replace(fault, path=tuple(within)), at + 1)
        case path:
            return _Found(path, fault)


@dataclass(frozen=True, slots=True)
class _Reading:
    document: Document
    filename: str
    catalogue: Catalogue
    prompt_list: PromptList | None
    fill_in: FillIn
    found: list[_Found] = field(default_factory=list)
    left_out: list[Mapping[str, Any]] = field(default_factory=list)

    def batch(self, settings: BatchSettings, rows: Sequence[Row]) -> Batch | Rejection:
        values = self.document.values
        of_the_file = self._of_the_file(values)
        if of_the_file or self.document.faults:
            return self.rejection(of_the_file)
        drafts = expand(values, settings, rows, self._lot())
        if isinstance(drafts, Hindered):
            return self.rejection([_Found(found.place, found.fault) for found in drafts.faults])
        jobs = tuple(self._jobs(drafts, skip=settings.on_invalid == "skip"))
        if self.found and (settings.on_invalid != "skip" or not jobs):
            return self.rejection(self.found, of=len(drafts))
        return Batch(
            name=self.fill_in(values).get("name"),
            id=values.get("id"),
            jobs=jobs,
            list_name=settings.prompts_from,
            on_invalid=settings.on_invalid or "refuse",
            problems=self.rejection(self.found, of=len(drafts)).problems if self.found else (),
            left_out=tuple(self.left_out),
        )

    def _of_the_file(self, values: Mapping[str, Any]) -> list[_Found]:
        """Check what the file says of itself as a job would say it."""
        # Any prompt does: the jobs' own ones are checked with them.
        said = {key: values[key] for key in ("name", "id", "end", "$schema") if key in values}
        job = check({**said, "prompt": "a", "task": "text-to-image"}, self.catalogue)
        faults = job if isinstance(job, tuple) else ()
        return [_Found(fault.path, fault) for fault in faults if fault.path[:1] and fault.path[0] in said]

    def _lot(self) -> str:
        """Give what decides where nothing else does: the file's content, and its list's."""
        listed = b"" if self.prompt_list is None else self.prompt_list.content
        return hashlib.sha256(self.document.text.encode(errors="replace") + b"\0" + listed).hexdigest()

    def _jobs(self, drafts: Sequence[Draft], *, skip: bool) -> Iterator[BatchedJob]:
        names = Counter(name for draft in drafts if isinstance(name := draft.values.get("name"), str))
        ids: dict[str, int] = {}
        for index, draft in enumerate(drafts, start=1):
            values = self.fill_in(_named_apart(draft.values, names, index, len(drafts)))
            text = job_text(values)
            job = check(values, self.catalogue)
            faults = job if isinstance(job, tuple) else (*_own_id(job, ids, index), *_fits_a_file(text))
            self.found.extend(_Found(draft.place_of(fault.path), fault, index) for fault in faults)
            if not isinstance(job, tuple) and not faults:
                origin = Origin(
                    index=index,
                    of=len(drafts),
                    template=draft.template,
                    line=draft.line,
                    matrix={key: _plain(value) for key, value in draft.point.items()},
                )
                yield BatchedJob(job, values, text, origin)
                continue
            self.left_out.append(values)
            if len(self.left_out) >= _MAX_FAULTY_JOBS and not skip:
                return

    def rejection(self, found: Sequence[_Found], of: int = 0) -> Rejection:
        """Put faults into words, each once with the jobs that have it, in the order of the file."""
        # Loaded only where there is something to complain about.
        from qwen_image_daemon.jobs.locating import positions  # noqa: PLC0415

        places = positions(self.document.text, self.document.syntax)

        def line_of(place: Place, occurrence: int = 0) -> int | None:
            if isinstance(place, ListLine):
                return place.line
            # An entry of a list has no name of its own, and what is missing stands nowhere: the table above does.
            while place and place not in places:
                place = place[:-1]
            return places[place][min(occurrence, len(places[place]) - 1)].line if place else None

        grouped: dict[tuple[bool, int | None, str, str, str], list[int]] = {}
        for fault in self.document.faults:
            line = line_of(fault.path, fault.occurrence)
            grouped.setdefault((False, line, key_name(fault.path), fault.what, fault.fix), [])
        for item in found:
            is_listed = isinstance(item.place, ListLine)
            # Between the places of a file and its jobs: `matrix.seed` is said of the file, `seed` of a job.
            key = key_name(item.fault.path)
            line = line_of(item.place)
            jobs = grouped.setdefault((is_listed, line, key, item.fault.what, item.fault.fix), [])
            if item.job is not None:
                jobs.append(item.job)
        ordered = sorted(grouped.items(), key=lambda entry: (entry[0][0], entry[0][1] is None, entry[0][1] or 0))
        problems = (
            Problem(self._where(is_listed=is_listed, line=line, jobs=jobs, of=of, key=key), what, fix)
            for (is_listed, line, key, what, fix), jobs in ordered
        )
        return rejection_of(problems, len(ordered), escaped(self.filename))

    def _where(self, *, is_listed: bool, line: int | None, jobs: Sequence[int], of: int, key: str) -> str:
        name = PurePosixPath(self.prompt_list.name).name if is_listed and self.prompt_list else self.filename
        parts = [escaped(name)]
        if line is not None:
            parts.append(f"line {line}")
        if jobs:
            numbers = list(dict.fromkeys(jobs))
            more = ", …" if len(numbers) > _MAX_NAMED else ""
            said = ", ".join(map(str, numbers[:_MAX_NAMED]))
            parts.append(f"job{'s' if len(numbers) > 1 else ''} {said}{more} of {of}")
        return f"{', '.join(parts)}: {key}"


def _named_apart(values: Mapping[str, Any], names: Mapping[str, int], index: int, of: int) -> Mapping[str, Any]:
    """Give settings whose name is another than those of the jobs that share it."""
    name = values.get("name")
    if not isinstance(name, str) or names[name] <= 1 or not name.strip() or len(name) > _NAME_CHARACTERS:
        return values
    return {**values, "name": numbered(name, index, of, _NAME_CHARACTERS)}


def numbered(name: str, index: int, of: int, most: int) -> str:
    """Give a name with the job's number behind it, in as many digits as the last one has, cut to `most`."""
    number = f"-{index:0{len(str(of))}d}"
    return f"{name[: most - len(number)]}{number}"


def _own_id(job: AnyJob, ids: dict[str, int], index: int) -> Iterator[Fault]:
    if job.id is None:
        return
    first = ids.setdefault(job.id, index)
    if first != index:
        yield Fault(("id",), f"job {first} has the id {quoted(job.id)} too.", "Give each job an id of its own.")


def _fits_a_file(text: bytes) -> Iterator[Fault]:
    """Want a job that can be sent again alone."""
    if len(text) > MAX_JOB_BYTES:
        yield Fault(
            ("prompt",),
            f"written alone, this job has {len(text):,} bytes; a job file has at most {MAX_JOB_BYTES:,}.",
            "Shorten the prompt or the negative prompt.",
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_as_text))
