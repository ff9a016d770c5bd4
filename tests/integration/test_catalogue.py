"""The catalogue of models says what diffusers really has: classes, arguments, sizes, and what they do not do."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import diffusers
import pytest
import transformers

from qwen_image_daemon.jobs.families import FAMILIES, FamilyName, Size
from qwen_image_daemon.jobs.source_sizes import layered_size
from qwen_image_daemon.render.models import MODELS, Pipeline, way_of

PIPELINES = [
    pytest.param(way, pipeline, id=f"{family}: {way}")
    for family, facts in MODELS.items()
    for way, pipeline in facts.pipelines.items()
]
ONLY_PIPELINES = sorted({pipeline for facts in MODELS.values() for pipeline in facts.pipelines.values()}, key=str)
REAL_FAMILIES = [family for family in get_args(FamilyName) if family != "demo"]


def arguments_of(pipeline: Pipeline) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(diffusers, pipeline.name).__call__).parameters)


def source_of(pipeline: Pipeline) -> str:
    return inspect.getsource(getattr(diffusers, pipeline.name).__call__)


def test_every_family_is_in_the_catalogue_with_all_its_tasks() -> None:
    assert set(MODELS) == set(FAMILIES) == set(get_args(FamilyName))
    for name, family in FAMILIES.items():
        ways = set(MODELS[name].pipelines)
        assert {way_of(task, masked=False) for task in family.tasks} <= ways
        assert family.edits_with_mask == ("masked edit" in ways)


@pytest.mark.parametrize(("way", "pipeline"), PIPELINES)
def test_a_pipeline_takes_the_arguments_that_it_is_given(way: str, pipeline: Pipeline) -> None:
    arguments = arguments_of(pipeline)
    assert set(pipeline.pictures) <= set(arguments)
    assert pipeline.has_strength == ("strength" in arguments)
    if pipeline.size_from == "request":
        assert {"width", "height"} <= set(arguments)
    assert ("control_image" in arguments) == ("controlnet" in way)
    # Guidance is what its name says, and what others call guidance_scale is ignored.
    assert "true_cfg_scale" in arguments


@pytest.mark.parametrize("pipeline", ONLY_PIPELINES, ids=lambda pipeline: pipeline.name)
def test_a_pipeline_that_scales_noise_says_so(pipeline: Pipeline) -> None:
    prepared = inspect.getsource(getattr(diffusers, pipeline.name))
    assert pipeline.scales_noise == ("scheduler.scale_noise(" in prepared)


@pytest.mark.parametrize("pipeline", ONLY_PIPELINES, ids=lambda pipeline: pipeline.name)
def test_a_pipeline_that_takes_its_size_from_a_picture_does_so(pipeline: Pipeline) -> None:
    """These two overwrite whatever they are asked for."""
    overwrites = "\n        height = calculated_height" in source_of(pipeline)
    assert (pipeline.size_from == "reference") == overwrites


@pytest.mark.parametrize("family", REAL_FAMILIES)
def test_a_checkpoint_of_the_family_is_what_the_catalogue_says(
    family: FamilyName, tiny_family: Callable[[str], Path]
) -> None:
    facts, folder = MODELS[family], tiny_family(family)
    index: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] in facts.index_classes
    assert index["text_encoder"][1] == facts.text_encoder
    assert hasattr(transformers, facts.text_encoder)
    assert facts.needs_torchvision == ("processor" in index)
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert type(pipeline).__name__ in facts.index_classes
    # 2.1 looks at groups of 2×2 latents, the others pack them.
    assert FAMILIES[family].multiple % (pipeline.vae_scale_factor * 2) == 0
    expected = {"qwen-image-2.1": 32, "qwen-image-2.1-turbo": 32}.get(family, 16)
    assert pipeline.vae_scale_factor * 2 == expected
    cuts = "tokenizer_max_length" in vars(pipeline) and "text_encoder" in index and "processor" not in index
    assert (facts.cut_after is not None) == (cuts or family == "qwen-image-layered")


@pytest.mark.parametrize(("width", "height"), [(640, 480), (100, 900), (3000, 1001), (17, 16), (1, 7)])
def test_sizes_that_a_picture_decides_are_computed_as_diffusers_does(width: int, height: int) -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_inpaint as edit  # noqa: PLC0415
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_layered as layered  # noqa: PLC0415

    for side in (640, 1024):
        ours = layered_size(Size(width, height), side)
        assert (ours.width, ours.height) == layered.calculate_dimensions(side * side, width / height)
        assert (ours.width, ours.height) == edit.calculate_dimensions(side * side, width / height)[:2]
