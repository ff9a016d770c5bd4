#!/usr/bin/env python3
"""Write what is made of the models in the code: the settings file, the JSON Schemas, the tables of `docs/jobs.md`.

`--check` writes nothing, and ends with 1 where a file is not what it would be.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qwen_image_daemon.jobs.schema import job_schema, recipe_schema
from qwen_image_daemon.jobs.styles import STYLES
from qwen_image_daemon.outbox.status import DaemonStatus
from qwen_image_daemon.settings import ControlNetSettings, LoraSettings, ModelSettings, Settings, StyleSettings
from reference_tables import with_fresh_tables
from written_schemas import result_schema, written_schema

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "config"
DOCUMENT = REPOSITORY / "docs" / "jobs.md"
WIDTH = 110
EXAMPLES: dict[str, tuple[type[BaseModel], str, str, dict[str, Any]]] = {
    "styles": (
        StyleSettings,
        "watercolour",
        f" Ours are: {', '.join(STYLES)}.",
        {"en": "A watercolour of {prompt}, soft washes", "zh": "{prompt}，水彩画，柔和晕染"},  # noqa: RUF001
    ),
    "loras": (
        LoraSettings,
        "lightning",
        "",
        {"file": "Qwen-Image-Lightning-8steps-V2.0.safetensors", "distilled_steps": 8, "family": "qwen-image"},
    ),
    "controlnets": (
        ControlNetSettings,
        "union",
        "",
        {
            "family": "qwen-image",
            "source": "InstantX/Qwen-Image-ControlNet-Union",
            "revision": "main",
            "checksums": "/etc/qwen-image-daemon/union.sha256",
            "kind": "union",
        },
    ),
}
"""Tables that are empty by default: the model of an entry, a name, what else is to be said, and example values."""

HEAD = """\
Settings of qwen-image-daemon. Every key is here with its default: change a value, or delete what you do not need.
Environment variables win over this file: QWEN_IMAGE_DAEMON_ROOT for root, and two underscores between table and
key, as in QWEN_IMAGE_DAEMON_INBOX__SETTLE_SECONDS=5. Arguments win over both.
Written by tools/make_config_files.py: change the docstrings in settings.py instead of the comments here."""


def settings_file() -> str:
    """Give the text of `config/daemon.toml`."""
    blocks = [_comment(HEAD) + "\n"]
    tables: list[tuple[str, BaseModel]] = []
    for key, field in Settings.model_fields.items():
        value = field.get_default(call_default_factory=True, validated_data={})
        if key == "models":
            tables += [(f"models.{name}", model) for name, model in value.items()]
        elif key in EXAMPLES:
            blocks.append(_example_entry(key))
        elif isinstance(value, BaseModel):
            tables.append((key, value))
        else:
            blocks.append(_entry(key, field, value))
    for header, table in tables:
        blocks += _table(header, table)
    return "\n".join(blocks) + "\n"


def _table(header: str, table: BaseModel) -> Iterator[str]:
    """Give the blocks of a table, and then those of the tables in it."""
    more = " Add as many tables [models.NAME] as are needed." if isinstance(table, ModelSettings) else ""
    yield f"\n{_comment((type(table).__doc__ or '') + more)}\n[{header}]"
    values = {key: (field, getattr(table, key)) for key, field in type(table).model_fields.items()}
    inner = {key: value for key, (_, value) in values.items() if isinstance(value, BaseModel)}
    yield from (_entry(key, field, value) for key, (field, value) in values.items() if key not in inner)
    for key, value in inner.items():
        yield from _table(f"{header}.{key}", value)


def _example_entry(table: str) -> str:
    """Show, commented out, what an entry of one's own looks like."""
    model, name, more, example = EXAMPLES[table]
    lines = [
        f"{_comment(field.description or '')}\n# {key} = {_toml(example[key])}"
        for key, field in model.model_fields.items()
    ]
    what = f"{model.__doc__}{more} Add as many tables [{table}.NAME] as are needed."
    return "\n".join([f"\n{_comment(what)}", f"# [{table}.{name}]", *lines])


def _entry(key: str, field: FieldInfo, value: Any) -> str:
    line = f'# {key} = ""' if value is None else f"{key} = {_toml(value)}"
    return f"{_comment(field.description or '')}\n{line}"


def _toml(value: Any) -> str:
    # Strings, numbers, booleans and arrays of them are written alike in JSON and TOML.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _comment(text: str) -> str:
    lines = textwrap.wrap(" ".join(text.split()), WIDTH - 2, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines)


def schema_text(schema: dict[str, Any]) -> str:
    """Give a JSON Schema as the text of its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def config_files() -> Iterator[tuple[Path, str]]:
    """Give every generated file with the text it must have."""
    yield CONFIG / "daemon.toml", settings_file()
    yield CONFIG / "job.schema.json", schema_text(job_schema())
    yield CONFIG / "recipe.schema.json", schema_text(recipe_schema())
    yield CONFIG / "result.schema.json", schema_text(result_schema())
    yield DOCUMENT, with_fresh_tables(DOCUMENT.read_text(encoding="utf-8"))
    yield CONFIG / "status.schema.json", schema_text(written_schema(DaemonStatus))


def main() -> int:
    """Write or check all files, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say which files are not fresh")
    check = parser.parse_args().check
    stale = [
        path for path, text in config_files() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in config_files():
        if path in stale:
            print(f"{path.name}: {'not fresh; run make config' if check else 'written'}")
            if not check:
                path.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
