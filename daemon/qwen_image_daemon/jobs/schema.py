"""The JSON Schemas of job files and recipes: for editors, and for programs that write jobs.

One flat table of all settings, and conditions (`if`, `then`) upon what the task makes of them. The other way, a
choice (`anyOf`) of one schema for each task, is what pydantic writes, and it is useless in an editor: where a job
fits none of them, taplo and VS Code can only say that, and lay it on the whole file. With a flat table both offer
every setting from the first key on, show its description, and underline the one value that is wrong.

The dialect is draft-07: VS Code promises whole support for it and not for later ones, and taplo passes over
`dependentSchemas` without a word.

What the settings must be to each other is said here as far as a schema can; the rest, and all that depends on the
daemon's models, only the reader knows. What the reader accepts is valid here, with two exceptions: bad jobs in a
file that wants them skipped, and prompts with choices that are longer than any prompt that they make.
"""

from collections.abc import Collection, Mapping
from typing import Final

from qwen_image_daemon.jobs.batch_settings import BATCH_KEYS, COMBINE, OF_THE_FILE, BatchSettings
from qwen_image_daemon.jobs.checking import SCHEMA_KEY
from qwen_image_daemon.jobs.prompt_lists import LIST_SUFFIXES
from qwen_image_daemon.jobs.reading import NOT_IN_RECIPES
from qwen_image_daemon.jobs.schema_rules import (
    PROMPTED_JOB,
    PROMPTED_RECIPE,
    TOGETHER,
    VALUES,
    by_task_of_a_job,
    by_task_of_a_recipe,
    definitions_of_jobs,
    definitions_of_recipes,
    either,
    given,
    has,
    nothing,
    when,
    without,
)
from qwen_image_daemon.jobs.schema_settings import (
    UNKNOWN,
    Schema,
    plain_path,
    properties_of,
    refusal,
    setting_definitions,
    words_of_other_programs,
)
from qwen_image_daemon.jobs.wildcards import WILDCARD_NAME

DIALECT: Final = "http://json-schema.org/draft-07/schema#"


def job_schema() -> Schema:
    """Describe every document that is read as a job or as many; `task` may be left out, as it may be in a file."""
    return {
        "$schema": DIALECT,
        "title": "A job for qwen-image-daemon",
        "description": "What a file dropped into the inbox may ask for, written as TOML or as JSON.",
        **_file({}),
        "definitions": {**_definitions({}, PROMPTED_JOB, by_task_of_a_job()), **definitions_of_jobs()},
    }


def recipe_schema() -> Schema:
    """Describe every document that is read as a recipe: a job, or many, without its picture."""
    refused = {
        **{key: refusal(f"{what[0].upper()}{what[1:]} {cure}") for key, (what, cure) in NOT_IN_RECIPES.items()},
        "images": nothing("A recipe reads one picture: the one that is dropped beside it."),
    }
    return {
        "$schema": DIALECT,
        "title": "A recipe for qwen-image-daemon",
        "description": "What is to be done with each picture that is dropped into this file's folder. {file} and"
        " {folder}, in prompt, negative_prompt, name and output.name, stand for its name and folder.",
        **_file(refused),
        "definitions": {
            **_definitions(refused, PROMPTED_RECIPE, by_task_of_a_recipe()),
            **definitions_of_recipes(),
        },
    }


def _file(refused: Mapping[str, Schema]) -> Schema:
    """Describe what may stand at the top of a file."""
    settings = _settings(refused)
    table = _table(settings, refused)
    return {
        "type": "object",
        **table,
        "properties": {**table["properties"], **_batch_properties(settings, refused)},
        "allOf": [*TOGETHER, *_OF_THE_FILE, _one_job_or_many(settings)],
        "dependencies": _swept(settings),
    }


def _definitions(refused: Mapping[str, Schema], *rules: Schema) -> dict[str, Schema]:
    """Give what is referred to: each setting, the settings of one of many jobs, and the rules of one whole job."""
    settings = _settings(refused)
    table = _table(settings, refused)
    of_the_file = {f"^({'|'.join(BATCH_KEYS)})$": refusal("It belongs to the top of the file.")}
    return {
        **settings,
        "settings": {**table, "patternProperties": {**table["patternProperties"], **of_the_file}},
        "job": {"allOf": [*VALUES, *rules]},
    }


def _settings(refused: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: schema for name, schema in setting_definitions().items() if name not in refused}


def _table(settings: Mapping[str, Schema], refused: Mapping[str, Schema]) -> Schema:
    return {
        "properties": {
            SCHEMA_KEY: {"type": "string", "description": "This schema, for editors. Says nothing about the job."},
            **{name: _reference(name) for name in settings},
        },
        "patternProperties": {
            **{f"^{key}$": schema for key, schema in refused.items()},
            **words_of_other_programs({*settings, *BATCH_KEYS}),
        },
        "additionalProperties": refusal(UNKNOWN),
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _batch_properties(settings: Mapping[str, Schema], refused: Mapping[str, Schema]) -> dict[str, Schema]:
    """Give the keys that make one file many jobs: their words are the model's, their tables are the jobs'."""
    found = properties_of(BatchSettings)
    found["defaults"] = {**found["defaults"], "allOf": [_reference("settings")]}
    found["jobs"] = {
        **found["jobs"],
        "items": {**found["jobs"]["items"], "allOf": [_reference("settings"), *TOGETHER]},
    }
    found["matrix"] |= _matrix(settings, refused)
    found["wildcards"]["propertyNames"] = {"pattern": f"^{WILDCARD_NAME.pattern}$".replace("(?:", "(")}
    found["prompts_from"] |= plain_path("A list", LIST_SUFFIXES)
    return found


def _matrix(settings: Mapping[str, Schema], refused: Mapping[str, Schema]) -> Schema:
    """Give the table of a sweep: for each setting a list of values; for a table, one for each setting in it."""
    columns: dict[str, Schema] = {}
    for name, schema in settings.items():
        columns[name] = _values(_reference(name), schema)
        for inner, inner_schema in _inner(schema).items():
            values = _values(inner_schema, inner_schema)
            # In one word too, as editors and CSV files write it.
            columns[f"{name}.{inner}"] = values
            columns[name]["type"] = ["array", "object"]
            columns[name].setdefault("properties", {})[inner] = values
            columns[name]["additionalProperties"] = refusal(UNKNOWN)
    combine = {"enum": ["product", "zip"], "default": "product", "description": "Each with each, or in step."}
    return {
        "properties": {COMBINE: combine, **columns},
        "patternProperties": {f"^{key}$": schema for key, schema in refused.items()},
        "additionalProperties": refusal(UNKNOWN),
    }


def _swept(settings: Mapping[str, Schema]) -> dict[str, Schema]:
    """Refuse in the matrix what is set outside of it. Of a table of settings some may be here and some there."""
    twice = refusal("It stands outside of [matrix] too.")
    return {
        name: {"properties": {"matrix": {"properties": {name: twice}}}}
        for name, schema in settings.items()
        if not _inner(schema)
    }


def _inner(schema: Schema) -> dict[str, Schema]:
    ways = [schema, *schema.get("anyOf", ())]
    return next((way["properties"] for way in ways if "properties" in way), {})


def _values(items: Schema, described: Schema) -> Schema:
    what = f"Values, each for a job of its own. {described.get('description', '')}"
    return {"type": "array", "minItems": 1, "items": items, "description": what}


def _one_job_or_many(settings: Collection[str]) -> Schema:
    """Hold the rules of a job against each table that is one whole job."""
    elsewhere = refusal("In a file with [[jobs]] it belongs below [defaults] or into one of the jobs.")
    of_jobs = [name for name in settings if name not in OF_THE_FILE]
    listed = {
        "properties": dict.fromkeys(of_jobs, elsewhere),
        "allOf": [
            without("It excludes [[jobs]].", "prompts", "prompts_from"),
            when(
                {"not": either("defaults", "matrix")},
                {"properties": {"jobs": {"items": _reference("job")}}},
            ),
        ],
    }
    single = when({"not": either("matrix", "prompts", "prompts_from")}, _reference("job"))
    return when(given("jobs"), listed, single)


_OF_THE_FILE: Final[tuple[Schema, ...]] = (
    when(given("defaults"), given("jobs")),
    when(given("prompts"), without("It excludes prompts.", "prompts_from")),
    when(given("prompts"), {"properties": {"prompt": refusal("The prompts are listed already.")}}),
    when(either("num_prompts", "wildcards"), given("expand")),
    when(has("expand", "all"), without('It is for expand = "random".', "num_prompts")),
)
"""What the keys of a file with many jobs must be to each other."""
