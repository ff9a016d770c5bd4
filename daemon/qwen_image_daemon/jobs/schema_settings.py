"""The settings of jobs as JSON Schemas that editors can work with, out of the models' own ones.

pydantic writes a choice of two schemas wherever a setting may be left out or have two forms. An editor that finds
neither fulfilled can only say so, not what is wrong. Here such choices are folded into one schema wherever that
says the same: `{"type": ["integer", "null"], "minimum": 1}`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from qwen_image_daemon.jobs.hints import EXPLAINED, RENAMED
from qwen_image_daemon.jobs.models import MODELS
from qwen_image_daemon.jobs.paths import IMAGE_SUFFIXES
from qwen_image_daemon.jobs.tasks import Task

Schema = dict[str, Any]

NULL: Final = "null"
UNKNOWN: Final = "No such setting."
UNOFFERED: Final[Mapping[str, Any]] = MappingProxyType({"doNotSuggest": True})
"""For schemas in conditions: else VS Code would offer their bare key, instead of the one with the value."""


def refusal(why: str) -> Schema:
    """Give the schema of a setting that must not be there.

    The reason stands twice: inside of `not`, where taplo and check-jsonschema show it, and as `errorMessage`, for
    VS Code. Unknown keys are refused so too: `additionalProperties: false` would lay the fault on the table around
    them, and taplo would underline the whole file.
    """
    return {"not": {"description": why}, "errorMessage": why, **UNOFFERED}


def setting_definitions() -> dict[str, Schema]:
    """Give every setting of jobs, as it is for all tasks that have it."""
    return {name: widest(schemas) for name, schemas in settings_by_task().items()}


def settings_by_task() -> Mapping[str, Mapping[Task, Schema]]:
    """Give for every setting what it is to each of the tasks that have it; the task and the prompt come first."""
    found: dict[str, dict[Task, Schema]] = {"task": {}, "prompt": {}}
    for task, model in MODELS.items():
        for name, schema in properties_of(model).items():
            found.setdefault(name, {})[task] = {**schema, **_FORMS.get(name, {})}
    # Which task it is, is a choice: one definition stands for the whole union.
    found["task"] = dict.fromkeys(MODELS, _choice_of_tasks())
    return found


def _said(pattern: str, message: str) -> Schema:
    return {"pattern": pattern, "errorMessage": message}


def _in_any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter.lower()}]" for letter in word)


_BLANK: Final = _said(r"\S", "It holds nothing but blanks.")


def plain_path(what: str, suffixes: Sequence[str]) -> Schema:
    """Want the path of a file below the job file's folder, with one of these suffixes in capitals or not."""
    endings = "|".join(_in_any_case(suffix[1:]) for suffix in suffixes)
    return _said(
        rf"^([^/\\:.~][^/\\:]*/)*[^/\\:.~][^/\\:]*\.({endings})$",
        f"{what} is a plain path below the job file's folder that ends in {', '.join(suffixes)}.",
    )


_PICTURE: Final = plain_path("A picture", IMAGE_SUFFIXES)
_FORMS: Mapping[str, Schema] = MappingProxyType(
    {
        "prompt": _BLANK,
        "name": _BLANK,
        **dict.fromkeys(("image", "mask", "control_image"), _PICTURE),
    }
)
"""What jobs/text_rules.py and jobs/paths.py want of texts, as far as a pattern can say it."""
_ENTRIES: Mapping[str, Schema] = MappingProxyType(
    {
        "images": _PICTURE,
        "tags": _BLANK,
        "loras": {
            "not": {"type": "object", "required": ["weight"], "properties": {"weight": {"const": 0, **UNOFFERED}}},
            "errorMessage": "A weight of 0 does nothing.",
        },
    }
)
"""The same for what stands in lists."""


def properties_of(model: type[BaseModel]) -> dict[str, Schema]:
    """Give the settings of a model, folded, without references."""
    whole = model.model_json_schema()
    folded_ones = {name: folded(schema, whole.get("$defs", {})) for name, schema in whole["properties"].items()}
    for name, form in _ENTRIES.items():
        if name in folded_ones:
            folded_ones[name]["items"] |= form
    return folded_ones


def _choice_of_tasks() -> Schema:
    meanings = " ".join(f"{task}: {' '.join((model.__doc__ or '').split())}" for task, model in MODELS.items())
    described = "What is to be done. Left out, the other settings tell it, and the result says it."
    return {"type": "string", "enum": list(MODELS), "description": f"{described} {meanings}"}


def folded(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Give a schema of pydantic's in one piece, wherever that says the same."""
    if "$ref" in schema:
        named = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**named, **{key: value for key, value in schema.items() if key != "$ref"}}
    said = {key: value for key, value in schema.items() if key not in {"title", "anyOf", "additionalProperties"}}
    if "description" in said:
        said["description"] = " ".join(said["description"].split())
    if said.get("default", ...) is None or "properties" in said:
        # Left out is what a person writes; the description says what it means.
        said.pop("default", None)
    if "properties" in said:
        said["properties"] = {name: folded(inner, definitions) for name, inner in said["properties"].items()}
        said["additionalProperties"] = refusal(UNKNOWN)
    if "items" in said:
        said["items"] = folded(said["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        said["additionalProperties"] = folded(schema["additionalProperties"], definitions)
    if said.get("format") == "date-time":
        said = _moment(said)
    choices = [folded(choice, definitions) for choice in schema.get("anyOf", ())]
    return {**_one_of(choices), **said} if choices else said


def _moment(schema: Schema) -> Schema:
    # ISO 8601 has more forms than RFC 3339, which `format` means, and TOML writes a blank where both have a T.
    pattern = r"^\d{4}-?\d\d-?\d\d.*([Zz]|[+-]\d\d(:?\d\d(:?\d\d(\.\d+)?)?)?)$"
    bare = {key: value for key, value in schema.items() if key != "format"}
    return {**bare, **_said(pattern, "A moment has its offset from UTC at its end: +01:00 or Z.")}


def _one_of(choices: Sequence[Schema]) -> Schema:
    """Fold choices whose types differ into one schema; those that list their values stay apart, but for null."""
    nothing = {"type": NULL}
    others = [choice for choice in choices if choice != nothing]
    listing = [choice for choice in others if "enum" in choice or "const" in choice]
    if len(others) > 1 and listing:
        rest = [choice for choice in others if choice not in listing]
        return {"anyOf": [*listing, *rest, *([nothing] if nothing in choices else [])]}
    one: Schema = {}
    for choice in others:
        one |= {key: value for key, value in choice.items() if key != "type"}
    types = [choice["type"] for choice in choices]
    if nothing in choices and listing:
        values = one.pop("enum") if "enum" in one else [one.pop("const")]
        one["enum"] = [*values, None]
    return {"type": types[0] if len(types) == 1 else types, **one}


def widest(schemas: Mapping[Task, Schema]) -> Schema:
    """Give the schema of a setting that holds for all tasks which have it.

    They may differ in words, in defaults, and in whether the setting may be null. Raises ValueError where they
    differ in what else they allow.
    """
    first, *others = schemas.values()
    if all(schema == first for schema in others):
        return first
    if any(_core(schema) != _core(first) for schema in others):
        raise ValueError(f"tasks differ in what a setting allows: {schemas}")
    nullable = next((schema for schema in schemas.values() if NULL in _types(schema)), first)
    wide = {key: value for key, value in nullable.items() if key not in {"default", "description"}}
    defaults = [schema.get("default") for schema in schemas.values()]
    if all(default == defaults[0] and default is not None for default in defaults):
        wide["default"] = defaults[0]
    return {**wide, "description": " ".join(_wordings(schemas))}


def _wordings(schemas: Mapping[Task, Schema]) -> Iterator[str]:
    """Give each wording once, after the tasks that it is for, with their default where not all have the same."""
    one_default = len({repr(schema.get("default")) for schema in schemas.values()}) == 1
    found: dict[str, list[Task]] = {}
    for task, schema in schemas.items():
        tell = "default" in schema and not one_default
        default = f" {schema['default']} where it is left out." if tell else ""
        found.setdefault(f"{schema['description']}{default}", []).append(task)
    for wording, tasks in found.items():
        yield f"{', '.join(tasks)}: {wording}"


def _core(schema: Schema) -> Schema:
    bare = {key: value for key, value in schema.items() if key not in {"default", "description", "type", "enum"}}
    values = [value for value in schema.get("enum", ()) if value is not None]
    return {**bare, "types": [kind for kind in _types(schema) if kind != NULL], "values": values}


def _types(schema: Schema) -> list[str]:
    given: str | list[str] = schema.get("type", [])
    return [given] if isinstance(given, str) else given


def words_of_other_programs(known: Collection[str]) -> dict[str, Schema]:
    """Refuse, with the reader's own hints, settings that exist elsewhere.

    As patterns, so that no editor offers them.
    """
    groups: dict[str, list[str]] = {}
    for word, (what, cure) in EXPLAINED.items():
        if word not in known:
            groups.setdefault(f"{what[0].upper()}{what[1:]} {cure}", []).append(word)
    for word, setting in RENAMED.items():
        if word not in known and word not in EXPLAINED:
            groups.setdefault(f"{UNKNOWN} Did you mean {setting}?", []).append(word)
    return {f"^({'|'.join(words)})$": refusal(why) for why, words in groups.items()}
