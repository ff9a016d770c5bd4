"""Models that stand by go before anything of a picture is given up for lack of host memory, and only then."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arranged import GUIDED, Shortage, insert, opened, pipeline_of, plan_of, rendered, steps_of
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import HostOutOfMemory, Loading, Renderer, Rendering
from qwen_image_daemon.render.warm_models import WarmModels
from qwen_image_daemon.settings import PlanName
from tiny_models import Card

FULL = MemoryError("Unable to allocate 3.00 GiB")


@pytest.fixture(autouse=True)
def _card(monkeypatch: pytest.MonkeyPatch) -> None:
    insert(Card(), monkeypatch)


@pytest.fixture
def two(tiny_checkpoint: Path) -> Iterator[Callable[[PlanName, str], "Two"]]:
    opened_ones: list[WarmModels] = []

    def loaded(plan: PlanName, quality: str) -> "Two":
        def open_model(_: str, __: Callable[[Loading], None], let_go_of_others: Callable[[], bool]) -> Renderer:
            return opened(tiny_checkpoint, plan, let_go_of_others=let_go_of_others, quality=quality)

        warm = WarmModels(open_model, most=2)
        opened_ones.append(warm)
        warm.get("other")
        return Two(warm)

    yield loaded
    for warm in opened_ones:
        warm.let_go()


class Two:
    """A model at work, and another one that stands by."""

    def __init__(self, warm: WarmModels) -> None:
        self.warm = warm
        renderer = warm.get("at work")
        assert isinstance(renderer, DiffusersRenderer)
        self.renderer = renderer

    def drawn_short(self, times: int, fault: Exception | None, module: Any = None) -> Rendering:
        with Shortage(self.renderer, times, fault, module):
            return rendered(self.renderer)

    @property
    def other_is_there(self) -> bool:
        return "other" in self.warm.names


Loaded = Callable[[PlanName, str], Two]


def test_for_the_hosts_memory_they_go_before_anything_is_read_from_disk(two: Loaded) -> None:
    both = two("encoder-streamed", "lossless")
    expected = rendered(both.renderer)

    short = both.drawn_short(2, FULL)

    assert not both.other_is_there
    assert plan_of(short) == "encoder-streamed"
    assert short.image == expected.image
    assert [step.partition(":")[0] for step in steps_of(short)] == [
        "again",
        "again, without the models that stood by",
    ]
    # They can go once: after that it is read from disk as ever.
    assert plan_of(both.drawn_short(2, FULL)) == "encoder-disk"


def test_for_the_devices_memory_they_do_not_matter_and_stay(two: Loaded) -> None:
    both = two("resident", "lossless")

    short = both.drawn_short(2, None)

    assert both.other_is_there
    assert plan_of(short) == "resident-table"


def test_while_a_picture_is_decoded_they_go_before_it_is_cut_into_tiles(two: Loaded) -> None:
    both = two("resident", "allow-quantized")
    expected = rendered(both.renderer)

    short = both.drawn_short(2, FULL, pipeline_of(both.renderer).vae.decoder.conv_in)

    assert not both.other_is_there
    assert short.arrangement is not None
    assert (short.arrangement.decoding, short.arrangement.exactness) == ("whole", "exact")
    assert short.image == expected.image
    assert steps_of(short)[1].startswith(
        "decoded again, without the models that stood by: Memory ran out on the host"
    )


@pytest.mark.slow
def test_where_that_is_not_enough_the_job_fails_alone(two: Loaded) -> None:
    both = two("resident", "lossless")
    expected = rendered(both.renderer)

    with pytest.raises(HostOutOfMemory):
        both.drawn_short(1_000, FULL)

    assert rendered(both.renderer, GUIDED).image == expected.image
