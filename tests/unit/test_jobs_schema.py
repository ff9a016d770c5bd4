import json
from pathlib import Path

import jsonschema
import pytest
import tomli

from qwen_image_daemon.jobs.models import MODELS, TABLES
from qwen_image_daemon.jobs.schema import job_schema

EXAMPLES = Path(__file__).parents[2] / "jobs_example"


def test_the_schema_is_a_valid_one_of_its_draft() -> None:
    schema = job_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[0-9]*.*")), ids=lambda path: path.name)
def test_every_example_fits_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig")
    document = tomli.loads(text) if path.suffix == ".toml" else json.loads(text)
    # An editor hands TOML's moments to the schema as texts.
    jsonschema.validate(json.loads(json.dumps(document, default=str)), job_schema())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": "x", "guidance_scale": 3},
        {"prompt": "x", "strength": 0.5},
        {"prompt": "x", "image": "a.png", "images": ["a.png", "b.png"]},
        {"prompt": "x", "image": "a.png", "resolution": 512},
        {"prompt": "x", "loras": [{"weight": 1}]},
        {"prompt": "x", "scheduler": "heun"},
        {"prompt": "x", "task": "text-to-image", "image": "a.png"},
        {"prompt": "x", "task": "image-to-image"},
        {"prompt": "x", "width": 1465, "height": 1024},
        {"prompt": "x", "num_inference_steps": 1},
        {"prompt": "x", "end": 1},
        {"prompt": "x", "output": {"format": "gif"}},
    ],
)
def test_an_editor_can_show_common_mistakes(document: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, job_schema())


def test_every_setting_is_described_for_the_editor() -> None:
    definitions = job_schema()["$defs"]
    for model in (*MODELS.values(), *TABLES.values()):
        for name in model.model_fields:
            assert definitions[model.__name__]["properties"][name]["description"]
