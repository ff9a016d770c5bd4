"""The tables of `docs/jobs.md`, out of the models: sizes, presets, and all keys."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from qwen_image_daemon.jobs.batch_settings import BatchSettings
from qwen_image_daemon.jobs.families import ASPECT_RATIOS, FAMILIES, Family, PresetName
from qwen_image_daemon.jobs.models import MODELS
from qwen_image_daemon.jobs.schema_settings import (
    Schema,
    properties_of,
    setting_definitions,
    settings_by_task,
)
from qwen_image_daemon.jobs.tasks import Task

_PLACE = re.compile(r"(<!-- (?P<name>\w+): written by [^>]*-->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
_MANY_CHARACTERS: Final = 1_000
"""A limit that people may meet is told; shorter ones, of names and paths, they do not."""


def with_fresh_tables(document: str) -> str:
    """Give the document with each table in its place as it must be. Raises KeyError for a place of no table."""
    return _PLACE.sub(lambda place: f"{place[1]}\n{_TABLES[place['name']]()}\n{place[3]}", document)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _sizes() -> str:
    """Give the recommended size of each shape, for the families that are asked for one."""
    groups = _alike(family for family in FAMILIES.values() if family.tasks != {"layered"})
    head = ["aspect_ratio", *(_names(families) for families in groups)]
    rows = [[f"`{ratio}`", *(str(families[0].sizes[ratio]) for families in groups)] for ratio in ASPECT_RATIOS]
    return _table(head, rows)


def _alike(families: Iterable[Family]) -> list[list[Family]]:
    groups: dict[tuple[str, ...], list[Family]] = {}
    for family in families:
        groups.setdefault(tuple(map(str, family.sizes.values())), []).append(family)
    return list(groups.values())


def _names(families: Iterable[Family]) -> str:
    return ", ".join(f"`{family.name}`" for family in families)


def _presets() -> str:
    """Give what each preset means to each family: steps, and true_cfg_scale."""
    presets: list[PresetName] = list(next(iter(FAMILIES.values())).presets)
    rows = [[f"`{family.name}`", *(_preset(family, name) for name in presets)] for family in FAMILIES.values()]
    return _table(["family", *(f"`{name}`" for name in presets)], rows)


def _preset(family: Family, name: PresetName) -> str:
    preset = family.presets[name]
    said = f"{preset.num_inference_steps} steps at {preset.true_cfg_scale}"
    return f"**{said}**" if name == family.default_preset else said


def _keys() -> str:
    """Give every key: what it takes, for which tasks it is, what it means."""
    by_task = settings_by_task()
    rows: list[Sequence[str]] = []
    for name, schema in setting_definitions().items():
        rows += ([*row[:2], _whose(by_task[name]), row[2]] for row in _rows(name, schema))
    rows += ([*row[:2], "files with many jobs", row[2]] for row in _rows_of_batches())
    return _table(["key", "takes", "for", "meaning"], rows)


def _whose(tasks: Collection[Task]) -> str:
    others = [task for task in MODELS if task not in tasks]
    if len(others) > 1:
        return ", ".join(tasks)
    return f"all but {others[0]}" if others else "all"


def _rows(name: str, schema: Schema) -> Iterator[tuple[str, str, str]]:
    yield f"`{name}`", _takes(schema), _in_a_cell(schema["description"])
    for key, inner in _inner(schema).items():
        yield from _rows(f"{name}.{key}", inner)


def _rows_of_batches() -> Iterator[tuple[str, str, str]]:
    for name, schema in properties_of(BatchSettings).items():
        yield f"`{name}`", _takes(schema), _in_a_cell(schema["description"])


def _inner(schema: Schema) -> Mapping[str, Schema]:
    ways = [schema, *schema.get("anyOf", ()), schema.get("items", {})]
    return next((way["properties"] for way in ways if "properties" in way), {})


def _in_a_cell(text: str) -> str:
    # A bar ends a cell, and two underscores make bold letters.
    return text.replace("|", r"\|").replace("__", r"\_\_")


def _takes(schema: Schema) -> str:
    ways = schema.get("anyOf", (schema,))
    said = " or ".join(filter(None, map(_way, ways)))
    default = schema.get("default")
    return f"{said}; `{_written(default)}` where it is left out" if default not in (None, []) else said


def _way(schema: Schema) -> str:
    values = [value for value in schema.get("enum", [schema.get("const")]) if value is not None]
    if values:
        return " ".join(f"`{_written(value)}`" for value in values)
    given = schema.get("type", [])
    kinds = [given] if isinstance(given, str) else given
    return " or ".join(_KINDS[kind](schema) for kind in kinds if kind != "null")


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(kind: str) -> Callable[[Schema], str]:
    def said(schema: Schema) -> str:
        if "exclusiveMaximum" in schema:
            return f"{kind} above {schema['exclusiveMinimum']} and below {schema['exclusiveMaximum']}"
        if "exclusiveMinimum" in schema:
            return f"{kind} above {schema['exclusiveMinimum']}, up to {schema['maximum']:,}"
        return f"{kind}, {schema['minimum']} to {schema['maximum']:,}"

    return said


def _text(schema: Schema) -> str:
    longest = schema.get("maxLength", 0)
    if "pattern" in schema and "plain path" in schema.get("errorMessage", ""):
        return "a path"
    if "moment" in schema.get("errorMessage", ""):
        return "a moment"
    return f"a text of up to {longest:,} characters" if longest > _MANY_CHARACTERS else "a text"


def _list(schema: Schema) -> str:
    most = f" of at most {schema['maxItems']:,}" if "maxItems" in schema else ""
    return f"a list{most}"


_KINDS: Mapping[str, Callable[[Schema], str]] = MappingProxyType(
    {
        "integer": _number("a whole number"),
        "number": _number("a number"),
        "string": _text,
        "boolean": lambda _: "`true` `false`",
        "array": _list,
        "object": lambda _: "a table",
    }
)
_TABLES: Mapping[str, Callable[[], str]] = MappingProxyType({"sizes": _sizes, "presets": _presets, "keys": _keys})
