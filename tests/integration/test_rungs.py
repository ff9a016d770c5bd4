"""With the memory of an arrangement, and no more, the ladder ends at that one, by name.

The card refuses what is beyond its budget. Its budgets are sums of the model's own tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from arranged import drawn, insert, opened, pipeline_of, plan_of, rendered, steps_of
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.memory import PLAN_OF
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.renderer import OutOfMemory
from qwen_image_daemon.settings import PlanName
from tiny_models import Card, Computing
from weights_on_a_card import BLOCKS, CardWeights, with_large_parts

EXACT: list[PlanName] = [
    "resident",
    "resident-table",
    "encoder-streamed",
    "encoder-streamed-table",
    # By turns with the whole transformer would take more than the one before it.
    "by-turns-table",
    "blocks-table",
    # Blocks with their modulation would, too.
    "leaves",
]
"""The way down of a model whose weights are what counts."""
WITH_FEWER_BITS: list[PlanName] = [*EXACT[:5], "float8", "float8-table", *EXACT[5:]]
OFTEN = {"float8", "leaves"}


def each(way_down: list[PlanName]) -> list[Any]:
    """Try some often, and the others with `make slow`."""
    return [pytest.param(rung, id=rung, marks=[] if rung in OFTEN else [pytest.mark.slow]) for rung in way_down]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def card(patch: pytest.MonkeyPatch) -> Card:
    card = Card()
    insert(card, patch)
    # Of a card that counts weights only. The estimates for computing are those of the real sizes: gibibytes, in
    # which the weights of a tiny model would be lost.
    for name in ("_FIXED", "_ENCODING", "_DENOISING_PER_TOKEN", "_DECODING_PER_PIXEL"):
        patch.setattr(f"qwen_image_daemon.render.memory.{name}", 0)
    patch.setattr("qwen_image_daemon.render.memory.formats_at_hand", lambda: frozenset({"float8"}))
    arrange = WeightPlacement.arrange

    def counted(placement: WeightPlacement, *how: Any) -> None:
        # What is packed is made of what came onto the card.
        with Computing(card):
            arrange(placement, *how)

    patch.setattr(WeightPlacement, "arrange", counted)
    return card


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_large_parts(tiny_checkpoint, tmp_path_factory.mktemp("large") / "parts")


@dataclass(frozen=True)
class Fresh:
    """A model that was just loaded, what its parts take, and the picture that it draws all in one place."""

    renderer: DiffusersRenderer
    weights: CardWeights
    picture: bytes


@pytest.fixture(scope="module")
def fresh(checkpoint: Path, card: Card) -> Iterator[Fresh]:
    with opened_for(checkpoint) as renderer:
        assert card.used
        yield Fresh(renderer, CardWeights.of(pipeline_of(renderer)), drawn(renderer))


def opened_for(checkpoint: Path, **settings: object) -> DiffusersRenderer:
    """Open a model that begins each picture at the top, whatever worked before."""
    return opened(checkpoint, placement_retry_seconds=1e-6, **settings)


@contextmanager
def no_more_than(budget: int, card: Card, renderer: DiffusersRenderer) -> Iterator[None]:
    """Let the card have so much memory inside, with nothing of the model on it at the beginning."""
    renderer.stand_by()
    assert card.used == 0
    card.budget = budget
    try:
        yield
    finally:
        card.budget = float("inf")


@pytest.mark.parametrize("rung", each(EXACT))
def test_with_the_memory_of_an_exact_arrangement_it_is_reached_step_by_step(
    rung: PlanName, fresh: Fresh, card: Card
) -> None:
    down = EXACT[: EXACT.index(rung) + 1]

    with no_more_than(enough_only_for_the_last(down, fresh.weights), card, fresh.renderer):
        rendering = rendered(fresh.renderer)

    assert way_of(steps_of(rendering)) == down
    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == fresh.picture


@pytest.mark.parametrize("rung", each(["float8", "float8-table", "blocks-table"]))
def test_where_it_is_allowed_fewer_bits_come_before_blocks_are_streamed(
    rung: PlanName, checkpoint: Path, fresh: Fresh, card: Card
) -> None:
    down = WITH_FEWER_BITS[: WITH_FEWER_BITS.index(rung) + 1]

    with opened_for(checkpoint, quality="allow-quantized") as renderer:
        fresh.renderer.stand_by()
        with no_more_than(enough_only_for_the_last(down, fresh.weights), card, renderer):
            rendering = rendered(renderer)

    assert way_of(steps_of(rendering)) == down
    assert rendering.arrangement is not None
    assert rendering.arrangement.exactness == PLAN_OF[rung].exactness
    assert (rendering.image.tobytes() == fresh.picture) == (PLAN_OF[rung].exactness == "exact")


def test_with_no_memory_the_job_fails_with_its_sentence_and_the_next_is_that_of_a_fresh_model(
    fresh: Fresh, card: Card
) -> None:
    with no_more_than(0, card, fresh.renderer), pytest.raises(OutOfMemory) as failure:
        drawn(fresh.renderer)

    assert str(failure.value).startswith("Memory ran out on the device: OutOfMemoryError: CUDA out of memory.")
    assert failure.value.fix
    assert card.used == 0
    again = rendered(fresh.renderer)
    assert again.image.tobytes() == fresh.picture
    assert (plan_of(again), steps_of(again)) == ("resident", ())


@pytest.mark.slow
def test_with_no_memory_the_cpu_draws_where_it_may(checkpoint: Path, fresh: Fresh, card: Card) -> None:
    with opened_for(checkpoint, cpu_fallback=True) as renderer:
        fresh.renderer.stand_by()
        with no_more_than(0, card, renderer):
            rendering = rendered(renderer)

    assert way_of(steps_of(rendering)) == [*EXACT, "cpu"]
    assert plan_of(rendering) == "cpu"


@pytest.mark.parametrize(("short", "rung"), [(0, "blocks-table"), (1, "disk-table")])
@pytest.mark.slow
def test_with_too_little_of_the_host_to_keep_blocks_at_hand_they_are_read_from_their_files(
    short: int, rung: PlanName, checkpoint: Path, fresh: Fresh, patch: pytest.MonkeyPatch
) -> None:
    weights, host = fresh.weights, Card()
    host.budget = BLOCKS * weights.block - weights.modulation - short

    def pinned_for(device: torch.device, resting: torch.Tensor) -> torch.Tensor:
        try:
            return host.onto(device, resting)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    with patch.context() as only_here:
        only_here.setattr("qwen_image_daemon.render.devices.pinned_for", pinned_for)
        with opened_for(checkpoint, placement="blocks-table") as renderer:
            rendering = rendered(renderer)

    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == fresh.picture
    assert host.used == 0


@pytest.mark.parametrize("plan", [plan for plan in PLAN_OF if PLAN_OF[plan].kept in {"as loaded", "float8"}])
@pytest.mark.slow
def test_what_an_arrangement_takes_is_what_its_tensors_add_up_to(
    plan: PlanName, checkpoint: Path, fresh: Fresh, card: Card
) -> None:
    fresh.renderer.stand_by()
    card.peak = 0
    with opened_for(checkpoint, placement=plan) as renderer:
        drawn(renderer)

    assert card.peak == (0 if plan == "cpu" else fresh.weights.of_plan(PLAN_OF[plan]))


def enough_only_for_the_last(down: list[PlanName], weights: CardWeights) -> int:
    """Give what the last of these arrangements holds at its most. Every one before it holds more."""
    *before, last = (weights.of_plan(PLAN_OF[plan]) for plan in down)
    assert all(size > last for size in before)
    return last


def way_of(steps: tuple[str, ...]) -> list[str]:
    """Give the arrangements that were tried, by name."""
    moves = [step.partition(":")[0].split() for step in steps if step.startswith("as ")]
    return ["resident", *(name for _, name, *_ in moves)]
