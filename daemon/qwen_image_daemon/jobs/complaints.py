"""From pydantic's errors to complaints in our words: a sentence for each kind of error, and none of pydantic's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic_core import ErrorDetails

from qwen_image_daemon.jobs.foreign import foreign
from qwen_image_daemon.jobs.hints import EXPLAINED, RENAMED_IN_TABLES, meant, plain
from qwen_image_daemon.jobs.job_settings import EXAMPLE_PROMPT
from qwen_image_daemon.jobs.models import MAX_SEED, SETTINGS, TABLES, JobModel
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import key_name, quoted
from qwen_image_daemon.jobs.tasks import Task

Sentences = tuple[str, str]
"""The fault and the cure."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One value that pydantic refused: its place, itself, and what the schema says about the place."""

    path: KeyPath
    value: Any
    model: JobModel
    schema: Mapping[str, Any]

    @property
    def task(self) -> Task:
        """What the job is for."""
        task: Task = self.model.model_fields["task"].default
        return task


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
    if len(path) > 1:
        table = str(path[0])
        fields = tuple(TABLES[table].model_fields)
        below = RENAMED_IN_TABLES.get(table, {}).get(plain(key)) or meant(key, fields)
        if below in fields:
            return (*path[:-1], below)
    setting = meant(key, SETTINGS)
    return None if setting is None else tuple(setting.split("."))


@cache
def _schema_of(model: JobModel) -> Mapping[str, Any]:
    return model.model_json_schema()


def _schema_at(model: JobModel, path: KeyPath) -> Mapping[str, Any]:
    """Give what the schema says about a place; nothing about one that it does not know."""
    definitions = _schema_of(model).get("$defs", {})
    schema: Mapping[str, Any] = _schema_of(model)
    for part in path:
        inner = schema.get("items", {}) if isinstance(part, int) else schema.get("properties", {}).get(part, {})
        choices = [_resolved(choice, definitions) for choice in inner.get("anyOf", (inner,))]
        # Where a setting may be left out, JSON's null says the same; where a name may stand for a table, what lies
        # below belongs to the table.
        real = [choice for choice in choices if choice != {"type": "null"}] or [{}]
        schema = next((choice for choice in real if "properties" in choice), real[0])
    return schema


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    resolved: Mapping[str, Any] = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return resolved


def _missing(refused: Refused) -> Sentences:
    match refused.path:
        case ("prompt",):
            return "every job needs a prompt.", f"Say what the picture shows, for example {EXAMPLE_PROMPT}."
        case ("image",) if refused.task == "layered":
            return "a layered job needs a picture to take apart.", _BESIDE.format("image")
        case ("image",):
            return f"{_an(refused.task)} job needs a source picture.", _BESIDE.format("image")
        case ("control_image",):
            return "a ControlNet job needs a control picture.", _BESIDE.format("control_image")
        case (("loras" | "scheduler") as table, *_, "name"):
            return f"it does not say which {_SINGULAR[table]}.", f"Add name, as in {_EXAMPLES[table]}."
        case _:
            return "it is missing.", "Add it."


_BESIDE = "Put a picture beside the job file, and set {} to its name."
_SINGULAR = {"loras": "LoRA", "scheduler": "scheduler"}
_EXAMPLES = {
    "loras": '{ name = "watercolour", weight = 0.8 }',
    "scheduler": '{ name = "euler", shift = 3.0 }',
}


def _an(task: Task) -> str:
    return f"an {task}" if task[0] in "aeiou" else f"a {task}"


def _unknown(refused: Refused) -> Sentences:
    name, at_top = str(refused.path[-1]), len(refused.path) == 1
    if at_top and (sentences := foreign(name, refused.task)) is not None:
        return sentences
    if plain(name) in EXPLAINED:
        return EXPLAINED[plain(name)]
    if not at_top and name in refused.model.model_fields:
        table = key_name(refused.path[:-1])
        return (
            f"it belongs to the job, not to {table}.",
            f"Move it out of {table}: in TOML, write it above the line [{table}].",
        )
    setting = setting_meant_by(refused.path)
    if setting is None:
        known = (refused.model if at_top else TABLES[str(refused.path[0])]).model_fields
        return "no such setting.", f"Take it out. There are: {', '.join(known)}."
    if (sentences := foreign(str(setting[0]), refused.task)) is not None:
        what, _ = sentences
        return "no such setting.", f"Did you mean {key_name(setting)}? {what[0].upper()}{what[1:]}"
    return "no such setting.", f"Did you mean {key_name(setting)}?"


def _not_text(refused: Refused) -> Sentences:
    value = refused.value
    if isinstance(value, bool | int | float):
        return f"{quoted(value)} is no text.", f'Put it between quotation marks: "{quoted(value)}".'
    return f"{quoted(value)} is no text.", 'Write a text between quotation marks: "…".'


def _too_short(refused: Refused) -> Sentences:
    match refused.path:
        case ("prompt",):
            return "it is empty.", f"Say what the picture shows, for example {EXAMPLE_PROMPT}."
        case ("image" | "control_image" | "mask" as setting,) | ("images" as setting, *_):
            return "it is empty.", _BESIDE.format(setting)
        case _:
            return "it is empty.", "Write something, or leave it out."


def _too_long(refused: Refused) -> Sentences:
    return (
        f"it has {len(refused.value):,} characters; {refused.schema['maxLength']:,} are allowed.",
        "Shorten it.",
    )


def _too_few(refused: Refused) -> Sentences:  # noqa: ARG001  all sentences are made alike
    return "it is an empty list.", 'Write for example ["front.png", "back.png"], or leave it out.'


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
    schema = refused.schema
    minimum = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf))
    too = "small" if refused.value < minimum or refused.value == schema.get("exclusiveMinimum") else "large"
    return f"{quoted(refused.value)} is too {too}.", _range(refused)


def _range(refused: Refused) -> str:
    """Say in words which numbers the schema allows."""
    schema = refused.schema
    kind = "a whole number" if schema.get("type") == "integer" else "a number"
    if "multipleOf" in schema:
        # The ends depend on the model's family, which other rules know.
        return f"Write a whole number of pixels, a multiple of {schema['multipleOf']}."
    if "exclusiveMinimum" in schema and "exclusiveMaximum" in schema:
        return f"Write {kind} above {schema['exclusiveMinimum']} and below {schema['exclusiveMaximum']}."
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
    table = str(refused.path[0])
    if table in _EXAMPLES:
        what = f"{quoted(refused.value)} is no {_SINGULAR[table]}."
        return what, f"Write its name between quotation marks, or a table: {_EXAMPLES[table]}."
    settings = ", ".join(key_name((*refused.path, name)) for name in TABLES[table].model_fields)
    return f"{quoted(refused.value)} is no table of settings.", f"Give its settings one by one: {settings}."


def _not_a_truth(refused: Refused) -> Sentences:
    return f"{quoted(refused.value)} is neither true nor false.", "Write true or false, without quotation marks."


def _no_moment(refused: Refused) -> Sentences:
    return f"{quoted(refused.value)} is no moment.", f"Write date, time and offset from UTC: {_EXAMPLE_MOMENT}."


def _no_offset(refused: Refused) -> Sentences:
    return (
        f"{quoted(refused.value)} does not say in which time zone.",
        f"Add the offset from UTC: Z, or as in {_EXAMPLE_MOMENT}.",
    )


_EXAMPLE_MOMENT = "2026-12-24T20:00:00+01:00"


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
        "too_short": _too_few,
        "int_type": _not_whole,
        "float_type": _not_a_number,
        "finite_number": _not_a_number,
        "greater_than": _out_of_range,
        "greater_than_equal": _out_of_range,
        "less_than_equal": _out_of_range,
        "less_than": _out_of_range,
        "literal_error": _none_of_these,
        "model_type": _no_table,
        "bool_type": _not_a_truth,
        "datetime_type": _no_moment,
        "timezone_aware": _no_offset,
    }
)
"""By pydantic's error types: every one that the job models can give (a test holds them together)."""
