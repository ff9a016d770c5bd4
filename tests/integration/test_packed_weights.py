"""Weights in fewer bits: what each format loses, that nothing of it stays, and what is said without it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from qwen_image_daemon.cli.planning import FITS, print_plans
from qwen_image_daemon.render.memory import PLAN_OF, PLANS
from qwen_image_daemon.render.packed_weights import Packed
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.quantisers import (
    EXTRAS,
    QUANTISERS,
    Format,
    Library,
    formats_at_hand,
    refuse_lacking,
)
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.streaming import Part
from qwen_image_daemon.settings import PlanName
from tiny_models import loaded

CPU = torch.device("cpu")
QUANTISED: list[PlanName] = ["int8-table", "float8", "nf4"]
LOST: dict[Format, float] = {"int8": 0.007, "float8": 0.027, "nf4": 0.09}
"""As docs/models.md and decision 17 say."""


@pytest.fixture
def _without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in get_args(Library):
        # As Python itself marks what cannot be imported.
        monkeypatch.setitem(sys.modules, library, None)


@torch.no_grad()
def loss(kept: Format, precision: torch.dtype, spread: float = 1) -> float:
    """Give the error of a layer's result, as a part of the result."""
    noise = torch.Generator().manual_seed(0)
    layer = nn.Linear(256, 192, bias=False).to(precision)
    layer.weight.data = torch.randn(192, 256, generator=noise).to(precision) * spread
    given = torch.randn(8, 256, generator=noise).to(precision)
    expected = layer(given).float()
    original = layer.weight.data
    packed = Packed([Part(layer, [layer.weight])], kept, CPU)
    assert layer.weight.untyped_storage().nbytes() == original.element_size()
    lost = (layer(given).float() - expected).norm() / expected.norm()
    packed.remove()
    return float(lost)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_of_the_formats_the_one_that_comes_first_loses_least(precision: torch.dtype) -> None:
    kept = dict.fromkeys(plan.kept for plan in PLANS if plan.kept != "as loaded")

    assert list(kept) == list(LOST) == sorted(LOST, key=lambda each: LOST[each])
    for each in formats_at_hand():
        assert loss(each, precision) == pytest.approx(LOST[each], rel=0.25), each


@pytest.mark.parametrize("spread", [100, 0.02, 1e-4])
def test_how_large_the_weights_are_makes_no_difference(spread: float) -> None:
    for each in formats_at_hand():
        assert loss(each, torch.bfloat16, spread) == pytest.approx(LOST[each], rel=0.25), each


def test_a_row_of_zeros_stays_one() -> None:
    layer = nn.Linear(64, 64, bias=False, dtype=torch.float16)
    layer.weight.data[7] = 0

    with torch.no_grad():
        Packed([Part(layer, [layer.weight])], "float8", CPU)

        assert layer(torch.ones(1, 64, dtype=torch.float16))[0, 7] == 0


def test_what_was_quantised_is_put_back_to_the_byte_and_nothing_stays(
    tiny_family: Callable[[str], Path],
) -> None:
    with loaded("qwen-image", tiny_family("qwen-image")) as model:
        pipeline = model.pipeline
        entered = model.renderer._entered.loaded
        entered.warm.forget_arrangement()
        before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in parameters(pipeline.transformer)}
        placement = WeightPlacement(pipeline.transformer, pipeline.text_encoder, pipeline.vae)
        for plan in (plan for plan in QUANTISED if PLAN_OF[plan].kept in formats_at_hand()):
            placement.arrange(PLAN_OF[plan], CPU)
            shrunk = [name for name, tensor in parameters(pipeline.transformer) if not tensor.stride(0)]
            assert len(shrunk) > 10
            placement.undo()
            for name, tensor in parameters(pipeline.transformer):
                place, content = before[name]
                assert tensor.data_ptr() == place
                assert torch.equal(tensor, content)
        hooks = [module for module in pipeline.transformer.modules() if module._forward_pre_hooks]
        assert hooks == []


def parameters(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor.data) for name, tensor in module.named_parameters()]


def test_a_matrix_that_does_not_fit_leaves_the_layers_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [nn.Linear(64, 64, bias=False) for _ in range(3)]
    before = [layer.weight.data for layer in layers]
    came = iter(range(2))

    def onto(_: torch.device, resting: torch.Tensor) -> torch.Tensor:
        if next(came, None) is None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return resting.clone()

    monkeypatch.setattr("qwen_image_daemon.render.devices.onto", onto)
    with pytest.raises(torch.OutOfMemoryError):
        Packed([Part(layer, [layer.weight]) for layer in layers], "float8", CPU)

    assert all(layer.weight.data_ptr() == data.data_ptr() for layer, data in zip(layers, before, strict=True))


@pytest.mark.usefixtures("_without_libraries")
def test_without_its_library_a_format_is_not_offered_and_refused_where_it_is_set() -> None:
    assert formats_at_hand() == {"float8"}
    refuse_lacking("float8", "render.placement")
    with pytest.raises(ModelUnavailable, match=r'render.placement = "nf4" needs bitsandbytes') as refused:
        refuse_lacking("nf4", 'render.placement = "nf4"')
    assert "pip install 'qwen-image-daemon[nf4]'" in refused.value.fix


@pytest.mark.usefixtures("_without_libraries")
def test_plan_says_which_library_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    answer = print_plans(None, None, "16GB", "24GB", None, "allow-quantized")

    assert answer == FITS
    told = capsys.readouterr().out
    assert "nf4-table" not in told
    assert "→ disk-table" in told
    assert "With bitsandbytes it would be nf4: transformer in 4 bits" in told
    assert "pip install 'qwen-image-daemon[nf4]'" in told


def test_every_library_has_its_extra() -> None:
    # SDNQ is GPL-3.0, and comes along with nothing of this program.
    assert set(EXTRAS) == set(get_args(Library)) - {"sdnq"}
    assert {made.library for made in QUANTISERS.values()} - {None} <= set(EXTRAS)
