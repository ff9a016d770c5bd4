"""Reading a job file: bytes in; a job, or everything that is wrong with it at once, out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from qwen_image_daemon.jobs.batch_settings import BATCH_KEYS
from qwen_image_daemon.jobs.batches import Batch, PromptList, WantsList, is_batch, job_text, read_batch
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.checking import check
from qwen_image_daemon.jobs.hints import plain
from qwen_image_daemon.jobs.models import SETTINGS, AnyJob
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES, Document, parse
from qwen_image_daemon.jobs.problems import Fault, KeyPath, Problem, Rejection, rejection_of
from qwen_image_daemon.jobs.quoting import LONGEST_QUOTE, escaped, key_name
from qwen_image_daemon.jobs.recipes import RecipePicture, filled_in, picture_setting, uses_variables

MAX_RECIPE_BYTES = MAX_JOB_BYTES - 4 * 1024
"""A recipe becomes a job file, with its picture's name in it, which must be one that can be sent again."""

_SIMILAR = 0.75
NOT_IN_RECIPES = {
    "image": (
        "a recipe names no picture.",
        "Take it out: each picture that is dropped beside the recipe is drawn.",
    ),
    "control_image": (
        "a recipe names no picture.",
        "Take it out: each picture that is dropped beside the recipe controls a job.",
    ),
    "id": ("a recipe has no id, for it is many jobs.", "Take it out."),
}


def read_job(content: bytes, filename: str, catalogue: Catalogue) -> AnyJob | Rejection:
    """Parse and validate one job file. Never raises for anything a person wrote.

    `filename` decides between TOML and JSON, and names the file in complaints.
    """
    document = parse(content, filename)
    if isinstance(document, Problem):
        return Rejection((document,))
    return _checked(document, filename, catalogue)


def read_drop(
    content: bytes, filename: str, catalogue: Catalogue, prompt_list: PromptList | None = None
) -> AnyJob | Batch | Rejection | WantsList:
    """Parse and validate a job file or a file with many jobs. Never raises for anything a person wrote.

    Asks for the prompt list where the file names one and it was not given.
    """
    document = parse(content, filename)
    if isinstance(document, Problem):
        return Rejection((document,))
    if is_batch(document.values):
        return read_batch(document, filename, catalogue, prompt_list)
    return _checked(document, filename, catalogue)


def read_recipe(
    content: bytes,
    filename: str,
    catalogue: Catalogue,
    picture: RecipePicture,
    prompt_list: PromptList | None = None,
) -> AnyJob | Batch | Rejection | WantsList:
    """Parse and validate a recipe: a job, or many, without its picture. Never raises either."""
    document = parse(content, filename)
    if isinstance(document, Problem):
        return Rejection((document,))
    if len(content) > MAX_RECIPE_BYTES:
        what = f"the file has {len(content):,} bytes; a recipe has at most {MAX_RECIPE_BYTES:,}."
        return Rejection((Problem(escaped(filename), what, "Shorten it."),))
    faults = [Fault(path, *NOT_IN_RECIPES[str(path[-1])]) for path in _forbidden(document.values)]
    if faults:
        return _rejection([*document.faults, *faults], document, filename)
    fill_in = partial(filled_in, picture=picture)
    if is_batch(document.values):
        return read_batch(document, filename, catalogue, prompt_list, fill_in)
    return _checked(replace(document, values=fill_in(document.values)), filename, catalogue)


def _forbidden(values: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Give the places of what no recipe may set, also in the tables of its jobs."""
    jobs = values.get("jobs")
    tables: list[tuple[KeyPath, Any]] = [
        ((), values),
        *(((name,), values.get(name)) for name in ("defaults", "matrix")),
    ]
    tables += [(("jobs", at), job) for at, job in enumerate(jobs if isinstance(jobs, list) else ())]
    for place, table in tables:
        if isinstance(table, dict):
            yield from ((*place, key) for key in NOT_IN_RECIPES if key in table)


def job_file_of_recipe(content: bytes, filename: str, picture: RecipePicture) -> tuple[str, bytes]:
    """Give suffix and content of the job file that a valid recipe of one job stands for, its picture named.

    It is what a result folder holds, and runs alone.
    """
    document = parse(content, filename)
    if isinstance(document, Problem):
        raise ValueError(str(document))  # noqa: TRY004  a caller's mistake, not a wrong type
    named = picture_setting(document.values)
    if document.syntax == "json" or uses_variables(document.values, picture):
        filled = filled_in(document.values, picture)
        return ".json", job_text({named: filled.pop(named), **filled})
    # TOML's basic strings know all of JSON's escapes.
    return ".toml", f"{named} = {json.dumps(picture.name, ensure_ascii=False)}\n{document.text}".encode()


def _checked(document: Document, filename: str, catalogue: Catalogue) -> AnyJob | Rejection:
    job = check(document.values, catalogue)
    if not isinstance(job, tuple) and not document.faults:
        return job
    said = {fault.path for fault in document.faults if fault.occurrence == 0}
    further = [_as_batch(fault) for fault in job if fault.path not in said] if isinstance(job, tuple) else []
    return _rejection([*document.faults, *further], document, filename)


def _as_batch(fault: Fault) -> Fault:
    """Say of an unknown setting at the top of a file which setting of a batch it resembles most, if any."""
    name = str(fault.path[0]) if len(fault.path) == 1 else ""
    if name in SETTINGS or len(name) > LONGEST_QUOTE or not fault.what.startswith("no such setting"):
        return fault
    similar = get_close_matches(plain(name), (*BATCH_KEYS, *SETTINGS), n=1, cutoff=_SIMILAR)
    return replace(fault, fix=f"Did you mean {similar[0]}?") if similar and similar[0] in BATCH_KEYS else fault


def _rejection(faults: Sequence[Fault], document: Document, filename: str) -> Rejection:
    """Give each fault its line, in the order of the file; what is missing comes last."""
    # Loaded only where there is something to complain about.
    from qwen_image_daemon.jobs.locating import Position, positions  # noqa: PLC0415

    places = positions(document.text, document.syntax)
    nowhere = Position(len(document.text) + 2, 0)

    def place_of(fault: Fault) -> Position | None:
        path = fault.path
        while path and path not in places:
            # Entries of a list have no names, and what is missing from a table has no place: theirs is the
            # table's.
            path = path[:-1]
        found = places.get(path, [])
        return found[fault.occurrence] if fault.occurrence < len(found) else None

    shown = escaped(filename)

    def said(fault: Fault) -> Problem:
        place = place_of(fault)
        line = f", line {place.line}" if place is not None else ""
        return Problem(f"{shown}{line}: {key_name(fault.path)}", fault.what, fault.fix)

    ordered = sorted(faults, key=lambda fault: place_of(fault) or nowhere)
    return rejection_of(map(said, ordered), len(ordered), shown)
