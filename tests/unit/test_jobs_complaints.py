from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from qwen_image_daemon.jobs.complaints import SENTENCES, faults_of
from qwen_image_daemon.jobs.hints import EXPLAINED, RENAMED
from qwen_image_daemon.jobs.models import MODELS, SETTINGS, ImageToImageJob, Output

# pydantic's core schemas: by the type of a node, and by each limit that a node can carry.
ERRORS_OF_TYPE = {
    "model": {"model_type"},
    "model-fields": {"extra_forbidden", "missing"},
    "model-field": set(),
    "nullable": set(),
    "default": set(),
    "str": {"string_type"},
    "int": {"int_type"},
    "float": {"float_type"},
    "literal": {"literal_error"},
    "tuple": {"tuple_type"},
    "bool": {"bool_type"},
    "datetime": {"datetime_type"},
    "function-before": set(),
    "definitions": set(),
    "definition-ref": set(),
}
ERRORS_OF_LIMIT = {
    "min_length": {"string_too_short"},
    "max_length": {"string_too_long"},
    "ge": {"greater_than_equal"},
    "gt": {"greater_than"},
    "le": {"less_than_equal"},
    "lt": {"less_than"},
    "tz_constraint": {"timezone_aware"},
    "allow_inf_nan": {"finite_number"},
}
HARMLESS = {
    "type", "cls", "config", "root_model", "strict", "expected", "default", "metadata", "ref", "model_name",
    "computed_fields", "custom_init", "serialization", "extra_behavior", "frozen", "post_init",
    "variadic_item_index", "schema_ref", "function", "json_schema_input_schema", "microseconds_precision",
}  # fmt: skip


def possible_errors(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from ERRORS_OF_TYPE[schema["type"]]
    for key, value in schema.items():
        if schema["type"] == "tuple" and key in {"min_length", "max_length"}:
            yield "too_short" if key == "min_length" else "too_long"
        elif key in {"items_schema", "definitions"}:
            for item in value:
                yield from possible_errors(item)
        elif key in ERRORS_OF_LIMIT:
            yield from ERRORS_OF_LIMIT[key]
        elif key == "schema":
            yield from possible_errors(value)
        elif key == "fields":
            for field in value.values():
                yield from possible_errors(field)
        else:
            assert key in HARMLESS, f"nothing is known of {key}: which errors can it give?"


def test_there_is_a_sentence_of_ours_for_every_error_that_the_models_can_give_and_for_no_other() -> None:
    errors = {error for model in MODELS.values() for error in possible_errors(model.__pydantic_core_schema__)}
    assert errors == set(SENTENCES)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": "", "image": "x" * 2000, "xyzzy": 1, "output": 5, "strength": 0.0, "end": 0, "num_images": 0},
        {"prompt": None, "image": [], "seed": 1.5, "true_cfg_scale": float("nan"), "strength": 2, "name": {}},
        {"prompt": "x", "image": "x", "true_cfg_scale": "x", "output": {"format": None, "quality": 101, "x": 1}},
        {"prompt": "x", "image": "x", "tags": 5},
        {"prompt": "x", "image": "x", "tags": [5, "", "x" * 81]},
        {"prompt": "x", "image": "x", "tags": ["x"] * 33},
        {"prompt": "x", "image": "x", "loras": ["", 5, {"weight": 9}, {"name": "x", "x": 1}], "scheduler": 5},
        {"prompt": "x", "image": "x", "scheduler": {"name": "x", "shift": 0, "shift_terminal": 1, "x": 1}},
        {"prompt": "x", "image": "x", "strict": 1, "not_before": "soon", "fit": "stretch", "on_exists": "x"},
    ],
)
def test_none_of_pydantics_own_words_are_passed_on(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        ImageToImageJob.model_validate(document)
    errors = caught.value.errors()
    faults = faults_of(errors, ImageToImageJob)
    assert len(faults) == len(errors)
    for error, fault in zip(errors, faults, strict=True):
        assert fault.path == error["loc"]
        assert error["msg"] not in fault.what + fault.fix
        assert "Input" not in fault.what + fault.fix


def test_every_hint_leads_to_a_setting_that_exists() -> None:
    settings = {*SETTINGS, *(f"output.{name}" for name in Output.model_fields)}
    assert set(RENAMED.values()) <= settings
    assert not settings & (RENAMED.keys() | EXPLAINED.keys())
