"""Where memory runs out while the VAE encodes or decodes, only that is done again, and the result tells it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from arranged import GUIDED, Shortage, drawn, insert, opened, pipeline_of, plan_of, rendered, steps_of
from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import Arrangement, Control, OutOfMemory, Rendering, RenderRequest
from qwen_image_daemon.settings import ControlNetSettings, PlanName, Quality, RenderSettings
from tiny_models import Card, Computing, loaded, picture, read_small_references

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


def short_in_encoder(renderer: DiffusersRenderer, times: int, fault: Exception | None = None) -> Shortage:
    return Shortage(renderer, times, fault, vae_of(renderer).encoder.conv_in)


def how(rendering: Rendering) -> Arrangement:
    assert rendering.arrangement is not None
    return rendering.arrangement


@contextmanager
def counted_passes(renderer: DiffusersRenderer) -> Iterator[list[None]]:
    passes: list[None] = []
    hook = pipeline_of(renderer).transformer.register_forward_pre_hook(lambda *_: passes.append(None))
    yield passes
    hook.remove()


def switches_of(renderer: DiffusersRenderer) -> dict[str, object]:
    return {name: value for name, value in vars(vae_of(renderer)).items() if name.startswith(("use", "tile"))}


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
        switches = switches_of(renderer)

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
        assert switches_of(renderer) == switches


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


FROM_A_PICTURE = replace(
    WIDE, task="image-to-image", source=picture("teal", (192, 64)), strength=0.6, num_inference_steps=4
)
ENCODED: list[tuple[PlanName, Quality, int, Arrangement]] = [
    ("resident", "lossless", 1, Arrangement(plan="resident", exactness="exact", encoding="whole")),
    ("resident", "lossless", 2, Arrangement(plan="resident", exactness="exact", encoding="alone")),
    ("resident", "lossless", 3, Arrangement(plan="resident", exactness="float-drift", encoding="cpu")),
    ("resident", LOSSY, 3, Arrangement(plan="resident", exactness="lossy", encoding="tiles-128")),
    ("resident-table", "lossless", 2, Arrangement(plan="resident-table", exactness="exact", encoding="alone")),
    ("by-turns", "lossless", 2, Arrangement(plan="by-turns", exactness="float-drift", encoding="cpu")),
    ("blocks", "lossless", 2, Arrangement(plan="blocks", exactness="exact", encoding="alone")),
]


@pytest.mark.parametrize(
    ("plan", "quality", "times", "told"),
    [
        pytest.param(*rung, marks=() if place in {1, 3, 5} else pytest.mark.slow)
        for place, rung in enumerate(ENCODED)
    ],
)
@pytest.mark.usefixtures("card")
def test_an_encoding_that_fails_is_tried_again_rung_by_rung_and_the_next_picture_is_as_ever(
    plan: PlanName, quality: Quality, times: int, told: Arrangement, tiny_checkpoint: Path
) -> None:
    with opened(tiny_checkpoint, plan, quality=quality) as renderer:
        before, expected = drawn(renderer), rendered(renderer, FROM_A_PICTURE).image
        switches = switches_of(renderer)

        with short_in_encoder(renderer, times), counted_passes(renderer) as passes:
            short = rendered(renderer, FROM_A_PICTURE)

        assert how(short).model_copy(update={"levers": (), "steps_down": ()}) == told
        assert len(how(short).levers) == (told.exactness != "exact")
        assert all(lever.startswith("the picture was encoded ") for lever in how(short).levers)
        assert len(steps_of(short)) == times
        assert steps_of(short)[0].startswith("encoded again: Memory ran out on the device: ")
        assert len(passes) == 6, "three guided steps, of four at a strength of 0.6: the arrangement was kept"
        assert deviation(short.image, expected) < 16
        assert (short.image == expected) or told.exactness != "exact"
        assert drawn(renderer) == before
        assert switches_of(renderer) == switches
        assert "encode" not in vars(vae_of(renderer))


@pytest.mark.usefixtures("card")
def test_how_it_could_be_encoded_is_remembered_apart_from_how_it_was_decoded(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with opened(tiny_checkpoint, state=tmp_path) as renderer:
        expected = drawn(renderer, FROM_A_PICTURE)
        with short_in_encoder(renderer, 2):
            rendered(renderer, FROM_A_PICTURE)

    with opened(tiny_checkpoint, state=tmp_path) as renderer:
        again = rendered(renderer, FROM_A_PICTURE)
        assert (how(again).encoding, how(again).decoding, steps_of(again)) == ("alone", "whole", ())
        assert again.image.tobytes() == expected


DRAWN_FROM_PICTURES: dict[FamilyName, RenderRequest] = {
    "qwen-image": replace(GUIDED, task="controlnet", control=Control(picture("teal"), "edges")),
    "qwen-image-edit": replace(GUIDED, task="edit", references=(picture("teal"),)),
    "qwen-image-edit-plus": replace(GUIDED, task="edit", references=(picture("teal"), picture("plum"))),
    "qwen-image-2.1": replace(GUIDED, task="edit", references=(picture("teal"), picture("plum"))),
}


@pytest.mark.slow
@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("family", DRAWN_FROM_PICTURES)
def test_whatever_looks_at_pictures_encodes_them_by_the_ladder(
    family: FamilyName, tiny_family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_small_references(monkeypatch, 64, 64)
    controlnets = {"edges": ControlNetSettings(source=str(tiny_family("controlnet-union")))}
    settings = RenderSettings(device="cpu", precisions=("float32",), placement="resident")
    with loaded(family, tiny_family(family), controlnets=controlnets, settings=settings) as model:
        expected = model.draw(DRAWN_FROM_PICTURES[family])
        with short_in_encoder(model.renderer, 2):
            short = model.draw(DRAWN_FROM_PICTURES[family])

    assert how(short) == Arrangement(
        plan="resident", exactness="exact", encoding="alone", steps_down=how(short).steps_down
    )
    assert len(steps_of(short)) == 2
    assert short.image == expected.image


@pytest.mark.usefixtures("card")
def test_where_no_way_to_encode_is_left_the_next_arrangement_comes(tiny_checkpoint: Path) -> None:
    with opened(tiny_checkpoint) as renderer:
        expected = drawn(renderer, FROM_A_PICTURE)
        # Whole, again, alone, on the CPU; and all of them once more before the arrangement changes.
        with short_in_encoder(renderer, 8):
            short = rendered(renderer, FROM_A_PICTURE)

    assert (how(short).plan, how(short).encoding) == ("resident-table", "whole")
    assert short.image.tobytes() == expected


@pytest.mark.slow
def test_with_the_memory_of_a_way_to_encode_that_way_is_found(tiny_checkpoint: Path, card: Card) -> None:
    """As for decoding: what a way took at its most, less one byte, is the budget of the next one."""
    budget = float("inf")
    for encoding in ("whole", "alone", "tiles-128", "cpu"):
        with (
            opened(tiny_checkpoint, quality=LOSSY) as renderer,
            encoding_within(budget, renderer, card) as peaks,
            Computing(card),
        ):
            rendering = rendered(renderer, FROM_A_PICTURE)

        assert how(rendering).encoding == encoding
        assert plan_of(rendering) == "resident"
        budget = max(peaks) - 1


@contextmanager
def encoding_within(budget: float, renderer: DiffusersRenderer, card: Card) -> Iterator[list[int]]:
    """Let the card have so much while a picture is encoded, and give what each forward that went well took."""
    peaks: list[int] = []

    def begin(*_: object) -> None:
        card.budget, card.peak = budget, 0

    def end(_: object, __: object, result: object) -> None:
        card.budget = float("inf")
        if result is not None:
            peaks.append(card.peak)

    encoder = vae_of(renderer).encoder
    hooks = [encoder.register_forward_pre_hook(begin), encoder.register_forward_hook(end, always_call=True)]
    yield peaks
    for hook in hooks:
        hook.remove()


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
