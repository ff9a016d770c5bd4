"""From one document to many: listed jobs, prompt lists, sweeps, choices. Counted first, then written out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final

from qwen_image_daemon.jobs.batch_settings import (
    BATCH_KEYS,
    MAX_JOBS,
    OF_THE_FILE,
    BatchSettings,
    axes_of,
    is_zipped,
    points_in,
)
from qwen_image_daemon.jobs.models import MAX_PROMPT_CHARACTERS
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.prompt_lists import Row
from qwen_image_daemon.jobs.wildcards import MOST, Lots, Template, TemplateFault, Wildcards

MAX_PICTURES: Final = 50_000
"""Pictures that one file may ask for in all."""
MAX_CHARACTERS: Final = 20_000_000
"""Characters that all prompts of one file may have together: each job is written down by itself."""

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListLine:
    """A place in the list beside the job file: its line, counted from 1."""

    line: int


Place = KeyPath | ListLine


@dataclass(frozen=True, slots=True)
class Draft:
    """One job's settings, not checked yet, and where each was written."""

    values: Mapping[str, Any]
    places: Mapping[Key, Place] = field(default_factory=dict)
    home: Place = ()
    """Where a setting is missing that was written nowhere."""
    line: int | None = None
    """The line of the list that it comes from."""
    point: Mapping[str, Any] = field(default_factory=dict)
    """What the matrix sets."""
    template: str | None = None
    """Its prompt before its choices were made."""

    def place_of(self, path: KeyPath) -> Place:
        """Say where a setting was written."""
        for length in range(len(path), 0, -1):
            above = tuple(str(part) for part in path[:length])
            place = self.places.get(above)
            if place is not None:
                return place if isinstance(place, ListLine) else (*place, *path[length:])
        return self.home

    def given(self, key: Key, value: Any, place: Place) -> "Draft":
        """Give the same job with one more setting."""
        return replace(self, values=_with(self.values, key, value), places={**self.places, key: place})


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A fault with its place, before there are jobs that could be numbered."""

    place: Place
    fault: Fault


@dataclass(frozen=True, slots=True)
class Hindered:
    """Everything that is in the way of an expansion (never empty)."""

    faults: tuple[Misplaced, ...]


def expand(
    values: Mapping[str, Any], settings: BatchSettings, rows: Sequence[Row], lot: str
) -> tuple[Draft, ...] | Hindered:
    """Give the jobs that a document stands for, in its order, or everything that is in the way.

    `rows` are those of the list that `prompts_from` names. `lot` decides what is drawn by lot where a job has no
    seed: the same one, the same prompts.
    """
    too_many = _too_many(settings, rows)
    if too_many is not None:
        return Hindered((too_many,))
    drafts = [
        _at_point(draft, point)
        for base in _bases(values, settings)
        for draft in _listed(base, settings, rows)
        for point in _points(settings)
    ]
    if settings.expand is None:
        return _within_limits(drafts, settings)
    return _chosen(drafts, settings, lot)


def _bases(values: Mapping[str, Any], settings: BatchSettings) -> Iterator[Draft]:
    if settings.jobs is None:
        # The file's name and key stand for all of its jobs; they get names of their own later.
        of_one = {key: value for key, value in values.items() if key not in BATCH_KEYS}
        own = {key: value for key, value in of_one.items() if key == "name" or key not in OF_THE_FILE}
        yield Draft(own, dict(_places(own, ())))
        return
    defaults = settings.defaults or {}
    for at, job in enumerate(settings.jobs):
        places = {**dict(_places(defaults, ("defaults",))), **dict(_places(job, ("jobs", at)))}
        yield Draft(_merged(defaults, job), places, home=("jobs", at))


def _places(table: Mapping[str, Any], above: KeyPath) -> Iterator[tuple[Key, Place]]:
    for key, value in table.items():
        yield (key,), (*above, key)
        if isinstance(value, dict):
            for inner in value:
                yield (key, inner), (*above, key, inner)


def _merged(defaults: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Let the job's settings win, also those in a table of both."""
    values = {**defaults, **job}
    for key, value in job.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            values[key] = {**defaults[key], **value}
    return values


def _listed(base: Draft, settings: BatchSettings, rows: Sequence[Row]) -> Iterator[Draft]:
    if settings.prompts is not None:
        for at, prompt in enumerate(settings.prompts):
            yield base.given(("prompt",), prompt, ("prompts", at))
    elif settings.prompts_from is not None:
        for row in rows:
            draft = replace(base, home=ListLine(row.line), line=row.line)
            for key, value in row.values.items():
                draft = draft.given(key, value, ListLine(row.line))
            yield draft
    else:
        yield base


Point = tuple[tuple[Key, Any, Place], ...]


def _points(settings: BatchSettings) -> Iterator[Point]:
    axes = axes_of(settings)
    columns = [[(axis.key, value, axis.place) for value in axis.values] for axis in axes]
    yield from zip(*columns, strict=True) if is_zipped(settings) else product(*columns)


def _at_point(draft: Draft, point: Point) -> Draft:
    for key, value, place in point:
        draft = draft.given(key, value, place)
    return replace(draft, point={".".join(key): value for key, value, _ in point}) if point else draft


def _with(values: Mapping[str, Any], key: Key, value: Any) -> dict[str, Any]:
    if len(key) == 1:
        return {**values, key[0]: value}
    inner = values.get(key[0], {})
    # What is no table stays, and the job's check complains about it.
    return {**values, key[0]: _with(inner, key[1:], value)} if isinstance(inner, dict) else dict(values)


def _too_many(settings: BatchSettings, rows: Sequence[Row]) -> Misplaced | None:
    """Complain about what multiplies to too many jobs, before it is multiplied."""
    factors = {
        "listed jobs": len(settings.jobs or (None,)),
        "prompts": len(settings.prompts or rows or (None,)),
        "points of the matrix": points_in(settings),
        "prompts by lot of each": settings.num_prompts or 1,
    }
    count = 1
    for factor in factors.values():
        count *= factor
    if count <= MAX_JOBS:
        return None
    product_of = " × ".join(f"{factor:,} {what}" for what, factor in factors.items() if factor > 1)
    largest = max(factors, key=lambda what: factors[what])
    place = _KEYS[largest] if largest != "prompts" or settings.prompts is not None else "prompts_from"
    return Misplaced((place,), _many((place,), f"{count:,}", product_of))


_KEYS: Final = {
    "listed jobs": "jobs",
    "prompts": "prompts",
    "points of the matrix": "matrix",
    "prompts by lot of each": "num_prompts",
}


def _many(path: KeyPath, count: str, product_of: str) -> Fault:
    return Fault(
        path,
        f"the file would make {count} jobs ({product_of}); {MAX_JOBS:,} are allowed.",
        'Shorten a list, draw by lot (expand = "random"), or split the file.',
    )


def _chosen(drafts: Sequence[Draft], settings: BatchSettings, lot: str) -> tuple[Draft, ...] | Hindered:
    """Make the choices in all prompts."""
    wildcards = Wildcards(settings.wildcards or {})
    known: dict[str, Template] = {}
    faults: list[Misplaced] = []
    for draft in drafts:
        prompt = draft.values.get("prompt")
        # A prompt that is no text, or too long to be one, is left to the job's check.
        if not isinstance(prompt, str) or prompt in known or len(prompt) > MAX_PROMPT_CHARACTERS:
            continue
        try:
            known[prompt] = _short_enough(wildcards.template(prompt))
        except TemplateFault as bad:
            if len(faults) < _MAX_FAULTS:
                faults.append(Misplaced(draft.place_of(("prompt",)), Fault(("prompt",), str(bad), bad.fix)))
    if faults:
        return Hindered(tuple(faults))
    if not any(template.chooses for template in known.values()):
        what = "no prompt holds a choice, such as {red|blue} or __colour__."
        fault = Fault(("expand",), what, "Write choices into the prompt, or take it out.")
        return Hindered((Misplaced(("expand",), fault),))
    prompts = (draft.values.get("prompt") for draft in drafts)
    templates = [known.get(prompt) if isinstance(prompt, str) else None for prompt in prompts]
    number = settings.num_prompts or 1
    counts = [
        1 if template is None else template.count if settings.expand == "all" else number for template in templates
    ]
    if sum(counts) > MAX_JOBS:
        what = f"{sum(counts):,}" if sum(counts) < MOST else f"more than {MOST:,}"
        return Hindered((Misplaced(("expand",), _many(("expand",), what, "every prompt that there is")),))
    texts = sum(
        count * (template.longest if template else 0) for count, template in zip(counts, templates, strict=True)
    )
    if texts > MAX_CHARACTERS:
        return Hindered((Misplaced(("expand",), _long(("expand",))),))
    chosen = [
        prompt
        for at, (draft, template, count) in enumerate(zip(drafts, templates, counts, strict=True))
        for prompt in _prompts(draft, template, count, settings, f"{lot}/{at}")
    ]
    return _within_limits(chosen, settings)


_MAX_FAULTS: Final = 50


def _short_enough(template: Template) -> Template:
    if template.longest > MAX_PROMPT_CHARACTERS:
        raise TemplateFault(
            f"it could become {template.longest:,} characters long; {MAX_PROMPT_CHARACTERS:,} are allowed.",
            "Shorten it, or the lists that it names.",
        )
    return template


def _prompts(
    draft: Draft, template: Template | None, count: int, settings: BatchSettings, lot: str
) -> Iterator[Draft]:
    if template is None:
        yield draft
        return
    written = draft.values["prompt"]
    of_template = written if template.chooses else None
    texts = map(template.nth, range(count)) if settings.expand == "all" else _by_lot(draft, template, count, lot)
    for prompt in texts:
        yield replace(draft, values={**draft.values, "prompt": prompt}, template=of_template)


def _by_lot(draft: Draft, template: Template, count: int, lot: str) -> Iterator[str]:
    """Draw prompts: none comes a second time while others have not come, as far as a few tries find one."""
    seed = draft.values.get("seed")
    seen: set[str] = set()
    for number in range(count):
        if len(seen) >= template.count:
            seen = set()
        lots = Lots(seed if isinstance(seed, int) else lot, number)
        prompt = template.drawn(lots)
        for _ in range(_MOST_TRIES):
            if prompt not in seen:
                break
            prompt = template.drawn(lots)
        seen.add(prompt)
        yield prompt


_MOST_TRIES: Final = 20


def _within_limits(drafts: Sequence[Draft], settings: BatchSettings) -> tuple[Draft, ...] | Hindered:
    place: KeyPath = ("jobs",) if settings.jobs else ("matrix",) if settings.matrix else ()
    wanted = (draft.values.get("num_images", 1) for draft in drafts)
    pictures = sum(number for number in wanted if isinstance(number, int) and number > 0)
    if pictures > MAX_PICTURES:
        what = f"the file asks for {pictures:,} pictures in all; {MAX_PICTURES:,} are allowed."
        fault = Fault(("num_images",), what, "Lower num_images, or split the file.")
        return Hindered((Misplaced(drafts[0].place_of(("num_images",)), fault),))
    texts = (draft.values.get(key) for draft in drafts for key in ("prompt", "negative_prompt"))
    if sum(len(text) for text in texts if isinstance(text, str)) > MAX_CHARACTERS:
        return Hindered((Misplaced(place, _long(place or ("prompts",))),))
    return tuple(drafts)


def _long(path: KeyPath) -> Fault:
    return Fault(
        path,
        f"all prompts together would have more than {MAX_CHARACTERS:,} characters.",
        "Shorten them, or split the file.",
    )
