"""The JSON Schema of a job file, for editors and for programs that write jobs."""

from typing import Any

from qwen_image_daemon.jobs.batch_schema import BATCH, batch_definitions
from qwen_image_daemon.jobs.checking import SCHEMA_KEY
from qwen_image_daemon.jobs.models import JOB_SPEC

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """Describe every document that is read as a job; `task` may be left out, as it may be in a file.

    What the settings must be to each other, and the narrower limits of a model, only the reader knows: a document
    that it accepts is valid here, but not every valid one is accepted.
    """
    schema = JOB_SPEC.json_schema()
    # The task decides only where it is given; elsewhere what a job names does, and one picture can mean several.
    del schema["discriminator"]
    schema["anyOf"] = schema.pop("oneOf")
    for job in schema["$defs"].values():
        job["properties"] = {name: _without_title(setting) for name, setting in job["properties"].items()}
        if "task" in job["properties"]:
            job["properties"][SCHEMA_KEY] = {"type": "string", "description": "This schema, for editors."}
    jobs = [job for job in schema["$defs"].values() if "task" in job["properties"]]
    schema["$defs"] |= batch_definitions(jobs)
    schema["anyOf"].append({"$ref": f"#/$defs/{BATCH}"})
    return {
        "$schema": DIALECT,
        "title": "A job for qwen-image-daemon",
        "description": "What a file dropped into the inbox may ask for, written as TOML or as JSON.",
        **schema,
    }


def _without_title(setting: dict[str, Any]) -> dict[str, Any]:
    # pydantic's titles only repeat the names.
    return {key: value for key, value in setting.items() if key != "title"}
