"""Where memory runs out while the VAE encodes or decodes, only that is done again, and the result tells it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from arranged import GUIDED, Shortage, drawn, insert, opened, pipeline_of, plan_of, rendered, steps_of
from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import (
    Arrangement,
    Control,
    Exactness,
    OutOfMemory,
    Rendering,
    RenderRequest,
)
from qwen_image_daemon.render.vae_rungs import VaeWork
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


def short_in(work: VaeWork, renderer: DiffusersRenderer, times: int, fault: Exception | None = None) -> Shortage:
    vae = vae_of(renderer)
    part = vae.encoder.conv_in if work == "encoded" else vae.decoder.up_blocks[0]
    return Shortage(renderer, times, fault, part)


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


FROM_A_PICTURE = replace(
    WIDE, task="image-to-image", source=picture("teal", (192, 64)), strength=0.6, num_inference_steps=4
)
REQUESTS: dict[VaeWork, RenderRequest] = {"encoded": FROM_A_PICTURE, "decoded": WIDE}
PASSES: dict[VaeWork, int] = {"encoded": 6, "decoded": 4}
"""Guided steps, each counted twice: three, of four at a strength of 0.6, and two."""
LOSSY: Quality = "allow-quantized"


def way_of(rendering: Rendering, work: VaeWork) -> str:
    return how(rendering).encoding if work == "encoded" else how(rendering).decoding


RUNGS: list[tuple[VaeWork, PlanName, Quality, int, str, Exactness]] = [
    # The work, the arrangement, what is allowed, how often memory runs out, and what the picture then says.
    ("decoded", "resident", "lossless", 2, "alone", "exact"),
    ("decoded", "resident", "lossless", 3, "cpu", "float-drift"),
    ("decoded", "resident", LOSSY, 3, "tiles-128", "lossy"),
    ("encoded", "resident", "lossless", 2, "alone", "exact"),
    ("encoded", "resident", LOSSY, 3, "tiles-128", "lossy"),
    ("encoded", "by-turns", "lossless", 2, "cpu", "float-drift"),
]
MORE_RUNGS: list[tuple[VaeWork, PlanName, Quality, int, str, Exactness]] = [
    ("decoded", "resident", "lossless", 1, "whole", "exact"),
    ("decoded", "by-turns", "lossless", 2, "cpu", "float-drift"),
    ("encoded", "resident", "lossless", 1, "whole", "exact"),
    ("encoded", "resident", "lossless", 3, "cpu", "float-drift"),
    ("encoded", "resident-table", "lossless", 2, "alone", "exact"),
    ("encoded", "blocks", "lossless", 2, "alone", "exact"),
]


@pytest.mark.parametrize(
    ("work", "plan", "quality", "times", "way", "exactness"),
    [*RUNGS, *(pytest.param(*rung, marks=pytest.mark.slow) for rung in MORE_RUNGS)],
)
@pytest.mark.usefixtures("card")
def test_what_the_vae_fails_at_is_tried_again_rung_by_rung_and_the_next_picture_is_as_ever(  # noqa: PLR0913, PLR0917  one row of the table above
    work: VaeWork,
    plan: PlanName,
    quality: Quality,
    times: int,
    way: str,
    exactness: Exactness,
    tiny_checkpoint: Path,
) -> None:
    request = REQUESTS[work]
    with opened(tiny_checkpoint, plan, quality=quality) as renderer:
        before, expected = drawn(renderer), rendered(renderer, request).image
        switches = switches_of(renderer)

        with short_in(work, renderer, times), counted_passes(renderer) as passes:
            short = rendered(renderer, request)

        told = {"encoding": "whole", "decoding": "whole"} | {work.replace("ed", "ing"): way}
        assert how(short).model_copy(update={"levers": (), "steps_down": ()}) == Arrangement(
            plan=plan, exactness=exactness, **told
        )
        assert len(how(short).levers) == (exactness != "exact")
        assert all(lever.startswith(f"the picture was {work} ") for lever in how(short).levers)
        assert len(steps_of(short)) == times
        assert steps_of(short)[0].startswith(f"{work} again: Memory ran out on the device: ")
        assert len(passes) == PASSES[work], "nothing was denoised again"
        assert deviation(short.image, expected) < 16
        assert (short.image == expected) or exactness != "exact"
        # Another kind of picture: for this kind it is remembered.
        assert drawn(renderer) == before
        assert switches_of(renderer) == switches
        assert "encode" not in vars(vae_of(renderer))


@pytest.mark.parametrize("work", REQUESTS)
@pytest.mark.usefixtures("card")
def test_what_worked_is_remembered_for_such_pictures_and_this_work_and_over_a_restart(
    work: VaeWork, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with opened(tiny_checkpoint, state=tmp_path) as renderer:
        expected = drawn(renderer, REQUESTS[work])
        with short_in(work, renderer, 2):
            rendered(renderer, REQUESTS[work])

    with opened(tiny_checkpoint, state=tmp_path) as renderer:
        again = rendered(renderer, REQUESTS[work])
        assert (way_of(again, work), steps_of(again)) == ("alone", ())
        assert again.image.tobytes() == expected
        [other] = REQUESTS.keys() - {work}
        assert way_of(again, other) == "whole"
        another_kind = replace(REQUESTS[work], negative_prompt=None, true_cfg_scale=1.0)
        assert way_of(rendered(renderer, another_kind), work) == "whole"


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
        with short_in("encoded", model.renderer, 2):
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
        with short_in("encoded", renderer, 8):
            short = rendered(renderer, FROM_A_PICTURE)

    assert (how(short).plan, how(short).encoding) == ("resident-table", "whole")
    assert short.image.tobytes() == expected


LONG = replace(GUIDED, width=640)
"""Larger than the largest tiles."""
WAYS = ("whole", "alone", "tiles-512", "tiles-256", "tiles-128", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "request_for"),
    [
        ("decoded", LONG),
        ("encoded", replace(LONG, task="image-to-image", source=picture("teal", (640, 64)), strength=0.5)),
    ],
    ids=["decoded", "encoded"],
)
def test_with_the_memory_of_a_way_to_encode_or_decode_that_way_is_found(
    work: VaeWork, request_for: RenderRequest, tiny_checkpoint: Path, card: Card
) -> None:
    with opened(tiny_checkpoint, quality=LOSSY, placement_retry_seconds=1e-6) as renderer:
        assert ways_found(work, renderer, card, request_for, WAYS) == [*WAYS]


def ways_found(
    work: VaeWork, renderer: DiffusersRenderer, card: Card, request: RenderRequest, ways: Sequence[str]
) -> list[str]:
    """Draw once for each of the ways. What one took at its most, less one byte, is the budget of the next."""
    budget, found = float("inf"), []
    vae = vae_of(renderer)
    for _ in ways:
        with within(budget, card, vae.encoder if work == "encoded" else vae.decoder) as peaks, Computing(card):
            rendering = rendered(renderer, request)
        assert plan_of(rendering) == "resident"
        found.append(way_of(rendering, work))
        budget = max(peaks) - 1
    return found


@contextmanager
def within(budget: float, card: Card, part: Any) -> Iterator[list[int]]:
    """Let the card have so much while a part computes, and give what each forward took since the last failure."""
    peaks: list[int] = []

    def begin(*_: object) -> None:
        card.budget, card.peak = budget, 0

    def end(_: object, __: object, result: object) -> None:
        card.budget = float("inf")
        if result is None:
            # Tiles that went well before are no part of what the next way takes.
            peaks.clear()
        else:
            peaks.append(card.peak)

    hooks = [part.register_forward_pre_hook(begin), part.register_forward_hook(end, always_call=True)]
    yield peaks
    for hook in hooks:
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
            short_in("decoded", renderer, 1_000, MemoryError("Unable to allocate 3.00 GiB")),
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
@pytest.mark.timeout(600)
def test_with_the_memory_of_one_layer_they_are_decoded_one_after_the_other_before_anything_is_lost(
    tiny_family: Callable[[str], Path], card: Card
) -> None:
    ways = ("whole", "alone", "sliced", "cpu")
    with opened(
        tiny_family("qwen-image-layered"), family="qwen-image-layered", placement_retry_seconds=1e-6
    ) as renderer:
        expected = rendered(renderer, layered())

        assert ways_found("decoded", renderer, card, layered(), ways) == [*ways]

        with short_in("decoded", renderer, 3):
            short = rendered(renderer, layered())
    assert (how(short).decoding, how(short).exactness) == ("sliced", "float-drift")
    for mine, theirs in zip(short.layers, expected.layers, strict=True):
        assert deviation(mine, theirs) < 1
