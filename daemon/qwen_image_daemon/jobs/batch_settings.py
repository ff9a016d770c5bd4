"""The settings that make one file many jobs, each by itself and all that are fine together. Knows no file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from qwen_image_daemon.jobs.models import StrictModel
from qwen_image_daemon.jobs.paths import fault_of_list_path
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.prompt_lists import LIST_SUFFIXES, MAX_ROWS
from qwen_image_daemon.jobs.quoting import quoted
from qwen_image_daemon.jobs.wildcards import WILDCARD_NAME

MAX_JOBS: Final = MAX_ROWS
"""Jobs that one file may make."""
COMBINE: Final = "combine"
"""The one key of [matrix] that is no setting of a job."""

OnInvalid = Literal["refuse", "skip"]
Settings = Annotated[dict[str, Any], Field(min_length=1)]
WildcardList = Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=MAX_JOBS)]


class BatchSettings(StrictModel):
    """What a file says beside the settings of its jobs. Only at the top of the file."""

    defaults: Settings | None = None
    """Settings for all of the jobs in the list `jobs`. What a job sets itself wins."""
    jobs: Annotated[tuple[Settings, ...], Field(strict=False, min_length=1, max_length=MAX_JOBS)] | None = None
    """The jobs, each with settings of its own: in TOML one [[jobs]] for each."""
    matrix: Settings | None = None
    """A sweep: for each setting the list of its values, and `combine`: "product" (each with each, where it is
    left out) or "zip" (the first ones together, then the second ones). The last setting changes first."""
    prompts: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=MAX_JOBS)] | None = None
    """Prompts, each for a job of its own."""
    prompts_from: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    """A list beside the job file: .txt with one prompt a line (# begins a comment), or .csv whose first line names
    the settings and whose other lines are a job each. An empty cell is as if it were not there."""
    expand: Literal["random", "all"] | None = None
    """What to make of the choices in prompts, {red|blue} and __colour__. random: num_prompts prompts drawn by lot,
    the same ones each time (from the job's seed, or else from the file's content). all: each prompt that there is.
    Where it is left out, braces and underscores are drawn as they are."""
    num_prompts: Annotated[int, Field(ge=1, le=MAX_JOBS)] | None = None
    """How many prompts to draw by lot from each one with choices. 1 where it is left out."""
    wildcards: dict[str, WildcardList] | None = None
    """Lists for prompts: `colour = ["red", "blue"]` is __colour__ there. Entries may hold choices too."""
    on_invalid: OnInvalid | None = None
    """refuse, where it is left out: one bad job refuses the whole file. skip: the good ones are drawn, and a
    report among the failed ones says which were left out."""


BATCH_KEYS: Final = tuple(BatchSettings.model_fields)


def batch_settings(values: Mapping[str, Any]) -> BatchSettings | tuple[Fault, ...]:
    """Give the batch settings of a document, or everything that is wrong with them (never empty)."""
    own = {key: values[key] for key in BATCH_KEYS if key in values}
    try:
        settings = BatchSettings.model_validate(own)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        return tuple(Fault(found["loc"], *_sentences(found)) for found in errors[:_MAX_ERRORS])
    faults = tuple(fault for rule in _RULES for fault in rule(settings, values))
    return faults or settings


_MAX_ERRORS: Final = 50


def _sentences(error: ErrorDetails) -> tuple[str, str]:
    value, key = error["input"], str(error["loc"][0])
    example = _EXAMPLES[key]
    match error["type"]:
        case "too_short" | "string_too_short":
            return "it is empty.", f"Write for example {example}, or leave it out."
        case "too_long":
            return f"it has more than {MAX_JOBS:,} entries, the most that one file may make.", "Split the file."
        case "literal_error":
            return f"{quoted(value)} is not possible here.", f"Write {_CHOICES[key]}, or leave it out."
        case _:
            return f"{quoted(value)} does not fit here.", f"Write for example {example}."


_EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "defaults": "[defaults] and below it the settings for all jobs",
        "jobs": '[[jobs]] and below it prompt = "a red circle", once for each job',
        "matrix": "[matrix] and below it seed = [1, 2, 3]",
        "prompts": 'prompts = ["a red circle", "a blue star"]',
        "prompts_from": 'prompts_from = "list.txt"',
        "expand": 'expand = "random"',
        "num_prompts": f"num_prompts = 10, a whole number from 1 to {MAX_JOBS:,}",
        "wildcards": '[wildcards] and below it colour = ["red", "blue"]',
        "on_invalid": 'on_invalid = "skip"',
    }
)
_CHOICES: Final[Mapping[str, str]] = MappingProxyType(
    {"expand": '"random" or "all"', "on_invalid": '"refuse" or "skip"'}
)


class Axis(StrictModel):
    """One setting of a sweep with its values."""

    key: tuple[str, ...]
    place: tuple[str, ...]
    values: tuple[Any, ...]


def axes_of(settings: BatchSettings) -> tuple[Axis, ...]:
    """Give the settings that the matrix sweeps, in its order. A table in it holds those of the job's table."""
    return tuple(_axes(settings.matrix or {}))


def _axes(matrix: Mapping[str, Any]) -> Iterator[Axis]:
    for name, values in matrix.items():
        if name == COMBINE:
            continue
        if isinstance(values, dict):
            for inner, inner_values in values.items():
                yield Axis(key=(name, inner), place=("matrix", name, inner), values=_as_values(inner_values))
        else:
            # An editor writes output.format in one word where it stands between quotation marks.
            yield Axis(key=tuple(name.split(".")), place=("matrix", name), values=_as_values(values))


def _as_values(written: Any) -> tuple[Any, ...]:
    return tuple(written) if isinstance(written, list) else ()


def points_in(settings: BatchSettings) -> int:
    """Count the points of the matrix; 1 where there is none."""
    axes = axes_of(settings)
    if not axes:
        return 1
    return len(axes[0].values) if is_zipped(settings) else prod(len(axis.values) for axis in axes)


def is_zipped(settings: BatchSettings) -> bool:
    """Say whether the matrix takes the first values together, then the second ones."""
    return (settings.matrix or {}).get(COMBINE) == "zip"


Rule = Callable[[BatchSettings, Mapping[str, Any]], Iterator[Fault]]


def _jobs_stand_alone(settings: BatchSettings, values: Mapping[str, Any]) -> Iterator[Fault]:
    """Want the settings of listed jobs in their tables, where one sees for which jobs they hold."""
    if settings.jobs is None:
        if settings.defaults is not None:
            yield Fault(
                ("defaults",),
                "there are no [[jobs]] for which it could hold.",
                "Write its settings at the top of the file, or add [[jobs]].",
            )
        return
    for key in values:
        if key not in BATCH_KEYS and key not in OF_THE_FILE:
            yield Fault(
                (key,),
                "in a file with [[jobs]] it stands above all jobs, and belongs to none.",
                "Move it below [defaults], for all jobs, or into one of the [[jobs]].",
            )
    if settings.prompts is not None or settings.prompts_from is not None:
        key = "prompts" if settings.prompts is not None else "prompts_from"
        yield Fault(
            (key,),
            f"{key} and [[jobs]] exclude each other.",
            "Give each of the [[jobs]] its prompt, or take them out.",
        )


OF_THE_FILE: Final = frozenset({"name", "id", "end", "$schema"})
"""Settings that hold for a file with [[jobs]] as a whole: what it is called, and its sender's key."""


def _tables_hold_jobs(settings: BatchSettings, values: Mapping[str, Any]) -> Iterator[Fault]:
    """Refuse what belongs to the whole file in the tables of jobs."""
    del values
    tables: list[tuple[KeyPath, Mapping[str, Any]]] = [
        (("jobs", at), job) for at, job in enumerate(settings.jobs or ())
    ]
    tables.append((("defaults",), settings.defaults or {}))
    for place, table in tables:
        for key in table:
            if key in BATCH_KEYS:
                yield Fault(
                    (*place, key),
                    "it belongs to the whole file.",
                    "Move it to the top of the file, above all tables.",
                )
    if "id" in (settings.defaults or {}):
        yield Fault(
            ("defaults", "id"),
            "all jobs would have the same id.",
            "Move it to the top of the file, for which it then stands, or give each of the [[jobs]] its own.",
        )


def _prompts_come_from_one_place(settings: BatchSettings, values: Mapping[str, Any]) -> Iterator[Fault]:
    if settings.prompts is not None and settings.prompts_from is not None:
        yield Fault(("prompts",), "prompts and prompts_from exclude each other.", "Keep one.")
    listed = settings.prompts is not None or (settings.prompts_from or "").lower().endswith(".txt")
    if listed and "prompt" in values:
        yield Fault(("prompt",), "the prompts are listed already.", "Take it out, or add it to the list.")
    fault = None if settings.prompts_from is None else fault_of_list_path(settings.prompts_from, LIST_SUFFIXES)
    if fault is not None:
        yield Fault(("prompts_from",), *fault)


def _matrix_is_made_of_lists(settings: BatchSettings, values: Mapping[str, Any]) -> Iterator[Fault]:
    matrix = settings.matrix or {}
    if matrix.get(COMBINE, "product") not in ("product", "zip"):
        yield Fault(
            ("matrix", COMBINE), f"{quoted(matrix[COMBINE])} is not possible here.", 'Write "product" or "zip".'
        )
    axes = axes_of(settings)
    for axis in axes:
        yield from _faults_of_axis(axis, settings, values)
    if not axes and settings.matrix is not None:
        yield Fault(("matrix",), "it names no setting.", f"Write for example {_EXAMPLES['matrix']}.")
    lengths = {".".join(axis.key): len(axis.values) for axis in axes}
    if is_zipped(settings) and all(lengths.values()) and len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        yield Fault(
            ("matrix", COMBINE),
            f"zipped lists must be of one length; {said}.",
            'Make them as long as each other, or set combine to "product".',
        )


def _faults_of_axis(axis: Axis, settings: BatchSettings, values: Mapping[str, Any]) -> Iterator[Fault]:
    """Want a list of values for a setting of a job that is given nowhere else."""
    name = ".".join(axis.key)
    if not axis.values:
        written = _at(settings.matrix or {}, axis.place[1:])
        what = "the list is empty." if written == [] else f"{quoted(written)} is no list."
        yield Fault(axis.place, what, f"Write a list of values, for example {name} = [{_listed(written)}].")
    if axis.key[0] in BATCH_KEYS:
        yield Fault(axis.place, "it is no setting of a job.", "Take it out.")
    if settings.jobs is None and _given(values, axis.key):
        yield Fault(axis.place, f"{name} stands outside of [matrix] too.", "Keep one of them.")
    if _given(settings.defaults or {}, axis.key):
        yield Fault(axis.place, f"{name} stands in [defaults] too.", "Keep one of them.")
    for at, job in enumerate(settings.jobs or ()):
        if _given(job, axis.key):
            yield Fault(("jobs", at, axis.key[0]), f"{name} stands in [matrix] too.", "Keep one of them.")
    if axis.key == ("prompt",) and (settings.prompts is not None or settings.prompts_from is not None):
        yield Fault(axis.place, "the prompts are listed already.", "Keep one of them.")


def _at(table: Mapping[str, Any], place: Sequence[str]) -> Any:
    value: Any = table
    for part in place:
        value = value[part]
    return value


def _listed(value: Any) -> str:
    return quoted(value) if isinstance(value, bool | int | float | str) else "…"


def _given(table: Mapping[str, Any], key: tuple[str, ...]) -> bool:
    value: Any = table
    for part in key:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _choices_are_to_be_expanded(settings: BatchSettings, values: Mapping[str, Any]) -> Iterator[Fault]:
    del values
    if settings.expand is None:
        for key in ("num_prompts", "wildcards"):
            if getattr(settings, key) is not None:
                yield Fault(
                    (key,), "it has no effect without expand.", 'Add expand = "random" or "all", or take it out.'
                )
    elif settings.expand == "all" and settings.num_prompts is not None:
        yield Fault(
            ("num_prompts",),
            'it is for expand = "random"; "all" makes every prompt that there is.',
            "Take it out, or expand at random.",
        )
    for name in settings.wildcards or {}:
        if WILDCARD_NAME.fullmatch(name) is None:
            yield Fault(
                ("wildcards", name),
                f"{quoted(name)} cannot be named in a prompt.",
                "Name the list with letters, digits, dashes and single underscores.",
            )


_RULES: Final[tuple[Rule, ...]] = (
    _jobs_stand_alone,
    _tables_hold_jobs,
    _prompts_come_from_one_place,
    _matrix_is_made_of_lists,
    _choices_are_to_be_expanded,
)
