"""With the memory of an arrangement, and no more, the ladder ends at that one, by name.

The card refuses what is beyond its budget, and so does the host where blocks are to be kept at hand for the card.
The budgets are sums of the model's own tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from arranged import drawn, insert, opened, pipeline_of, plan_of, rendered, steps_of
from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.memory import Memory
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.plans import PLAN_OF, PLANS
from qwen_image_daemon.render.quantisers import Format
from qwen_image_daemon.render.renderer import OutOfMemory
from qwen_image_daemon.settings import PlanName
from tiny_models import Card, Computing
from ways_down import AT_HAND, EXACT, FIRST, FORMATS, FROM_FILES, SECOND, as_far_as, way_of, with_fewer_bits
from weights_on_a_card import TINY_BLOCKS, CardWeights, with_large_parts

OFTEN = {(FIRST, "float8"), (FIRST, "leaves"), (SECOND, "by-turns"), (SECOND, "disk")}


def each(family: FamilyName, rungs: Sequence[PlanName], *more: Any) -> list[Any]:
    """Try some often, and the others with `make slow`."""
    return [pytest.param(*more, family, rung, id=f"{family} {rung}", marks=_marks(family, rung)) for rung in rungs]


def _marks(family: FamilyName, rung: PlanName) -> list[pytest.MarkDecorator]:
    often = [] if (family, rung) in OFTEN else [pytest.mark.slow]
    return [*often, _needs_its_library(PLAN_OF[rung].kept)]


def _needs_its_library(kept: Format) -> pytest.MarkDecorator:
    is_there = kept in {"as loaded", *AT_HAND}
    return pytest.mark.skipif(not is_there, reason="its library is not installed (make slow)")


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
    arrange = WeightPlacement.arrange

    def counted(placement: WeightPlacement, *how: Any) -> None:
        # What is packed is made of what came onto the card.
        with Computing(card):
            arrange(placement, *how)

    patch.setattr(WeightPlacement, "arrange", counted)
    return card


@dataclass(frozen=True)
class Fresh:
    """A model that was just loaded, what its parts take, and the picture that it draws all in one place."""

    checkpoint: Path
    family: FamilyName
    renderer: DiffusersRenderer
    weights: CardWeights
    picture: bytes

    def again(self, placement: PlanName = "resident", **settings: Any) -> DiffusersRenderer:
        """Give another one of the same, not yet open, that begins each picture at the top, whatever worked."""
        family: FamilyName = "demo" if self.family == FIRST else self.family
        return opened(self.checkpoint, placement, family=family, placement_retry_seconds=1e-6, **settings)


@dataclass(frozen=True)
class Bench:
    """Models by family, each loaded once, and the card that only one of them is on."""

    card: Card
    checkpoint: Callable[[FamilyName], Path]
    stack: ExitStack
    loaded: dict[FamilyName, Fresh] = field(default_factory=dict)

    def model(self, family: FamilyName) -> Fresh:
        """Give the model of a family. Its picture was drawn all in one place on the card."""
        if family not in self.loaded:
            self.clear()
            checkpoint = self.checkpoint(family)
            name: FamilyName = "demo" if family == FIRST else family
            renderer = self.stack.enter_context(opened(checkpoint, family=name, placement_retry_seconds=1e-6))
            assert self.card.used
            picture = drawn(renderer)
            renderer.stand_by()
            weights = CardWeights.of(pipeline_of(renderer), self.card)
            self.loaded[family] = Fresh(checkpoint, family, renderer, weights, picture)
        return self.loaded[family]

    def clear(self) -> None:
        """Leave nothing of these models on the card."""
        for fresh in self.loaded.values():
            fresh.renderer.stand_by()
        assert self.card.used == 0

    @contextmanager
    def no_more_than(self, budget: int, renderer: DiffusersRenderer) -> Iterator[None]:
        """Let the card have so much memory inside, with nothing of any model on it at the beginning."""
        renderer.stand_by()
        self.clear()
        self.card.budget = budget
        try:
            yield
        finally:
            self.card.budget = float("inf")


@pytest.fixture(scope="module")
def bench(
    tiny_family: Callable[[str], Path], card: Card, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("large")
    with ExitStack() as stack:
        yield Bench(card, lambda family: with_large_parts(tiny_family(family), folder / family), stack)


@pytest.fixture(autouse=True)
def _formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no more formats at hand than a test says, whatever is installed."""
    offer(monkeypatch, "float8")


def offer(monkeypatch: pytest.MonkeyPatch, kept: Format) -> None:
    monkeypatch.setattr("qwen_image_daemon.render.memory.formats_at_hand", lambda: frozenset({kept}))


# --- the device -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "rung"), [*each(FIRST, EXACT[FIRST]), *each(SECOND, EXACT[SECOND])])
def test_with_the_memory_of_an_exact_arrangement_it_is_reached_step_by_step(
    family: FamilyName, rung: PlanName, bench: Bench
) -> None:
    fresh = bench.model(family)
    down = as_far_as(rung, EXACT[family])

    with bench.no_more_than(enough_only_for_the_last(down, fresh.weights), fresh.renderer):
        rendering = rendered(fresh.renderer)

    assert way_of(steps_of(rendering), down) == down
    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == fresh.picture


@pytest.mark.parametrize(
    ("kept", "family", "rung"),
    [param for kept in FORMATS for param in each(FIRST, with_fewer_bits(kept)[5:7], kept)]
    + each(FIRST, ["blocks-table"], "float8"),
)
def test_where_it_is_allowed_fewer_bits_come_before_blocks_are_streamed(
    kept: Format, family: FamilyName, rung: PlanName, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, kept)
    fresh = bench.model(family)
    down = as_far_as(rung, with_fewer_bits(kept))

    budget = enough_only_for_the_last(down, fresh.weights)
    with fresh.again(quality="allow-quantized") as renderer, bench.no_more_than(budget, renderer):
        rendering = rendered(renderer)

    assert way_of(steps_of(rendering), down) == down
    assert rendering.arrangement is not None
    assert rendering.arrangement.exactness == PLAN_OF[rung].exactness
    assert (rendering.image.tobytes() == fresh.picture) == (PLAN_OF[rung].exactness == "exact")


def test_with_no_memory_the_job_fails_with_its_sentence_and_the_next_is_that_of_a_fresh_model(
    bench: Bench, card: Card
) -> None:
    fresh = bench.model(FIRST)
    with bench.no_more_than(0, fresh.renderer), pytest.raises(OutOfMemory) as failure:
        drawn(fresh.renderer)

    assert str(failure.value).startswith("Memory ran out on the device: OutOfMemoryError: CUDA out of memory.")
    assert failure.value.fix
    assert card.used == 0
    again = rendered(fresh.renderer)
    assert again.image.tobytes() == fresh.picture
    assert (plan_of(again), steps_of(again)) == ("resident", ())


@pytest.mark.slow
def test_with_no_memory_the_cpu_draws_where_it_may(bench: Bench) -> None:
    fresh = bench.model(FIRST)
    with fresh.again(cpu_fallback=True) as renderer, bench.no_more_than(0, renderer):
        rendering = rendered(renderer)

    down = [*EXACT[FIRST], "cpu"]
    assert way_of(steps_of(rendering), down) == down
    assert plan_of(rendering) == "cpu"


@pytest.mark.parametrize("plan", [pytest.param(plan.name, marks=_needs_its_library(plan.kept)) for plan in PLANS])
@pytest.mark.slow
def test_what_an_arrangement_takes_is_what_its_tensors_add_up_to(plan: PlanName, bench: Bench, card: Card) -> None:
    fresh = bench.model(FIRST)
    bench.clear()
    card.peak = 0
    with fresh.again(plan) as renderer:
        drawn(renderer)

    assert card.peak == (0 if plan == "cpu" else fresh.weights.of_plan(PLAN_OF[plan]))


# --- the host -------------------------------------------------------------------------------------------------


@contextmanager
def host_with(budget: int, patch: pytest.MonkeyPatch) -> Iterator[Card]:
    """Let the host have so much memory inside that a card can read by itself, and no more."""
    host = Card()
    host.budget = budget

    def pinned_for(device: torch.device, resting: torch.Tensor) -> torch.Tensor:
        try:
            return host.onto(device, resting)
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    with patch.context() as only_here:
        only_here.setattr("qwen_image_daemon.render.devices.pinned_for", pinned_for)
        yield host


@pytest.mark.parametrize(
    ("family", "short", "rung"),
    [(FIRST, 0, "blocks-table"), (FIRST, 1, "disk-table"), (SECOND, 0, "blocks"), (SECOND, 1, "disk")],
)
@pytest.mark.slow
def test_with_too_little_of_the_host_to_keep_blocks_at_hand_they_are_read_from_their_files(
    family: FamilyName, short: int, rung: PlanName, bench: Bench, patch: pytest.MonkeyPatch
) -> None:
    fresh = bench.model(family)
    start = FROM_FILES[family][0]
    all_blocks = TINY_BLOCKS * fresh.weights.block_of(PLAN_OF[start])

    with host_with(all_blocks - short, patch) as host, fresh.again(start) as renderer:
        rendering = rendered(renderer)

    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == fresh.picture
    assert host.used == 0


@pytest.mark.parametrize(
    ("family", "rung"), [*each(FIRST, FROM_FILES[FIRST][1:]), *each(SECOND, FROM_FILES[SECOND][1:])]
)
def test_where_the_host_has_no_room_for_blocks_the_card_is_used_as_far_as_its_own_memory_goes(
    family: FamilyName, rung: PlanName, bench: Bench, patch: pytest.MonkeyPatch
) -> None:
    """By the numbers the card bears more than blocks: the text encoder alone is read from its files, at first."""
    fresh = bench.model(family)
    down = as_far_as(rung, FROM_FILES[family])
    budget = enough_only_for_the_last(down[1:], fresh.weights)

    with host_with(0, patch) as host, patch.context() as only_here:
        only_here.setattr(
            "qwen_image_daemon.render.checkpoint_opening.free_memory", lambda _: Memory(device=2**40, host=2**40)
        )
        with fresh.again(down[0]) as renderer, bench.no_more_than(budget, renderer):
            rendering = rendered(renderer)

    assert way_of(steps_of(rendering), down) == down
    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == fresh.picture
    assert host.used == 0


# --- attention ------------------------------------------------------------------------------------------------

AT_ONCE = 2**16
"""Bytes of a card that attention takes all at once; in slices it takes an eighth."""


@dataclass
class Attention:
    """What attention takes of a card, in a transformer that can compute it in slices. Qwen's own cannot."""

    card: Card
    slices: int = 1

    def set(self, size: str | None) -> None:
        self.slices = 1 if size is None else 8

    def compute(self, *_: object) -> None:
        self.card.onto(torch.device("cpu"), torch.empty(AT_ONCE // self.slices, dtype=torch.uint8))


@pytest.fixture
def attention(bench: Bench, card: Card, monkeypatch: pytest.MonkeyPatch) -> Attention:
    # Loaded before: its own transformer is asked only then.
    bench.model(FIRST)
    attention = Attention(card)
    can = "diffusers.QwenImageTransformer2DModel.set_attention_slice"
    monkeypatch.setattr(can, attention.set, raising=False)
    return attention


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beside", "plan", "levers"),
    [
        (AT_ONCE, "resident", ()),
        (AT_ONCE - 1, "resident", ("attention was computed in slices",)),
        (AT_ONCE // 8 - 1, "resident-table", ("attention was computed in slices",)),
    ],
)
def test_with_the_memory_for_slices_of_attention_they_are_computed_before_the_arrangement_changes(
    beside: int, plan: PlanName, levers: tuple[str, ...], bench: Bench, attention: Attention
) -> None:
    fresh = bench.model(FIRST)
    budget = fresh.weights.of_plan(PLAN_OF["resident"]) + beside

    with fresh.again() as renderer:
        pipeline_of(renderer).transformer.transformer_blocks[0].attn.register_forward_pre_hook(attention.compute)
        with bench.no_more_than(budget, renderer):
            rendering = rendered(renderer)

    assert plan_of(rendering) == plan
    assert rendering.arrangement is not None
    assert rendering.arrangement.levers == levers
    assert attention.slices == 1
    assert rendering.image.tobytes() == fresh.picture


# --- all of them ----------------------------------------------------------------------------------------------


def test_every_arrangement_is_reached_by_some_budget() -> None:
    ways: list[list[PlanName]] = [*EXACT.values(), *map(with_fewer_bits, FORMATS), *FROM_FILES.values(), ["cpu"]]

    assert {rung for way in ways for rung in way} == {plan.name for plan in PLANS}


def enough_only_for_the_last(down: Sequence[PlanName], weights: CardWeights) -> int:
    """Give what the last of these arrangements holds at its most. Every one before it holds more."""
    *before, last = (weights.of_plan(PLAN_OF[plan]) for plan in down)
    assert all(size > last for size in before)
    return last
