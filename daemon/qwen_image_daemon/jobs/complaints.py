"""From pydantic's errors to complaints in our words: a sentence for each kind of error, and none of pydantic's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic_core import ErrorDetails

from qwen_image_daemon.jobs.hints import EXPLAINED, meant, plain
from qwen_image_daemon.jobs.models import MAX_SEED, ImageToImageJob, Output, TextToImageJob
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import key_name, quoted
from qwen_image_daemon.jobs.rules import EXAMPLE_PROMPT

JobModel = type[TextToImageJob] | type[ImageToImageJob]

Sentences = tuple[str, str]
"""The fault and the cure."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One value that pydantic refused: its place, itself, and what the schema says about the place."""

    path: KeyPath
    value: Any
    model: JobModel
    schema: Mapping[str, Any]


def faults_of(errors: Sequence[ErrorDetails], model: JobModel) -> list[Fault]:
    """Say each error in our words. A setting that is missing because it was misspelt is said once."""
    misspelt = settings_meant_by(errors)
    faults = []
    for error in errors:
        path = error["loc"]
        if error["type"] == "missing" and path in misspelt:
            continue
        refused = Refused(path, error["input"], model, _schema_at(model, path))
        faults.append(Fault(path, *SENTENCES.get(error["type"], _unfit)(refused)))
    return faults


def settings_meant_by(errors: Sequence[ErrorDetails]) -> frozenset[KeyPath]:
    """Give the settings that the unknown ones among the errors most likely stand for."""
    unknown = (error["loc"] for error in errors if error["type"] == "extra_forbidden")
    return frozenset(setting for path in unknown if (setting := setting_meant_by(path)) is not None)


def setting_meant_by(path: KeyPath) -> KeyPath | None:
    """Give the setting, of any kind of job, that an unknown one most likely stands for."""
    key = str(path[-1])
    if len(path) > 1 and (below := meant(key, tuple(Output.model_fields))) in Output.model_fields:
        return (*path[:-1], below)
    setting = meant(key, tuple(ImageToImageJob.model_fields))
    return None if setting is None else tuple(setting.split("."))


@cache
def _properties(model: type[TextToImageJob | ImageToImageJob | Output]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = model.model_json_schema()["properties"]
    return properties


def _schema_at(model: JobModel, path: KeyPath) -> Mapping[str, Any]:
    if isinstance(path[-1], int):
        items: Mapping[str, Any] = _schema_at(model, path[:-1]).get("items", {})
        return items
    schema: Mapping[str, Any] = _properties(Output if len(path) > 1 else model).get(str(path[-1]), {})
    # Where a setting may be left out, JSON's null says the same.
    return next((choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}), schema)


def _missing(refused: Refused) -> Sentences:
    match refused.path:
        case ("prompt",):
            return "every job needs a prompt.", f"Say what the picture shows, for example {EXAMPLE_PROMPT}."
        case ("image",):
            return (
                "an image-to-image job needs a source picture.",
                "Put a picture beside the job file, and set image to its name.",
            )
        case _:
            return "it is missing.", "Add it."


def _unknown(refused: Refused) -> Sentences:
    name, at_top = refused.path[-1], len(refused.path) == 1
    if at_top and name in _OF_THE_OTHER_TASK:
        return _OF_THE_OTHER_TASK[str(name)]
    if plain(str(name)) in EXPLAINED:
        return EXPLAINED[plain(str(name))]
    if not at_top and name in refused.model.model_fields:
        table = key_name(refused.path[:-1])
        return (
            f"it belongs to the job, not to {table}.",
            f"Move it out of {table}: in TOML, write it above the line [{table}].",
        )
    setting = setting_meant_by(refused.path)
    if setting is None:
        known = refused.model.model_fields if at_top else Output.model_fields
        return "no such setting.", f"Take it out. There are: {', '.join(known)}."
    if setting[0] not in refused.model.model_fields:
        return (
            "no such setting.",
            f"Did you mean {key_name(setting)}? It is for jobs that name an image.",
        )
    return "no such setting.", f"Did you mean {key_name(setting)}?"


_OF_THE_OTHER_TASK: Mapping[str, Sentences] = MappingProxyType(
    {
        "image": (
            "a text-to-image job draws from words alone.",
            'Set task to "image-to-image" to redraw the picture, or take image out.',
        ),
        "size": (
            "it is for jobs that name an image.",
            "Use width and height, or aspect_ratio.",
        ),
        "strength": (
            "it says how much of a source picture is redrawn, and this job redraws none.",
            "Name the picture with image, for an image-to-image job, or take strength out.",
        ),
    }
)


def _not_text(refused: Refused) -> Sentences:
    value = refused.value
    if isinstance(value, bool | int | float):
        return f"{quoted(value)} is no text.", f'Put it between quotation marks: "{quoted(value)}".'
    return f"{quoted(value)} is no text.", 'Write a text between quotation marks: "…".'


def _too_short(refused: Refused) -> Sentences:
    match refused.path:
        case ("prompt",):
            return "it is empty.", f"Say what the picture shows, for example {EXAMPLE_PROMPT}."
        case ("image",):
            return "it is empty.", "Put a picture beside the job file, and set image to its name."
        case _:
            return "it is empty.", "Write something, or leave it out."


def _too_long(refused: Refused) -> Sentences:
    return (
        f"it has {len(refused.value):,} characters; {refused.schema['maxLength']:,} are allowed.",
        "Shorten it.",
    )


def _no_list(refused: Refused) -> Sentences:
    value = refused.value
    example = quoted(value) if isinstance(value, str) else '"…"'
    return f"{quoted(value)} is no list.", f"Write a list: [{example}]."


def _too_many(refused: Refused) -> Sentences:
    return f"it has {len(refused.value):,} entries; {refused.schema['maxItems']} are allowed.", "Take some out."


def _not_whole(refused: Refused) -> Sentences:
    value = refused.value
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_SEED:
        return f"{quoted(value)} is no whole number.", f"Write {quoted(int(value))}."
    if isinstance(value, float) and math.isfinite(value):
        return f"{quoted(value)} is no whole number.", _range(refused)
    return _not_a_number(refused)


def _not_a_number(refused: Refused) -> Sentences:
    value = refused.value
    if isinstance(value, str):
        if (number := _number_in(value, whole=refused.schema.get("type") == "integer")) is not None:
            return f"{quoted(value)} is a text, not a number.", f"Write {number}, not {quoted(value)}."
        return f"{quoted(value)} is a text, not a number.", _range(refused)
    return f"{quoted(value)} is no number.", _range(refused)


def _number_in(text: str, *, whole: bool) -> str | None:
    """Give the number that a text is written like, in the form that TOML and JSON take."""
    if len(text) > len(str(2**63)):
        return None
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        return None
    return quoted(number) if math.isfinite(number) else None


def _out_of_range(refused: Refused) -> Sentences:
    maximum = refused.schema.get("maximum", math.inf)
    return f"{quoted(refused.value)} is too {'large' if refused.value > maximum else 'small'}.", _range(refused)


def _range(refused: Refused) -> str:
    """Say in words which numbers the schema allows."""
    schema = refused.schema
    kind = "a whole number" if schema.get("type") == "integer" else "a number"
    if "multipleOf" in schema:
        # The ends depend on the model's family, which other rules know.
        return f"Write a whole number of pixels, a multiple of {schema['multipleOf']}."
    if "exclusiveMinimum" in schema:
        return f"Write {kind} above {schema['exclusiveMinimum']}, up to {schema['maximum']}."
    return f"Write {kind} from {schema.get('minimum')} to {schema.get('maximum')}."


_OTHER_SIZES: Mapping[KeyPath, str] = MappingProxyType(
    {
        ("aspect_ratio",): " For another shape give width and height.",
        ("size",): " For another size give width and height, or aspect_ratio.",
    }
)


def _none_of_these(refused: Refused) -> Sentences:
    schema = refused.schema
    allowed = schema.get("enum") or [schema.get("const")]
    if allowed == [True]:
        return f"{quoted(refused.value)} is not possible here.", "Write true, or leave it out."
    also = _OTHER_SIZES.get(refused.path, "")
    return (
        f"{quoted(refused.value)} is not possible here.",
        f"Use {'one of ' if len(allowed) > 1 else ''}{', '.join(quoted(choice) for choice in allowed)}.{also}",
    )


def _no_table(refused: Refused) -> Sentences:
    settings = ", ".join(key_name((*refused.path, name)) for name in Output.model_fields)
    return f"{quoted(refused.value)} is no table of settings.", f"Give its settings one by one: {settings}."


def _unfit(refused: Refused) -> Sentences:
    return f"{quoted(refused.value)} does not fit here.", "Write another value, or leave it out."


SENTENCES: Mapping[str, Callable[[Refused], Sentences]] = MappingProxyType(
    {
        "missing": _missing,
        "extra_forbidden": _unknown,
        "string_type": _not_text,
        "string_too_short": _too_short,
        "string_too_long": _too_long,
        "tuple_type": _no_list,
        "too_long": _too_many,
        "int_type": _not_whole,
        "float_type": _not_a_number,
        "finite_number": _not_a_number,
        "greater_than": _out_of_range,
        "greater_than_equal": _out_of_range,
        "less_than_equal": _out_of_range,
        "literal_error": _none_of_these,
        "model_type": _no_table,
    }
)
"""By pydantic's error types: every one that the job models can give (a test holds them together)."""
