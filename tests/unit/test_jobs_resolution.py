"""From what was asked to what will be done."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from example_catalogue import EVERYTHING
from qwen_image_daemon.jobs.families import ASPECT_RATIOS, FAMILIES, Family, Size
from qwen_image_daemon.jobs.models import (
    AnyJob,
    ControlNetJob,
    EditJob,
    ImageToImageJob,
    InpaintJob,
    LayeredJob,
    LoraUse,
    SchedulerUse,
    TextToImageJob,
)
from qwen_image_daemon.jobs.resolution import EffectiveParameters, adjustments_of, resolve
from qwen_image_daemon.jobs.source_sizes import (
    fault_of_mask_size,
    fault_of_shape,
    fault_of_source_size,
    nearest_sizes,
    scaled_size,
)
from qwen_image_daemon.jobs.tasks import TASKS, Task

CATALOGUE = replace(EVERYTHING, families=FAMILIES)
A_PICTURE = Size(960, 640)
A_JOB: Mapping[Task, AnyJob] = {
    "text-to-image": TextToImageJob(prompt="x"),
    "image-to-image": ImageToImageJob(prompt="x", image="a.png"),
    "inpaint": InpaintJob(prompt="x", image="a.png"),
    "edit": EditJob(prompt="x", image="a.png"),
    "layered": LayeredJob(image="a.png"),
    "controlnet": ControlNetJob(prompt="x", control_image="a.png"),
}


def a_job_for(family: Family) -> AnyJob:
    return A_JOB[next(task for task in TASKS if task in family.tasks)].model_copy(update={"model": family.name})


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
        effective = resolved(a_job_for(family).model_copy(update={"preset": name}), A_PICTURE)
        assert (effective.num_inference_steps, effective.true_cfg_scale) == (
            preset.num_inference_steps,
            preset.true_cfg_scale,
        )
        steps.append(effective.num_inference_steps)
    assert steps == sorted(steps if family.fixed_steps is not None else set(steps))
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
        # The pipeline for layers rounds to multiples of 32 at a small size.
        assert size.width / size.height == pytest.approx(
            across / down, rel=0.02 if family.name.endswith("layered") else 0.01
        )


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


@families
def test_every_family_does_a_task_and_knows_what_one_picture_means_to_it(family: Family) -> None:
    assert family.tasks
    assert family.task_of_one_image in family.tasks - {"text-to-image"}


def test_a_model_left_out_is_the_default_one_if_it_can_and_else_the_first_that_can() -> None:
    models = {job.task: resolved(job, A_PICTURE).model for job in A_JOB.values()}
    assert models == {
        "text-to-image": "qwen-image",
        "image-to-image": "qwen-image",
        "inpaint": "qwen-image",
        "edit": "qwen-image-edit",
        "layered": "qwen-image-layered",
        "controlnet": "qwen-image",
    }


def test_a_distilled_lora_means_few_steps_without_guidance_on_its_own_schedule_whatever_the_preset() -> None:
    effective = resolved(TextToImageJob(prompt="x", preset="ultra", loras=(LoraUse(name="lightning"),)))
    assert (effective.num_inference_steps, effective.true_cfg_scale, effective.negative_prompt) == (8, 1.0, None)
    assert effective.scheduler == SchedulerUse(name="lightning")
    assert effective.adjustments == ()


def test_other_loras_leave_steps_guidance_and_schedule_alone() -> None:
    effective = resolved(TextToImageJob(prompt="x", loras=(LoraUse(name="faces", weight=0.5),)))
    assert (effective.num_inference_steps, effective.true_cfg_scale, effective.scheduler) == (50, 4.0, None)


def test_what_a_job_that_is_not_strict_asks_in_vain_is_noted_down() -> None:
    job = TextToImageJob(prompt="x", negative_prompt="y", model="qwen-image-2.1", strict=False)
    effective = resolved(job)
    assert effective.negative_prompt is None
    assert adjustments_of(job, effective) == (
        "negative_prompt had no effect: the picture was drawn without guidance (true_cfg_scale 1.0)",
    )


def test_a_checkpoint_that_fixes_its_steps_takes_those() -> None:
    job = TextToImageJob(prompt="x", num_inference_steps=30, model="qwen-image-2.1-turbo", strict=False)
    effective = resolved(job)
    assert effective.num_inference_steps == 8
    [note] = adjustments_of(job, effective)
    assert "num_inference_steps 30 was not followed" in note


def test_an_edits_one_picture_is_its_only_reference() -> None:
    assert resolved(EditJob(prompt="x", image="a.png"), A_PICTURE).images == ("a.png",)
    assert resolved(EditJob(prompt="x", images=("a.png", "b.png")), A_PICTURE).images == ("a.png", "b.png")


def test_without_a_mask_an_inpaint_job_takes_the_pictures_transparency() -> None:
    assert resolved(InpaintJob(prompt="x", image="a.png"), A_PICTURE).mask_from_alpha
    masked = resolved(InpaintJob(prompt="x", image="a.png", mask="m.png"), A_PICTURE)
    assert (masked.mask, masked.mask_from_alpha, masked.preserve_unmasked) == ("m.png", False, True)


def test_nothing_is_preserved_where_nothing_is_masked() -> None:
    assert not resolved(EditJob(prompt="x", image="a.png"), A_PICTURE).preserve_unmasked
    assert resolved(EditJob(prompt="x", image="a.png", mask="m.png"), A_PICTURE).preserve_unmasked


@pytest.mark.parametrize(
    ("source", "resolution", "expected"),
    [
        (Size(960, 640), 640, Size(768, 512)),
        (Size(640, 960), 1024, Size(832, 1248)),
        (Size(1000, 1000), 640, Size(640, 640)),
    ],
)
def test_layers_have_the_size_that_the_pipeline_gives_them(source: Size, resolution: int, expected: Size) -> None:
    job = LayeredJob.model_validate({"image": "a.png", "resolution": resolution})
    effective = resolved(job, source)
    assert Size(effective.width, effective.height) == expected
    assert (effective.prompt, effective.layers) == ("", 4)


def test_a_control_picture_is_followed_by_the_only_controlnet_for_its_purpose() -> None:
    assert resolved(A_JOB["controlnet"], A_PICTURE).controlnet == "union"
    masked = ControlNetJob(prompt="x", control_image="a.png", mask="m.png")
    assert resolved(masked, A_PICTURE).controlnet == "inpainting"


@given(st.integers(1, 8), st.integers(16, 4000), st.sampled_from(list(FAMILIES.values())))
def test_a_scaled_result_has_the_sources_shape_to_a_step_of_the_grid(
    times: int, side: int, family: Family
) -> None:
    source = Size(side * times, side)
    assert fault_of_shape(source) is None
    size = scaled_size(source, family)
    assert size.width % family.multiple == size.height % family.multiple == 0
    assert size.width * size.height <= family.max_pixels
    assert abs(size.width - size.height * times) <= family.multiple * (times + 1) / 2


def test_a_picture_that_is_far_too_long_has_no_shape_that_can_be_drawn() -> None:
    fault = fault_of_shape(Size(10_000, 10))
    assert fault is not None
    assert "more than 8 times" in fault[0]


def test_a_mask_may_be_of_any_scale_but_not_of_another_shape() -> None:
    assert fault_of_mask_size(Size(960, 640), Size(960, 640)) is None
    assert fault_of_mask_size(Size(481, 320), Size(961, 640)) is None
    assert fault_of_mask_size(Size(512, 512), Size(960, 640)) is not None
    assert fault_of_mask_size(Size(640, 960), Size(960, 640)) is not None


def size_of(effective: EffectiveParameters) -> Size:
    return Size(effective.width, effective.height)


def test_an_edit_in_its_sources_size_is_drawn_near_it_and_brought_back() -> None:
    edit = EditJob(prompt="x", image="a.png", size="source")
    near = resolved(edit, Size(1001, 667))
    assert (size_of(near), near.back_to_source) == (Size(1008, 672), True)
    masked = resolved(edit.model_copy(update={"mask": "m.png"}), Size(1600, 1200))
    assert (size_of(masked), masked.back_to_source) == (Size(1184, 896), True)
    assert not resolved(EditJob(prompt="x", image="a.png"), Size(1001, 667)).back_to_source


def test_a_masked_edit_has_the_size_that_the_pipeline_gives_it() -> None:
    masked = EditJob(prompt="x", image="a.png", mask="m.png")
    assert size_of(resolved(masked, Size(1600, 1200))) == Size(1184, 896)
    assert size_of(resolved(masked.model_copy(update={"fit": "scale"}), Size(1600, 1200))) == Size(1184, 896)
    unmasked = EditJob(prompt="x", image="a.png")
    assert size_of(resolved(unmasked, Size(1600, 1200))) == Size(1472, 1104)
