"""The schemas of jobs and recipes, and what they have to do with the reader."""

import json
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_catalogue import EVERYTHING
from qwen_image_daemon.jobs.batch_settings import BatchSettings
from qwen_image_daemon.jobs.batches import PromptList, WantsList
from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.jobs.inference import task_of
from qwen_image_daemon.jobs.models import MODELS, SETTINGS, TABLES
from qwen_image_daemon.jobs.problems import Rejection
from qwen_image_daemon.jobs.reading import read_drop, read_recipe
from qwen_image_daemon.jobs.recipes import RecipePicture
from qwen_image_daemon.jobs.schema import job_schema, recipe_schema
from qwen_image_daemon.jobs.schema_rules import TELLING

EXAMPLES = Path(__file__).parents[2] / "jobs_example"
SCHEMA = job_schema()
JOB = jsonschema.Draft7Validator(SCHEMA)
RECIPE = jsonschema.Draft7Validator(recipe_schema())


@pytest.mark.parametrize("validator", [JOB, RECIPE], ids=["job", "recipe"])
def test_the_schemas_are_valid_ones_of_their_draft(validator: jsonschema.Draft7Validator) -> None:
    assert validator.schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert validator.schema["title"]
    jsonschema.Draft7Validator.check_schema(validator.schema)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[0-9]*.*")), ids=lambda path: path.name)
def test_every_example_fits_the_schema(path: Path) -> None:
    if path.suffix in {".toml", ".json"}:
        text = path.read_text(encoding="utf-8-sig")
        document = tomli.loads(text) if path.suffix == ".toml" else json.loads(text)
        # An editor hands TOML's moments to the schema as texts.
        JOB.validate(json.loads(json.dumps(document, default=str)))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": " "},
        {"prompt": "x", "guidance_scale": 3},
        {"prompt": "x", "strength": 0.5},
        {"prompt": "x", "image": "a.png", "images": ["a.png", "b.png"]},
        {"prompt": "x", "image": "a.png", "resolution": 512},
        {"prompt": "x", "image": "../a.png"},
        {"prompt": "x", "mask": "mask.png"},
        {"prompt": "x", "loras": [{"weight": 1}]},
        {"prompt": "x", "loras": [{"name": "a", "weight": 0}]},
        {"prompt": "x", "scheduler": "heun"},
        {"prompt": "x", "scheduler": "unipc", "image": "a.png"},
        {"prompt": "x", "scheduler": {"name": "lightning", "shift": 2.0}},
        {"prompt": "x", "task": "text-to-image", "image": "a.png"},
        {"prompt": "x", "task": "image-to-image"},
        {"prompt": "x", "task": "edit"},
        {"prompt": "x", "width": 1465, "height": 1024},
        {"prompt": "x", "width": 1024},
        {"prompt": "x", "width": 1024, "height": 1024, "aspect_ratio": "1:1"},
        {"prompt": "x", "num_inference_steps": 1},
        {"prompt": "x", "not_before": "2026-12-24T20:00:00"},
        {"prompt": "x", "true_cfg_scale": 1.0, "negative_prompt": "y"},
        {"prompt": "x", "end": 1},
        {"prompt": "x", "output": {"format": "gif"}},
        {"prompt": "x", "output": {"quality": 3}},
        {"prompt": "x", "jobs": [{"prompt": "y"}]},
        {"jobs": []},
        {"jobs": [{"seed": 1}]},
        {"jobs": [{"prompt": "y", "matrix": {"seed": [1]}}]},
        {"defaults": {"seed": 1}},
        {"prompt": "x", "matrix": {"seed": 1}},
        {"prompt": "x", "matrix": {"seed": ["1"]}},
        {"prompt": "x", "matrix": {"combine": "both", "seed": [1]}},
        {"prompt": "x", "matrix": {"output": {"quality": [0]}}},
        {"prompt": "x", "prompts": ["y"]},
        {"prompts": ["y"], "prompts_from": "list.txt"},
        {"prompts_from": "list.doc"},
        {"prompt": "{a|b}", "num_prompts": 3},
        {"prompt": "{a|b}", "expand": "all", "num_prompts": 3},
        {"prompt": "__c_o__", "expand": "all", "wildcards": {"c__o": ["x"]}},
    ],
    ids=json.dumps,
)
def test_an_editor_can_show_common_mistakes(document: dict[str, object]) -> None:
    assert not JOB.is_valid(document)
    assert isinstance(read_drop(json.dumps(document).encode(), "a.json", EVERYTHING), Rejection)


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": "x", "image": "a.png"},
        {"prompt": "x", "id": "7"},
        {"prompt": "x", "matrix": {"image": ["a.png"]}},
        {"jobs": [{"prompt": "x", "id": "7"}]},
        {"strength": 0.4},
    ],
    ids=json.dumps,
)
def test_an_editor_can_show_common_mistakes_in_recipes(document: dict[str, object]) -> None:
    assert not RECIPE.is_valid(document)
    read = read_recipe(json.dumps(document).encode(), "recipe.json", EVERYTHING, RecipePicture("a.png", "a"))
    assert isinstance(read, Rejection)


def test_every_setting_is_described_for_the_editor() -> None:
    for name in SETTINGS:
        assert SCHEMA["definitions"][name]["description"], name
    for name, model in TABLES.items():
        described = json.dumps(SCHEMA["definitions"][name])
        assert all(f'"{key}": {{' in described for key in model.model_fields)
    for name in BatchSettings.model_fields:
        assert SCHEMA["properties"][name]["description"], name


def test_what_the_settings_tell_of_the_task_is_what_the_reader_concludes() -> None:
    keys = sorted(frozenset().union(*TELLING))
    for given_keys in map(frozenset, chain.from_iterable(combinations(keys, n) for n in range(len(keys) + 1))):
        telling = next((known for known in TELLING if known <= given_keys), frozenset[str]())
        for family in FAMILIES.values():
            assert task_of(given_keys, family) == task_of(telling, family)


def test_no_editor_is_left_with_a_choice_of_tables() -> None:
    def choices(schema: Any) -> list[list[Any]]:
        match schema:
            case dict():
                own = [schema["anyOf"]] if "anyOf" in schema else []
                return [*own, *(found for value in schema.values() for found in choices(value))]
            case list():
                return [found for item in schema for found in choices(item)]
            case _:
                return []

    for ways in choices(SCHEMA):
        assert sum("properties" in way and "required" not in way for way in ways) <= 1


# Whatever the reader accepts is valid.

PICTURES = st.sampled_from(["a.png", "b/c.JPG", "d.webp", "../x.png", "a.gif", "e/.f.png"])
PROMPTS = st.sampled_from(["x", "a {b|c} d", " ", ""])
LORAS = st.sampled_from(["faces", {"name": "faces", "weight": -0.5}, {"name": "faces", "weight": 0}, {"nme": "x"}])
SCHEDULERS: st.SearchStrategy[Any] = st.sampled_from(
    [
        "euler",
        "unipc",
        "lightning",
        "heun",
        {"name": "euler", "shift": 2.0, "sigmas": "karras"},
        {"name": "unipc", "solver_order": 2},
        {"name": "euler", "solver_order": 2},
        {"name": "lightning", "shift": 1.0},
    ]
)
MOMENTS = ["2026-12-24T20:00:00+01:00", "2026-12-24 20:00Z", "20261224T2000+0100", "2026-12-24T20:00", "tomorrow"]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "task": st.sampled_from([*MODELS, "upscale"]),
    "model": st.sampled_from(list(EVERYTHING.families)),
    "prompt": PROMPTS,
    "negative_prompt": st.sampled_from(["", "y"]),
    "style": st.just("photo"),
    "preset": st.just("fast"),
    "true_cfg_scale": st.sampled_from([1, 1.0, 4.0]),
    "num_inference_steps": st.sampled_from([1, 20]),
    "aspect_ratio": st.sampled_from(["1:1", "5:4"]),
    "width": st.sampled_from([512, 513]),
    "height": st.just(512),
    "size": st.just("source"),
    "fit": st.sampled_from(["pad", "scale"]),
    "image": PICTURES,
    "images": st.lists(PICTURES, max_size=2),
    "mask": PICTURES,
    "control_image": PICTURES,
    "controlnet": st.sampled_from(["union", "inpainting"]),
    "control_scale": st.sampled_from([1.0, 3]),
    "control_start": st.sampled_from([0, 0.9]),
    "control_end": st.just(0.8),
    "strength": st.sampled_from([0.5, 0, 1]),
    "preserve_unmasked": st.booleans(),
    "layers": st.sampled_from([3, 11]),
    "resolution": st.sampled_from([640, 512]),
    "loras": st.lists(LORAS, max_size=2),
    "scheduler": SCHEDULERS,
    "strict": st.booleans(),
    "not_before": st.sampled_from(MOMENTS),
    "num_images": st.sampled_from([1, 2]),
    "seed": st.sampled_from([1, -1]),
    "id": st.just("k"),
    "name": st.sampled_from(["n", " "]),
    "on_exists": st.sampled_from(["skip", "overwrite"]),
    "priority": st.sampled_from([-100, 101]),
    "timeout_seconds": st.sampled_from([0.5, 0]),
    "tags": st.lists(st.sampled_from(["a", " "]), max_size=2),
    "output": st.sampled_from([{}, {"format": "jpeg", "quality": 3}, {"quality": 3}, {"format": "gif"}]),
    "end": st.sampled_from([True, False, 1]),
    "steps": st.just(3),
    "$schema": st.just("job.schema.json"),
}


def few_of(values: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    names = st.lists(st.sampled_from(list(values)), max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: values[name] for name in chosen}))


def or_null(values: dict[str, st.SearchStrategy[Any]]) -> dict[str, st.SearchStrategy[Any]]:
    """Let JSON's null say, of any of the settings, that it is left out."""
    return {name: value | st.none() for name, value in values.items()}


def with_a_prompt(documents: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return documents | documents.map(lambda document: {**document, "prompt": "x"})


def lists_of(values: dict[str, st.SearchStrategy[Any]]) -> dict[str, st.SearchStrategy[Any]]:
    return {name: st.lists(value, max_size=2) for name, value in values.items()}


MATRICES = st.tuples(
    few_of({**lists_of(or_null(VALUES)), "output.format": st.just(["png", "webp"])}, 2),
    st.sampled_from([{}, {"combine": "zip"}, {"combine": "both"}, {"output": {"format": ["png"]}}]),
).map(lambda parts: {**parts[0], **parts[1]})
MANY: dict[str, st.SearchStrategy[Any]] = {
    "defaults": few_of(or_null(VALUES), 3),
    "jobs": st.lists(with_a_prompt(few_of(or_null(VALUES), 3)), max_size=2),
    "matrix": MATRICES,
    "prompts": st.lists(PROMPTS, max_size=2),
    "prompts_from": st.sampled_from(["list.csv", "list.txt", "list.doc"]),
    "expand": st.sampled_from(["all", "random", "none"]),
    "num_prompts": st.sampled_from([2, 0]),
    "wildcards": st.sampled_from([{"c": ["x"]}, {"c__d": ["x"]}, {"c": []}, {}]),
    # Not "skip": the schema finds fault with jobs that are left out, as it should.
    "on_invalid": st.sampled_from(["refuse", "ignore"]),
}
DOCUMENTS = with_a_prompt(few_of(or_null(VALUES), 6)) | st.tuples(
    with_a_prompt(few_of(or_null(VALUES), 4)), few_of(or_null(MANY), 3)
).map(lambda parts: {**parts[0], **parts[1]})
LISTS = {"list.txt": b"a\nb\n", "list.csv": b"prompt,aspect_ratio\na,1:1\nb,\n"}
PATIENTLY = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other things."""


@PATIENTLY
@given(DOCUMENTS)
def test_every_job_file_that_is_accepted_is_valid(document: dict[str, Any]) -> None:
    content = json.dumps(document).encode()
    read = read_drop(content, "a.json", EVERYTHING)
    if isinstance(read, WantsList):
        read = read_drop(content, "a.json", EVERYTHING, PromptList(read.name, LISTS[read.name]))
    if not isinstance(read, Rejection):
        JOB.validate(document)


@PATIENTLY
@given(DOCUMENTS)
def test_every_recipe_that_is_accepted_is_valid(document: dict[str, Any]) -> None:
    content, picture = json.dumps(document).encode(), RecipePicture("a.png", "a")
    read = read_recipe(content, "recipe.json", EVERYTHING, picture)
    if isinstance(read, WantsList):
        prompt_list = PromptList(read.name, LISTS[read.name])
        read = read_recipe(content, "recipe.json", EVERYTHING, picture, prompt_list)
    if not isinstance(read, Rejection):
        RECIPE.validate(document)


@PATIENTLY
@given(with_a_prompt(few_of({name: VALUES[name] for name in VALUES if name not in {"model", "style"}}, 3)))
def test_a_valid_job_of_few_settings_is_accepted_wherever_no_model_is_in_question(
    document: dict[str, Any],
) -> None:
    """The other way round, for what a schema can know: it lets hardly anything through that the reader refuses."""
    if not JOB.is_valid(document):
        return
    read = read_drop(json.dumps(document).encode(), "a.json", EVERYTHING)
    if isinstance(read, Rejection):
        said = str(read)
        assert any(known in said for known in ONLY_THE_READER_KNOWS), f"{document}: {said}"


ONLY_THE_READER_KNOWS = (
    "needs a source picture",  # what a mask alone means depends on the model
    "every job needs a prompt",  # so does what a picture alone means
    "and this one is image-to-image",  # and so does whose setting another one is then
    "the control picture would count",
    "is not for the family",
    "is named twice",
)
