"""What every renderer promises, and what the one with a model promises beyond it."""

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from diffusers import QwenImageImg2ImgPipeline
from PIL import ImageChops, ImageStat

from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.embeddings import KEPT
from qwen_image_daemon.render.host_memory import Heap
from qwen_image_daemon.render.opening import open_renderer
from qwen_image_daemon.render.renderer import (
    BadPicture,
    OutOfMemory,
    Progress,
    Renderer,
    RenderRequest,
    RenderStopped,
    RequestRefused,
    UnexpectedFailure,
)
from qwen_image_daemon.settings import Cleanup, ModelSettings
from tiny_models import SETTINGS
from tiny_models import picture as gradient

WIDTH, HEIGHT = 96, 64
picture = partial(gradient, size=(WIDTH, HEIGHT))
PLAIN = RenderRequest(
    task="text-to-image",
    prompt="a lighthouse at dusk",
    negative_prompt=None,
    true_cfg_scale=1.0,
    num_inference_steps=3,
    width=WIDTH,
    height=HEIGHT,
    seed=7,
)
GUIDED = replace(PLAIN, negative_prompt=" ", true_cfg_scale=4.0)


REDRAWN = replace(PLAIN, task="image-to-image", source=picture("orange"), strength=0.6)


def ignore(_: Progress) -> None:
    """Take no notice of progress."""


def drawn(renderer: Renderer, request: RenderRequest) -> bytes:
    return renderer.render(request, ignore).image.tobytes()


def raising_at(step: int, error: Exception) -> Callable[[Progress], None]:
    """Give a progress function that raises when the step is finished."""

    def raise_there(progress: Progress) -> None:
        if progress.stage == "denoise" and progress.step == step:
            raise error

    return raise_there


def opened(source: Path, *, dry_run: bool = False) -> Renderer:
    model = ModelSettings(family="demo", source=str(source))
    return open_renderer(model, SETTINGS, Accessories(), dry_run=dry_run)


@pytest.fixture(scope="module", params=["dry-run", "tiny checkpoint"])
def renderer(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Iterator[Renderer]:
    with opened(tiny_checkpoint, dry_run=request.param == "dry-run") as entered:
        yield entered


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Iterator[Renderer]:
    with opened(tiny_checkpoint) as entered:
        yield entered


def pipeline_of(renderer: Renderer) -> Any:
    """Reach behind the seam: hooks on the modules are how these tests see and disturb a model."""
    assert isinstance(renderer, DiffusersRenderer)
    loaded = renderer._entered.loaded
    return loaded.warm._pipelines.loaded


def module_of(renderer: Renderer, path: str) -> torch.nn.Module:
    """Give a part of the model, for example `vae.decoder`."""
    module: torch.nn.Module = attrgetter(path)(pipeline_of(renderer))
    return module


# --- every renderer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [PLAIN, GUIDED, REDRAWN], ids=["plain", "guided", "redrawn"])
def test_a_picture_is_rgb_of_exactly_the_size_asked_for(renderer: Renderer, request_: RenderRequest) -> None:
    rendering = renderer.render(request_, ignore)

    assert rendering.image.mode == "RGB"
    assert rendering.image.size == (WIDTH, HEIGHT)
    assert min(rendering.seconds.model_dump().values()) >= 0


@pytest.mark.parametrize("request_", [PLAIN, GUIDED, REDRAWN], ids=["plain", "guided", "redrawn"])
def test_the_same_request_gives_the_same_bytes(renderer: Renderer, request_: RenderRequest) -> None:
    assert drawn(renderer, request_) == drawn(renderer, request_)


@pytest.mark.parametrize(
    "other",
    [
        replace(GUIDED, seed=8),
        replace(GUIDED, prompt="a bowl of plums"),
        replace(GUIDED, negative_prompt="fog, rain, night"),
        replace(GUIDED, true_cfg_scale=9.0),
        PLAIN,
    ],
    ids=["seed", "prompt", "negative prompt", "scale", "without guidance"],
)
def test_everything_that_is_asked_changes_the_picture(renderer: Renderer, other: RenderRequest) -> None:
    assert drawn(renderer, GUIDED) != drawn(renderer, other)


def test_progress_tells_each_stage_and_each_step_in_order(renderer: Renderer) -> None:
    told: list[Progress] = []

    renderer.render(PLAIN, told.append)

    # How long it will take is known from the pictures before it.
    assert [replace(one, expected_seconds=None) for one in told] == [
        Progress("encode", 0, 3),
        *(Progress("denoise", step, 3) for step in range(4)),
        Progress("decode", 3, 3),
    ]


@pytest.mark.parametrize("error", [RenderStopped(), KeyError("the caller's own")], ids=["stop", "fault"])
def test_what_progress_raises_ends_the_render_at_once_and_leaves_no_trace(
    renderer: Renderer, error: Exception
) -> None:
    undisturbed = drawn(renderer, GUIDED)
    told: list[Progress] = []
    raise_there = raising_at(2, error)

    def note(progress: Progress) -> None:
        told.append(progress)
        raise_there(progress)

    with pytest.raises(type(error)) as caught:
        renderer.render(replace(GUIDED, num_inference_steps=9), note)

    assert caught.value is error
    assert (told[-1].stage, told[-1].step, told[-1].steps) == ("denoise", 2, 9)
    assert drawn(renderer, GUIDED) == undisturbed


@pytest.mark.parametrize(
    ("unfit", "complaint"),
    [
        (replace(PLAIN, width=100), "width of 100 pixels is not a multiple of 16"),
        (replace(PLAIN, height=0), "height of 0 pixels"),
        (replace(PLAIN, num_inference_steps=0), "0 inference steps"),
        (replace(PLAIN, true_cfg_scale=4.0), "no negative prompt"),
        (replace(PLAIN, negative_prompt="fog"), "a negative prompt do not go together"),
        (replace(PLAIN, source=picture("red")), "Text-to-image takes no source"),
        (replace(REDRAWN, strength=None), "needs a source and a strength"),
        (replace(REDRAWN, strength=0.0), "strength of 0.0"),
        (replace(REDRAWN, source=picture("red").convert("L")), "L of 96×64 pixels"),
        (replace(REDRAWN, source=picture("red").resize((64, 64))), "64×64 pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_be_drawn_differently_is_refused_and_the_next_request_works(
    renderer: Renderer, unfit: RenderRequest, complaint: str
) -> None:
    with pytest.raises(RequestRefused, match=complaint) as refused:
        renderer.render(unfit, ignore)

    assert refused.value.fix
    assert drawn(renderer, PLAIN) == drawn(renderer, PLAIN)


@pytest.mark.parametrize(
    ("steps", "strength", "expected"),
    # The last one is where ceil(steps × strength) would say 8 in floating point.
    [(4, 0.3, 2), (5, 0.5, 3), (3, 1.0, 3), (2, 0.01, 1), (10, 0.3, 3), (100, 0.07, 7)],
)
def test_image_to_image_runs_as_many_steps_as_the_strength_leaves(
    renderer: Renderer, steps: int, strength: float, expected: int
) -> None:
    told: list[Progress] = []

    rendering = renderer.render(replace(REDRAWN, num_inference_steps=steps, strength=strength), told.append)

    assert rendering.steps == expected
    denoised = [progress.step for progress in told if progress.stage == "denoise"]
    # While pictures are encoded, step 0 is told again: a sign of life.
    assert denoised == sorted(denoised)
    assert list(dict.fromkeys(denoised)) == list(range(expected + 1))
    assert denoised.count(0) <= 2


def test_image_to_image_keeps_more_of_the_source_at_low_strength(renderer: Renderer) -> None:
    """With random weights a picture never looks like its source; what is kept is how much the source matters."""

    def difference_by_source(strength: float) -> float:
        request = replace(REDRAWN, strength=strength, num_inference_steps=8)
        one = renderer.render(request, ignore).image
        other = renderer.render(replace(request, source=picture("blue")), ignore).image
        return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean)

    low, middle, whole = (difference_by_source(strength) for strength in (0.125, 0.5, 1.0))

    assert low > middle > whole
    assert whole == 0


def test_cleaning_up_reports_plausible_memory_and_changes_no_picture(renderer: Renderer) -> None:
    before = drawn(renderer, GUIDED)

    memory = renderer.clean_up().left

    assert memory.device == "cpu"
    assert 10**7 < memory.process_rss_bytes == memory.allocated_bytes == memory.reserved_bytes
    assert 0 < memory.free_bytes < memory.total_bytes
    assert drawn(renderer, GUIDED) == before


def test_the_info_says_what_draws(renderer: Renderer, tiny_checkpoint: Path) -> None:
    assert renderer.info.source == str(tiny_checkpoint)
    assert renderer.info.versions["qwen-image-daemon"]
    assert renderer.info.pipeline in {"DryRun", "QwenImagePipeline"}


# --- the one with a model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_", "passes"), [(PLAIN, 3), (GUIDED, 6)], ids=["off", "on"])
def test_guidance_takes_two_passes_a_step_and_none_takes_one(
    tiny: Renderer, request_: RenderRequest, passes: int
) -> None:
    counted: list[None] = []
    hook = pipeline_of(tiny).transformer.register_forward_hook(lambda *_: counted.append(None))

    with hook:
        tiny.render(request_, ignore)

    assert len(counted) == passes


def test_equal_prompts_are_encoded_once_over_jobs_too(tiny: Renderer) -> None:
    request = replace(GUIDED, prompt="a prompt that nobody used before")
    counted: list[None] = []
    hook = pipeline_of(tiny).text_encoder.register_forward_hook(lambda *_: counted.append(None))

    with hook:
        tiny.render(request, ignore)
        encoded = len(counted)
        assert encoded in {1, 2}  # the negative prompt may be known from another test
        tiny.render(replace(request, seed=8), ignore)
        tiny.clean_up()
        tiny.render(request, ignore)
        assert len(counted) == encoded


def test_only_the_last_few_prompts_are_remembered(tiny: Renderer) -> None:
    tiny.clean_up()
    counted: list[None] = []
    hook = pipeline_of(tiny).text_encoder.register_forward_hook(lambda *_: counted.append(None))
    prompts = [f"plum number {number}" for number in range(KEPT + 1)]

    with hook:
        for prompt in [*prompts, prompts[-1], prompts[0]]:
            tiny.render(replace(PLAIN, prompt=prompt, num_inference_steps=2), ignore)

    assert len(counted) == KEPT + 2


@pytest.mark.parametrize("request_", [PLAIN, GUIDED, REDRAWN], ids=["plain", "guided", "redrawn"])
def test_the_picture_is_bit_for_bit_the_one_that_the_plain_pipeline_draws(
    tiny: Renderer, request_: RenderRequest
) -> None:
    text_to_image = pipeline_of(tiny)
    arguments: dict[str, Any] = {
        "prompt": request_.prompt,
        "negative_prompt": request_.negative_prompt,
        "true_cfg_scale": request_.true_cfg_scale,
        "num_inference_steps": request_.num_inference_steps,
        "width": WIDTH,
        "height": HEIGHT,
        "generator": torch.Generator("cpu").manual_seed(request_.seed),
    }
    if request_.source is None:
        expected = text_to_image(**arguments).images[0]
    else:
        image_to_image: Any = QwenImageImg2ImgPipeline(**text_to_image.components)
        image_to_image.set_progress_bar_config(disable=True)
        expected = image_to_image(**arguments, image=request_.source, strength=request_.strength).images[0]

    assert drawn(tiny, request_) == expected.tobytes()


@pytest.mark.parametrize("cleanup", get_args(Cleanup))
def test_memory_is_cleared_as_the_settings_say_and_it_is_told_with_its_cost(
    tiny: DiffusersRenderer, monkeypatch: pytest.MonkeyPatch, cleanup: Cleanup
) -> None:
    monkeypatch.setattr(tiny, "_cleanup", cleanup)
    undisturbed = drawn(tiny, PLAIN)

    after, before_the_next = tiny.clean_up(), tiny.clean_up()

    everything = ("garbage collected", "heap trimmed")
    done = {"always": (everything, everything), "adaptive": (("garbage collected",), ()), "never": ((), ())}
    assert (after.done, before_the_next.done) == done[cleanup]
    assert after.arrangement == "cpu"
    assert 0 < after.seconds < 60
    assert after.found.peak_bytes == after.left.peak_bytes
    assert drawn(tiny, PLAIN) == undisturbed


def test_an_idle_heap_is_given_back_where_it_pays_and_the_reason_is_told(
    tiny: DiffusersRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "_heap", Heap(slack_bytes=-(1024**4)))
    drawn(tiny, PLAIN)

    after = tiny.clean_up()

    assert after.done == ("garbage collected", "heap trimmed")
    assert "idle in the heap" in after.reason


@pytest.mark.parametrize("name", ["prompt", "negative prompt"])
def test_a_prompt_that_would_be_cut_is_refused_with_its_length_and_the_limit(tiny: Renderer, name: str) -> None:
    long = "\N{GREEK SMALL LETTER OMEGA}" * 1_000
    unfit = replace(PLAIN, prompt=long) if name == "prompt" else replace(GUIDED, negative_prompt=long)

    # Two byte tokens for each letter; the template's closing words take 7 of the 1024 in this vocabulary.
    with pytest.raises(RequestRefused, match=f"The {name} is 2000 tokens long; the model reads 1017"):
        tiny.render(unfit, ignore)


def test_the_last_token_of_a_prompt_of_the_greatest_length_still_counts(tiny: Renderer) -> None:
    longest = replace(PLAIN, prompt="\N{GREEK SMALL LETTER OMEGA}" * 508, num_inference_steps=2)

    assert drawn(tiny, longest) != drawn(tiny, replace(longest, prompt=longest.prompt + "?"))
    with pytest.raises(RequestRefused):
        tiny.render(replace(longest, prompt=longest.prompt + "??????????"), ignore)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
def test_a_picture_of_nan_is_no_picture_and_the_next_one_is_as_ever(tiny: Renderer) -> None:
    """One step alone divides by zero in the makers' schedule."""
    undisturbed = drawn(tiny, PLAIN)

    with pytest.raises(BadPicture, match="Step 1"):
        tiny.render(replace(PLAIN, num_inference_steps=1), ignore)

    assert drawn(tiny, PLAIN) == undisturbed


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae.decoder"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory),
        (ZeroDivisionError("somewhere below"), UnexpectedFailure),
    ],
    ids=["memory", "fault"],
)
def test_a_fault_inside_the_model_is_told_by_its_kind_and_leaves_no_trace(
    tiny: Renderer, component: str, fault: Exception, expected: type[Exception]
) -> None:
    undisturbed = drawn(tiny, REDRAWN)
    tiny.clean_up()

    def fail(*_: object) -> None:
        raise fault

    with (
        module_of(tiny, component).register_forward_pre_hook(fail),
        pytest.raises(expected, match=str(fault)) as caught,
    ):
        # A prompt of its own, so that the text encoder is needed.
        tiny.render(replace(REDRAWN, prompt=f"{fault} in the {component}"), ignore)

    assert caught.value.__context__ is None
    assert drawn(tiny, REDRAWN) == undisturbed


def test_leaving_lets_go_of_the_model(tiny_checkpoint: Path) -> None:
    renderer = opened(tiny_checkpoint)
    with renderer:
        renderer.render(PLAIN, ignore)
        # The position embedding is also held by a cache of its class.
        transformer, positions = (
            weakref.ref(module_of(renderer, path)) for path in ("transformer", "transformer.pos_embed")
        )

    assert transformer() is None
    assert positions() is None
    assert gc.get_freeze_count() == 0
    with pytest.raises(RuntimeError, match="outside"):
        renderer.render(PLAIN, ignore)
