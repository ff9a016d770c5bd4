"""The ladder as a whole on a real card: with what an arrangement took, and no more, it ends at that one, by name.

As tests/integration/test_rungs.py does with a card that only counts. What the process may have is cut with
`set_per_process_memory_fraction`, to what the arrangement had reserved at its most when it was set. Parts of some
gigabytes with random weights are made for it, once for each family.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from arranged import drawn, opened, plan_of, rendered, steps_of
from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.devices import give_back
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.render.quantisers import Format
from qwen_image_daemon.render.renderer import OutOfMemory
from qwen_image_daemon.settings import PlanName
from ways_down import AT_HAND, EXACT, FIRST, FORMATS, FROM_FILES, SECOND, as_far_as, way_of, with_fewer_bits
from weights_on_a_card import Parts, with_large_parts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.timeout(1200),
]

# Blocks of 300 MB, far above what the allocator rounds to. A layer of the text encoder takes 63 MB, and about 150
# beside it for what it computes: more than a block's modulation (50), less than the two blocks that are streamed.
LARGE = Parts(heads=128, layers=28, layer_width=327_680, precision=torch.bfloat16)
SLACK = 32 * 2**20
"""What the allocator may reserve more in one run than in another: it rounds to 2 MiB, and to 20 MiB in between."""


@dataclass(frozen=True)
class Took:
    """What a picture had reserved of the card at its most, and its pixels."""

    most: int
    picture: bytes


@dataclass(frozen=True)
class Bench:
    """A card, models by family, and what their arrangements took where they were set."""

    device: torch.device
    checkpoint: Callable[[FamilyName], Path]
    known: dict[tuple[FamilyName, PlanName], Took] = field(default_factory=dict)

    def opened(self, family: FamilyName, placement: PlanName, **settings: Any) -> DiffusersRenderer:
        """Give a model, not yet open, that begins each picture at the top, whatever worked."""
        name: FamilyName = "demo" if family == FIRST else family
        given: dict[str, Any] = {
            "device": "cuda",
            "precisions": ("bfloat16",),
            "placement_retry_seconds": 1e-6,
        } | settings
        return opened(self.checkpoint(family), placement, family=name, **given)

    def took(self, family: FamilyName, plan: PlanName) -> Took:
        """Draw in this arrangement with the whole card, once for all tests."""
        if (family, plan) not in self.known:
            with self.opened(family, plan) as renderer:
                renderer.stand_by()
                torch.cuda.reset_peak_memory_stats(self.device)
                rendering = rendered(renderer)
                most = torch.cuda.max_memory_reserved(self.device)
            assert (plan_of(rendering), steps_of(rendering)) == (plan, ())
            self.known[family, plan] = Took(most, rendering.image.tobytes())
        return self.known[family, plan]

    def enough_only_for_the_last(self, family: FamilyName, down: list[PlanName]) -> int:
        """Give what the last of these arrangements took. Every one before it took clearly more."""
        *before, last = (self.took(family, plan).most for plan in down)
        assert min(before, default=last + 3 * SLACK) > last + 2 * SLACK, "the parts must be larger"
        return last + SLACK

    @contextmanager
    def no_more_than(self, budget: int, renderer: DiffusersRenderer) -> Iterator[None]:
        """Let this process have so much of the card inside, with nothing of the model on it at the beginning."""
        renderer.stand_by()
        _, total = torch.cuda.mem_get_info(self.device)
        torch.cuda.set_per_process_memory_fraction(budget / total, self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)


@pytest.fixture(scope="module")
def bench(tiny_family: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("large")

    def checkpoint(family: FamilyName) -> Path:
        made = folder / family
        return made if made.exists() else with_large_parts(tiny_family(family), made, LARGE)

    return Bench(torch.device("cuda", torch.cuda.current_device()), checkpoint)


@pytest.fixture(autouse=True)
def _tidy(bench: Bench) -> Iterator[None]:
    yield
    give_back(bench.device)


@pytest.fixture(autouse=True)
def _formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no more formats at hand than a test says, whatever is installed."""
    offer(monkeypatch, "float8")


def offer(monkeypatch: pytest.MonkeyPatch, kept: Format) -> None:
    monkeypatch.setattr("qwen_image_daemon.render.memory.formats_at_hand", lambda: frozenset({kept}))


@pytest.mark.parametrize(
    ("family", "rung"), [(family, rung) for family in (FIRST, SECOND) for rung in EXACT[family]]
)
def test_with_the_memory_of_an_exact_arrangement_it_is_reached_step_by_step(
    family: FamilyName, rung: PlanName, bench: Bench
) -> None:
    down = as_far_as(rung, EXACT[family])
    budget = bench.enough_only_for_the_last(family, down)

    with bench.opened(family, down[0]) as renderer, bench.no_more_than(budget, renderer):
        rendering = rendered(renderer)

    assert way_of(steps_of(rendering), down) == down
    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == bench.took(family, "resident").picture


@pytest.mark.parametrize(
    ("kept", "rung"), [(kept, rung) for kept in FORMATS for rung in with_fewer_bits(kept)[5:7]]
)
def test_where_it_is_allowed_fewer_bits_come_before_blocks_are_streamed(
    kept: Format, rung: PlanName, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kept not in AT_HAND:
        pytest.skip("its library is not installed")
    offer(monkeypatch, kept)
    down = as_far_as(rung, with_fewer_bits(kept))
    budget = bench.enough_only_for_the_last(FIRST, down)

    with (
        bench.opened(FIRST, down[0], quality="allow-quantized") as renderer,
        bench.no_more_than(budget, renderer),
    ):
        rendering = rendered(renderer)

    assert way_of(steps_of(rendering), down) == down
    assert rendering.arrangement is not None
    assert rendering.arrangement.exactness == PLAN_OF[rung].exactness == "lossy"


@pytest.mark.parametrize(
    ("family", "rung"), [(family, rung) for family, way in FROM_FILES.items() for rung in way[1:]]
)
def test_where_the_host_has_no_room_for_blocks_the_card_is_used_as_far_as_its_own_memory_goes(
    family: FamilyName, rung: PlanName, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's part is played: how much memory a process may pin cannot be cut."""

    def pinned_for(_: torch.device, resting: torch.Tensor) -> NoReturn:
        raise MemoryError(f"{resting.nbytes} bytes could not be pinned")

    down = as_far_as(rung, FROM_FILES[family])
    budget = bench.enough_only_for_the_last(family, down[1:])
    monkeypatch.setattr("qwen_image_daemon.render.devices.pinned_for", pinned_for)

    with bench.opened(family, down[0]) as renderer, bench.no_more_than(budget, renderer):
        rendering = rendered(renderer)

    assert way_of(steps_of(rendering), down) == down
    assert plan_of(rendering) == rung
    assert rendering.image.tobytes() == bench.took(family, "resident").picture


def test_with_no_memory_the_job_fails_and_the_next_is_that_of_a_fresh_model(bench: Bench) -> None:
    with bench.opened(FIRST, "resident") as renderer:
        expected = drawn(renderer)
        with bench.no_more_than(0, renderer), pytest.raises(OutOfMemory, match="Memory ran out on the device"):
            drawn(renderer)

        again = rendered(renderer)

    assert again.image.tobytes() == expected
    assert (plan_of(again), steps_of(again)) == ("resident", ())
