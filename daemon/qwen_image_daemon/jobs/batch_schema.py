"""The JSON Schema of files with many jobs, made out of the schema of single ones."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from qwen_image_daemon.jobs.batch_settings import BATCH_KEYS, COMBINE, BatchSettings

BATCH, PART = "Batch", "PartOfAJob"
_OF_A_FILE: Final = frozenset({"end", "$schema"})
"""What stands in files and not in the tables of their jobs."""


def batch_definitions(jobs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Give the definitions of a file with many jobs, from those of all kinds of jobs.

    All settings are allowed wherever one kind of job has them: only the whole of a job tells its kind.
    """
    settings = _settings_of_any(jobs)
    own = BatchSettings.model_json_schema()["properties"]
    batch = {key: {name: value for name, value in own[key].items() if name != "title"} for key in BATCH_KEYS}
    part = {"$ref": f"#/$defs/{PART}"}
    batch |= {
        "defaults": _or_nothing(own["defaults"], part),
        "jobs": _or_nothing(own["jobs"], {"type": "array", "minItems": 1, "items": part}),
        "matrix": _or_nothing(own["matrix"], _matrix(settings)),
    }
    return {
        BATCH: {
            "title": BATCH,
            "description": "Many jobs in one file.",
            "type": "object",
            "properties": {**settings, **batch},
            "additionalProperties": False,
            "anyOf": [{"required": [key]} for key in BATCH_KEYS],
        },
        PART: {
            "title": "Part of a job",
            "description": "Settings of one job of many, or of all of them.",
            "type": "object",
            "minProperties": 1,
            "properties": {name: schema for name, schema in settings.items() if name not in _OF_A_FILE},
            "additionalProperties": False,
        },
    }


def _or_nothing(described: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Allow JSON's null, which says what leaving out says."""
    return {"description": described["description"], "anyOf": [schema, {"type": "null"}]}


def _settings_of_any(jobs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Give each setting as any of the kinds of jobs has it."""
    ways: dict[str, list[Any]] = {}
    for job in jobs:
        for name, schema in job["properties"].items():
            if schema not in ways.setdefault(name, []):
                ways[name].append(schema)
    # A setting that the kinds of jobs describe in their own words is described in those of the first.
    return {name: found[0] if len(found) == 1 else {"anyOf": found} for name, found in ways.items()}


def _matrix(settings: Mapping[str, Any]) -> dict[str, Any]:
    lists = {
        name: _values(schema)
        for name, schema in settings.items()
        if name not in _OF_A_FILE | {"output", "scheduler"}
    }
    tables = {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}}
    of_tables = {
        name: {"anyOf": [tables, _values(settings[name])]} for name in ("output", "scheduler") if name in settings
    }
    return {
        "type": "object",
        "properties": {COMBINE: {"enum": ["product", "zip"]}, **lists, **of_tables},
        "patternProperties": {r"^(output|scheduler)\.[a-z_]+$": {"type": "array", "minItems": 1}},
        "additionalProperties": False,
        "minProperties": 1,
    }


def _values(schema: Any) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": schema}
