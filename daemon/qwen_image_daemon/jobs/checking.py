"""Checking a document as a job: each setting by itself, then all that are fine together. Knows no file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.complaints import faults_of, setting_meant_by, settings_meant_by
from qwen_image_daemon.jobs.hints import task_meant
from qwen_image_daemon.jobs.inference import task_of
from qwen_image_daemon.jobs.job_settings import Settings
from qwen_image_daemon.jobs.models import MODELS, SETTINGS, AnyJob, JobModel
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import quoted
from qwen_image_daemon.jobs.rules import faults_between
from qwen_image_daemon.jobs.tasks import TASKS, Task

SCHEMA_KEY = "$schema"
"""Where editors look for the JSON Schema of a file. Says nothing about the job."""
MAX_ERRORS = 200
"""How many errors are put into words. Searching for similar words is slow, and no misspelt job has more."""


def check(document: Mapping[str, Any], catalogue: Catalogue) -> AnyJob | tuple[Fault, ...]:
    """Give the job that a document describes, or everything that is wrong with it (never empty)."""
    values = dict(document)
    faults = [*_pop_schema_key(values), *_pop_unknown_task(values)]
    task = _task_of(values, catalogue)
    model = MODELS[task]
    errors: list[ErrorDetails] = []
    job: AnyJob | None = None
    try:
        job = model.model_validate(values)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    first_errors = errors[:MAX_ERRORS]
    places = frozenset(_as_written(error["loc"], values) for error in errors)
    refused = places | settings_meant_by(first_errors)
    faults += (replace(fault, path=_as_written(fault.path, values)) for fault in faults_of(first_errors, model))
    faults += faults_between(Settings(_fine(values, model, refused), task, refused), catalogue)
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
    word = values.pop("task")
    meant = task_meant(word) if isinstance(word, str) else None
    hint = f"Did you mean {quoted(meant)}? " if meant is not None else ""
    *most, last = (quoted(task) for task in TASKS)
    return [
        Fault(("task",), f"{quoted(word)} is no task.", f"{hint}Use {', '.join(most)} or {last}, or leave it out.")
    ]


def _task_of(values: Mapping[str, Any], catalogue: Catalogue) -> Task:
    """Give the task that a job states, or that its settings tell, under whatever words."""
    if "task" in values:
        task: Task = values["task"]
        return task
    # JSON's null is a setting left out.
    given = [str(key) for key, value in values.items() if value is not None]
    unknown = [key for key in given if key not in SETTINGS][:MAX_ERRORS]
    meant = {setting[0] for key in unknown if (setting := setting_meant_by((key,))) is not None}
    named = values.get("model")
    known = named if isinstance(named, str) and named in catalogue.families else None
    return task_of({*given, *map(str, meant)}, catalogue.family_of(known))


def _as_written(path: KeyPath, values: Mapping[str, Any]) -> KeyPath:
    """Give the place that the author wrote: what is wrong with a name is, where it stands for a table."""
    place: Any = values
    for length, part in enumerate(path):
        if not isinstance(place, dict | list):
            return path[:length]
        place = place.get(part) if isinstance(place, dict) else place[int(part)]
    return path


def _fine(values: Mapping[str, Any], model: JobModel, refused: frozenset[KeyPath]) -> dict[str, Any]:
    """Give the settings that are fine by themselves."""
    # An entry of a list spoils its list, and of most tables its table; of output, the others are still looked at.
    spoilt = {path[0] for path in refused if len(path) == 1 or path[0] != "output"}
    fine = {key: value for key, value in values.items() if key in model.model_fields and key not in spoilt}
    if "output" in fine:
        fine["output"] = {key: value for key, value in fine["output"].items() if ("output", key) not in refused}
    return fine
