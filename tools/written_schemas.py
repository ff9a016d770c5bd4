"""JSON Schemas of what the daemon writes, results and the status. Every key is there, also where it is null."""

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core.core_schema import DataclassField, ModelField, TypedDictField

from qwen_image_daemon.jobs.models import MODELS
from qwen_image_daemon.outbox.results import JobResult

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PYTHONS_NULL = re.compile(r"\bNone\b")


class EveryKey(GenerateJsonSchema):
    """pydantic's generator, for models that are written with all of their fields."""

    def field_is_required(self, field: ModelField | DataclassField | TypedDictField, total: bool) -> bool:  # noqa: FBT001
        """Want every field in what is written; in what is read, those without a default."""
        return self.mode == "serialization" or super().field_is_required(field, total)


def definitions_of(read: tuple[type[BaseModel], ...], written: tuple[type[BaseModel], ...]) -> dict[str, Schema]:
    """Give the schemas of models and of all within them, by name.

    One that is both read and written has a form for each: `Output-Input` and `Output-Output`.
    """
    _, whole = models_json_schema(
        [*((model, "validation") for model in read), *((model, "serialization") for model in written)],
        schema_generator=EveryKey,
    )
    definitions: dict[str, Schema] = whole["$defs"]
    return {name: _in_words_of_json(schema) for name, schema in definitions.items()}


def _in_words_of_json(schema: Any) -> Any:
    match schema:
        case dict():
            return {key: _in_words_of_json(value) for key, value in schema.items()}
        case list():
            return [_in_words_of_json(item) for item in schema]
        case str():
            return _PYTHONS_NULL.sub("null", schema)
        case _:
            return schema


def written_schema(model: type[BaseModel]) -> Schema:
    """Give the schema of a file that is a model written as JSON."""
    return {
        "$schema": DIALECT,
        **_in_words_of_json(model.model_json_schema(mode="serialization", schema_generator=EveryKey)),
    }


def result_schema() -> Schema:
    """Give the schema of `result.json`, which holds the job as its author wrote it, and the task."""
    definitions = definitions_of(tuple(MODELS.values()), (JobResult,))
    schema = definitions.pop("JobResult")
    for model in MODELS.values():
        definitions[model.__name__].setdefault("required", []).append("task")
    schema["properties"]["requested"] = {
        "description": schema["properties"]["requested"].get(
            "description", JobResult.model_fields["requested"].description
        ),
        "anyOf": [*({"$ref": f"#/$defs/{model.__name__}"} for model in MODELS.values()), {"type": "null"}],
    }
    return {"$schema": DIALECT, **schema, "$defs": definitions}
