"""Where memory runs out while a picture is decoded, nothing is denoised again, and the result tells it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from arranged import GUIDED, Shortage, drawn, insert, opened, pipeline_of, rendered, steps_of
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import Arrangement, OutOfMemory, Rendering, RenderRequest
from qwen_image_daemon.settings import PlanName, Quality, RenderSettings
from tiny_models import Card, Computing, loaded, picture

WIDE = replace(GUIDED, width=192)
"""Larger than the smallest tiles."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    insert(card, monkeypatch)
    return card


def vae_of(renderer: DiffusersRenderer) -> Any:
    return pipeline_of(renderer).vae


def short_in_vae(renderer: DiffusersRenderer, times: int, fault: Exception | None = None) -> Shortage:
    return Shortage(renderer, times, fault, vae_of(renderer).decoder.up_blocks[0])


def how(rendering: Rendering) -> Arrangement:
    assert rendering.arrangement is not None
    return rendering.arrangement


@contextmanager
def counted_passes(renderer: DiffusersRenderer) -> Iterator[list[None]]:
    passes: list[None] = []
    hook = pipeline_of(renderer).transformer.register_forward_pre_hook(lambda *_: passes.append(None))
    yield passes
    hook.remove()


def deviation(one: Image.Image, other: Image.Image) -> float:
    """Give the mean difference of two pictures, in levels."""
    levels = zip(one.tobytes(), other.tobytes(), strict=True)
    return sum(abs(mine - theirs) for mine, theirs in levels) / len(one.tobytes())


LOSSY: Quality = "allow-quantized"
RUNGS: list[tuple[PlanName, Quality, int, Arrangement]] = [
    # The arrangement, what is allowed, how often memory runs out, and what the picture then says.
    ("resident", "lossless", 1, Arrangement(plan="resident", exactness="exact", decoding="whole")),
    ("resident", "lossless", 2, Arrangement(plan="resident", exactness="exact", decoding="alone")),
    ("resident", "lossless", 3, Arrangement(plan="resident", exactness="float-drift", decoding="cpu")),
    ("resident", LOSSY, 3, Arrangement(plan="resident", exactness="lossy", decoding="tiles-128")),
    ("by-turns", "lossless", 2, Arrangement(plan="by-turns", exactness="float-drift", decoding="cpu")),
]


@pytest.mark.parametrize(
    ("plan", "quality", "times", "told"),
    [
        pytest.param(*rung, marks=() if place in {1, 2, 3} else pytest.mark.slow)
        for place, rung in enumerate(RUNGS)
    ],
)
@pytest.mark.usefixtures("card")
def test_a_decoding_that_fails_is_tried_again_rung_by_rung_and_the_next_picture_is_as_ever(
    plan: PlanName, quality: Quality, times: int, told: Arrangement, tiny_checkpoint: Path
) -> None:
    with opened(tiny_checkpoint, plan, quality=quality) as renderer:
        before, expected = drawn(renderer), rendered(renderer, WIDE).image
        switches = {
            name: value for name, value in vars(vae_of(renderer)).items() if name.startswith(("use", "tile"))
        }

        with short_in_vae(renderer, times), counted_passes(renderer) as passes:
            short = rendered(renderer, WIDE)

        assert how(short).model_copy(update={"levers": (), "steps_down": ()}) == told
        assert len(how(short).levers) == (told.exactness != "exact")
        assert len(steps_of(short)) == times
        assert steps_of(short)[0].startswith("decoded again: Memory ran out on the device: ")
        assert len(passes) == 4, "two guided steps: nothing was denoised again"
        assert deviation(short.image, expected) < 16
        assert (short.image == expected) or told.exactness != "exact"
        # Another kind of picture: for this kind it is remembered.
        assert drawn(renderer) == before
        assert switches == {name: getattr(vae_of(renderer), name) for name in switches}


@pytest.mark.usefixtures("card")
def test_how_it_could_be_decoded_is_remembered_for_such_pictures_and_over_a_restart(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with opened(tiny_checkpoint, state=tmp_path) as renderer, short_in_vae(renderer, 2):
        rendered(renderer)

    with opened(tiny_checkpoint, state=tmp_path) as renderer:
        again = rendered(renderer)
        assert (how(again).decoding, steps_of(again)) == ("alone", ())
        assert how(rendered(renderer, WIDE)).decoding == "whole"


@pytest.mark.slow
def test_with_the_memory_of_a_way_to_decode_that_way_is_found(tiny_checkpoint: Path, card: Card) -> None:
    """What a way took at its most, less one byte, is the budget of the next one."""
    budget = float("inf")
    for decoding in ("whole", "alone", "tiles-128", "cpu"):
        # Each in a new process, so to say: nothing is remembered.
        card.budget = float("inf")
        with opened(tiny_checkpoint, quality=LOSSY) as renderer:
            drawn(renderer, WIDE)
            card.budget = budget
            with decoding_anew(renderer, card), Computing(card):
                rendering = rendered(renderer, WIDE)

        assert how(rendering).decoding == decoding
        assert card.peak < budget
        budget = card.peak - 1


@contextmanager
def decoding_anew(renderer: DiffusersRenderer, card: Card) -> Iterator[None]:
    """Let the peak be that of the last decoding."""

    def forget(*_: object) -> None:
        card.peak = 0

    hook = vae_of(renderer).post_quant_conv.register_forward_pre_hook(forget)
    yield
    hook.remove()


@pytest.mark.parametrize(
    "share", [0.55, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.99, 0.8, 0.4, 0.2, 0.1, 0.05))]
)
def test_with_a_part_of_the_memory_a_picture_is_the_same_or_says_by_what_it_is_not_or_fails_alone(
    share: float, tiny_checkpoint: Path, card: Card
) -> None:
    """Weights and computation on one card: both ladders together, wherever memory runs out."""
    with opened(tiny_checkpoint) as renderer:
        before = drawn(renderer)
        with Computing(card):
            card.peak = 0
            expected = rendered(renderer, WIDE).image
            card.budget = share * card.peak
            try:
                short: Rendering | None = rendered(renderer, WIDE)
            except OutOfMemory:
                short = None
        card.budget = float("inf")

        if short is not None:
            assert steps_of(short)
            assert (short.image == expected) or how(short).levers
            assert deviation(short.image, expected) < 3
        else:
            assert share < 0.2, "the smallest arrangement was not reached"
        assert drawn(renderer) == before


@pytest.mark.usefixtures("card")
def test_where_the_hosts_memory_ran_out_too_the_job_fails_and_the_next_is_drawn_as_ever(
    tiny_checkpoint: Path,
) -> None:
    with opened(tiny_checkpoint) as renderer:
        expected = drawn(renderer)
        with (
            short_in_vae(renderer, 1_000, MemoryError("Unable to allocate 3.00 GiB")),
            pytest.raises(OutOfMemory, match="on the host"),
        ):
            drawn(renderer)

        again = rendered(renderer)

    assert again.image.tobytes() == expected
    assert how(again) == Arrangement(plan="resident", exactness="exact")


def layered() -> RenderRequest:
    return replace(
        GUIDED,
        task="layered",
        source=picture("teal").convert("RGBA"),
        layers=2,
        resolution=640,
        width=640,
        height=640,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("card")
def test_layers_are_decoded_one_after_the_other_before_anything_is_lost(
    tiny_family: Callable[[str], Path],
) -> None:
    settings = RenderSettings(device="cpu", precisions=("float32",), placement="by-turns")
    with loaded("qwen-image-layered", tiny_family("qwen-image-layered"), settings=settings) as model:
        expected = model.draw(layered())
        with short_in_vae(model.renderer, 2):
            short = model.draw(layered())

    assert (how(short).decoding, how(short).exactness) == ("sliced", "float-drift")
    for mine, theirs in zip(short.layers, expected.layers, strict=True):
        assert deviation(mine, theirs) < 1
