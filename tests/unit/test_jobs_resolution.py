"""From what was asked to what will be done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import ASPECT_RATIOS, FAMILIES, Family, Size
from qwen_image_daemon.jobs.models import AnyJob, ImageToImageJob, TextToImageJob
from qwen_image_daemon.jobs.resolution import EffectiveParameters, adjustments_of, resolve
from qwen_image_daemon.jobs.source_sizes import fault_of_source_size, nearest_sizes

CATALOGUE = Catalogue(
    families={"qwen-image": FAMILIES["qwen-image"], "demo": FAMILIES["demo"]}, default="qwen-image"
)
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def resolved(job: AnyJob, source: Size | None = None) -> EffectiveParameters:
    return resolve(job, CATALOGUE, seed=99, source=source)


def test_what_is_left_open_becomes_the_makers_recommendation() -> None:
    effective = resolved(TextToImageJob(prompt="x"))
    assert (effective.num_inference_steps, effective.true_cfg_scale, effective.negative_prompt) == (50, 4.0, " ")
    assert (effective.width, effective.height) == (1328, 1328)
    assert (effective.model, effective.seed, effective.num_images) == ("qwen-image", 99, 1)


@families
def test_a_preset_sets_steps_and_scale_and_more_work_never_means_fewer_steps(family: Family) -> None:
    steps = []
    for name, preset in family.presets.items():
        effective = resolved(TextToImageJob(prompt="x", model=family.name, preset=name))
        assert (effective.num_inference_steps, effective.true_cfg_scale) == (
            preset.num_inference_steps,
            preset.true_cfg_scale,
        )
        steps.append(effective.num_inference_steps)
    assert steps == sorted(set(steps))
    assert min(steps) >= family.min_steps


def test_what_the_job_sets_itself_wins_over_its_preset() -> None:
    effective = resolved(TextToImageJob(prompt="x", preset="draft", num_inference_steps=33, true_cfg_scale=2.5))
    assert (effective.num_inference_steps, effective.true_cfg_scale) == (33, 2.5)


def test_without_guidance_there_is_no_negative_prompt() -> None:
    assert resolved(TextToImageJob(prompt="x", true_cfg_scale=1.0)).negative_prompt is None


def test_an_empty_negative_prompt_is_kept_apart_from_none() -> None:
    assert resolved(TextToImageJob(prompt="x", negative_prompt="")).negative_prompt == ""


@families
def test_every_size_that_is_recommended_is_one_that_the_model_draws_exactly(family: Family) -> None:
    assert set(family.sizes) == set(ASPECT_RATIOS)
    for ratio, size in family.sizes.items():
        assert size.width % family.multiple == size.height % family.multiple == 0
        assert family.min_side <= min(size.width, size.height)
        assert max(size.width, size.height) <= family.max_side
        assert size.width * size.height <= family.max_pixels
        across, down = map(int, ratio.split(":"))
        assert size.width / size.height == pytest.approx(across / down, rel=0.01)


@pytest.mark.parametrize(
    ("source", "expected"), [(Size(960, 640), Size(1584, 1056)), (Size(500, 900), Size(928, 1664))]
)
def test_a_redrawn_picture_keeps_its_shape_as_nearly_as_a_recommended_size_allows(
    source: Size, expected: Size
) -> None:
    effective = resolved(ImageToImageJob(prompt="x", image="a.png"), source)
    assert Size(effective.width, effective.height) == expected


def test_a_style_changes_the_prompt_that_is_drawn_and_is_named_with_it() -> None:
    job = TextToImageJob(prompt="A fox.", style="makers")
    effective = resolved(job)
    assert (effective.prompt, effective.style) == ("A fox, Ultra HD, 4K, cinematic composition.", "makers")
    assert adjustments_of(job, effective) == ()


def test_no_style_changes_nothing() -> None:
    job = TextToImageJob(prompt="A fox. ")
    effective = resolved(job)
    assert (effective.prompt, effective.style, adjustments_of(job, effective)) == ("A fox. ", None, ())


def test_a_style_that_has_no_words_for_the_prompt_leaves_it_alone_and_says_so() -> None:
    job = TextToImageJob(prompt="рыжая лиса", style="photo")
    effective = resolved(job)
    assert (effective.prompt, effective.style) == ("рыжая лиса", None)
    assert adjustments_of(job, effective) == (
        'style "photo" has no words in the prompt\'s language: the prompt was drawn as it is',
    )


def test_the_sources_own_size_is_drawn_where_it_is_asked_for() -> None:
    job = ImageToImageJob(prompt="x", image="a.png", size="source")
    effective = resolved(job, Size(960, 640))
    assert (effective.width, effective.height) == (960, 640)
    with pytest.raises(ValueError, match="not known"):
        resolved(job)


@families
@given(st.integers(1, 9_000), st.integers(1, 9_000))
def test_sizes_that_are_named_in_the_place_of_a_sources_can_be_drawn(
    family: Family, width: int, height: int
) -> None:
    source = Size(width, height)
    near = nearest_sizes(source, family)
    assert near
    assert all(fault_of_source_size(size, family) is None for size in near)
    assert (near[0] == source) == (fault_of_source_size(source, family) is None)


@pytest.mark.parametrize(
    ("source", "what", "fix"),
    [
        (Size(1000, 640), "multiples of 16 only", "to 1008×640 or 992×640,"),
        (Size(1001, 641), "multiples of 16 only", "to 1008×640 or 992×640,"),
        (Size(4000, 3000), "no side above 3072", "to 2352×1776 or 2368×1760,"),
        (Size(2400, 2400), "no more than 4,194,304 in all", "to 2048×2048,"),
        (Size(30, 60), "no side below 64", "to 64×128,"),
        (Size(10_000, 10), "no side below 64", "to 3072×64,"),
    ],
)
def test_a_source_whose_size_cannot_be_drawn_comes_with_those_that_can(source: Size, what: str, fix: str) -> None:
    fault = fault_of_source_size(source, FAMILIES["qwen-image"])
    assert fault is not None
    assert str(source) in fault[0]
    assert what in fault[0]
    assert fix in fault[1]


def test_a_size_that_was_asked_for_is_not_changed_for_the_source() -> None:
    effective = resolved(ImageToImageJob(prompt="x", image="a.png", aspect_ratio="1:1"), Size(960, 640))
    assert (effective.width, effective.height) == (1328, 1328)
