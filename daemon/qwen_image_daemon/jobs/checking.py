"""Checking a document as a job: each setting by itself, then all that are fine together. Knows no file."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.complaints import JobModel, faults_of, setting_meant_by, settings_meant_by
from qwen_image_daemon.jobs.models import AnyJob, ImageToImageJob, Task, TextToImageJob, with_task
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import quoted
from qwen_image_daemon.jobs.rules import Settings, faults_between

SCHEMA_KEY = "$schema"
"""Where editors look for the JSON Schema of a file. Says nothing about the job."""
MAX_ERRORS = 200
"""How many errors are put into words. Searching for similar words is slow, and no misspelt job has more."""
TASKS: tuple[Task, ...] = get_args(Task)


def check(document: Mapping[str, Any], catalogue: Catalogue) -> AnyJob | tuple[Fault, ...]:
    """Give the job that a document describes, or everything that is wrong with it (never empty)."""
    values = dict(document)
    faults = [*_pop_schema_key(values), *_pop_unknown_task(values)]
    model = _model_for(values)
    errors: list[ErrorDetails] = []
    job: AnyJob | None = None
    try:
        job = model.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    first_errors = errors[:MAX_ERRORS]
    refused = frozenset(error["loc"] for error in errors) | settings_meant_by(first_errors)
    faults += faults_of(first_errors, model)
    faults += faults_between(Settings(_fine(values, model, refused), refused), catalogue)
    return job if job is not None and not faults else tuple(faults)


def _pop_schema_key(values: dict[str, Any]) -> list[Fault]:
    named = values.pop(SCHEMA_KEY, "")
    if isinstance(named, str):
        return []
    return [Fault((SCHEMA_KEY,), f"{quoted(named)} is no address of a schema.", "Take it out.")]


def _pop_unknown_task(values: dict[str, Any]) -> list[Fault]:
    """Take out a task that does not exist, so that the rest is checked as if none were given."""
    if "task" not in values or (isinstance(values["task"], str) and values["task"] in TASKS):
        return []
    what = f"{quoted(values.pop('task'))} is no task."
    return [Fault(("task",), what, f"Use {' or '.join(quoted(task) for task in TASKS)}, or leave it out.")]


def _model_for(values: Mapping[str, Any]) -> JobModel:
    """Choose by the task; where none is given, a job that names an image, under whatever word, redraws it."""
    unknown = [key for key in values if key not in ImageToImageJob.model_fields][:MAX_ERRORS]
    misnamed = any(setting_meant_by((key,)) == ("image",) for key in unknown)
    task = with_task({**values, "image": None} if misnamed else dict(values))["task"]
    return ImageToImageJob if task == "image-to-image" else TextToImageJob


def _fine(values: Mapping[str, Any], model: JobModel, refused: frozenset[KeyPath]) -> dict[str, Any]:
    """Give the settings that are fine by themselves."""
    # An entry of a list spoils its list; of a table, the others are still looked at.
    spoilt = {path[0] for path in refused if len(path) == 1 or isinstance(path[1], int)}
    fine = {key: value for key, value in values.items() if key in model.model_fields and key not in spoilt}
    if "output" in fine:
        fine["output"] = {key: value for key, value in fine["output"].items() if ("output", key) not in refused}
    return fine
