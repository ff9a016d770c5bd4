"""Weights in fewer bits: what each format loses, that nothing of it stays, and what is said without it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from torch import nn

from arranged import drawn, opened, rendered
from qwen_image_daemon.cli.planning import FITS, print_plans
from qwen_image_daemon.render.packed_weights import Packed
from qwen_image_daemon.render.packers import packer
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.plans import PLAN_OF, PLANS
from qwen_image_daemon.render.quantisers import (
    QUANTISERS,
    Format,
    Library,
    Maker,
    formats_at_hand,
    installed_libraries,
    refuse_lacking,
)
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.streaming import Part
from qwen_image_daemon.settings import PlanName
from tiny_models import loaded

CPU = torch.device("cpu")
QUANTISED: list[PlanName] = ["int8-table", "uint6", "float8", "uint4-table", "nf4"]
LOST: dict[Format, float] = {"int8": 0.0075, "uint6": 0.026, "float8": 0.027, "uint4": 0.089, "nf4": 0.091}
"""As docs/models.md and decision 17 say."""


@pytest.fixture
def _without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in get_args(Library):
        # As Python itself marks what cannot be imported.
        monkeypatch.setitem(sys.modules, library, None)


def all_makers() -> list[Any]:
    """Give every way to make a format, those whose library is not installed marked."""
    there = {"torch", *installed_libraries()}
    return [
        pytest.param(
            kept,
            maker,
            id=f"{kept} by {maker}",
            marks=pytest.mark.skipif(maker not in there, reason=f"{maker} is not installed (make slow)"),
        )
        for kept, quantiser in QUANTISERS.items()
        for maker in quantiser.makers
    ]


def normal_weights() -> torch.Tensor:
    return torch.randn(192, 256, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def loss(
    kept: Format,
    maker: Maker,
    precision: torch.dtype,
    spread: float = 1,
    weights: torch.Tensor | None = None,
) -> float:
    """Give the error of a layer's result, as a part of the result."""
    layer = nn.Linear(256, 192, bias=False).to(precision)
    layer.weight.data = (normal_weights() if weights is None else weights).to(precision) * spread
    given = torch.randn(8, 256, generator=torch.Generator().manual_seed(1)).to(precision)
    expected = layer(given).float()
    original = layer.weight.data
    packed = Packed([Part(layer, [layer.weight])], packer(kept, maker), CPU)
    assert layer.weight.untyped_storage().nbytes() == original.element_size()
    lost = (layer(given).float() - expected).norm() / expected.norm()
    packed.remove()
    return float(lost)


def test_of_the_formats_the_one_that_comes_first_loses_least() -> None:
    kept = dict.fromkeys(plan.kept for plan in PLANS if plan.kept != "as loaded")

    assert list(kept) == list(QUANTISERS) == list(LOST) == sorted(LOST, key=lambda each: LOST[each])


@pytest.mark.parametrize(("kept", "maker"), all_makers())
def test_a_format_loses_the_same_whoever_makes_it_and_however_large_the_weights_are(
    kept: Format, maker: Maker
) -> None:
    expected = pytest.approx(LOST[kept], rel=0.2)

    assert loss(kept, maker, torch.float32) == expected
    for spread in (100, 1, 0.02, 1e-4):
        assert loss(kept, maker, torch.bfloat16, spread) == expected, spread


@pytest.mark.parametrize(("kept", "others"), [("int8", ("torchao", "bitsandbytes")), ("uint4", ("bitsandbytes",))])
@pytest.mark.skipif(
    not installed_libraries() >= {"sdnq", "torchao", "bitsandbytes"},
    reason="sdnq, torchao or bitsandbytes is not installed (make slow)",
)
def test_where_weights_stand_out_what_is_turned_before_loses_less(kept: Format, others: tuple[Maker, ...]) -> None:
    weights = normal_weights()
    weights[:, ::64] *= 20
    of_others: Format = "nf4" if kept == "uint4" else kept

    turned = loss(kept, "sdnq", torch.bfloat16, weights=weights)

    assert all(turned < 0.75 * loss(of_others, maker, torch.bfloat16, weights=weights) for maker in others)


@pytest.mark.parametrize(("kept", "maker"), all_makers())
def test_a_row_of_zeros_stays_one(kept: Format, maker: Maker) -> None:
    layer = nn.Linear(64, 64, bias=False, dtype=torch.float16)
    layer.weight.data[7] = 0

    with torch.no_grad():
        Packed([Part(layer, [layer.weight])], packer(kept, maker), CPU)

        assert layer(torch.ones(1, 64, dtype=torch.float16))[0, 7] == 0


@pytest.mark.parametrize(("kept", "maker"), all_makers())
def test_packing_leaves_the_matrix_alone_and_gives_the_same_bits_each_time(kept: Format, maker: Maker) -> None:
    matrix = normal_weights()
    before = matrix.clone()
    pack = packer(kept, maker)

    first, second = pack(matrix), pack(matrix)
    turned_back = first()

    assert torch.equal(matrix, before)
    assert (turned_back.shape, turned_back.dtype) == (matrix.shape, matrix.dtype)
    assert torch.equal(second(), turned_back)
    assert torch.equal(first(), turned_back)
    assert first().data_ptr() != turned_back.data_ptr()


@pytest.mark.skipif("sdnq" not in installed_libraries(), reason="sdnq is not installed (make slow)")
def test_sdnq_compiles_nothing_not_even_to_see_whether_it_could() -> None:
    packer("uint4", "sdnq")

    assert not sys.modules["sdnq.common"].use_torch_compile


def test_a_library_is_not_asked_for_what_it_does_not_make() -> None:
    with pytest.raises(ValueError, match="torch does not make nf4"):
        packer("nf4", "torch")


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
        Packed([Part(layer, [layer.weight]) for layer in layers], packer("float8", "torch"), CPU)

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
    better = [line for line in told.splitlines() if line.startswith("With ")]
    # The better one first. More bits would not fit, on the card or beside the text encoder in the host's memory.
    assert [line.partition(":")[0] for line in better] == [
        "With sdnq it would be uint4",
        "With bitsandbytes it would be nf4",
    ]
    assert "pip install 'qwen-image-daemon[sdnq]'. sdnq is under the GPL-3.0." in better[0]
    assert "pip install 'qwen-image-daemon[nf4]'." in better[1]


@pytest.mark.usefixtures("_without_libraries")
def test_plan_names_all_libraries_that_would_help_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_plans(None, None, "24GB", "64GB", None, "allow-quantized") == FITS

    told = capsys.readouterr().out
    assert "; packed by torch" in told
    assert "With torchao, bitsandbytes or sdnq it would be int8: transformer in 8-bit integers" in told


@pytest.mark.usefixtures("_without_libraries")
def test_plan_refuses_settings_that_choose_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QWEN_IMAGE_DAEMON_RENDER__QUANTISERS__INT8", "bitsandbytes")

    with pytest.raises(typer.Exit):
        print_plans(None, None, "16GB", "24GB", None, None)

    assert 'render.quantisers.int8 = "bitsandbytes" needs bitsandbytes, which is' in capsys.readouterr().err


@pytest.mark.usefixtures("_without_libraries")
def test_a_model_is_not_loaded_where_the_chosen_library_is_not_installed(tiny_checkpoint: Path) -> None:
    renderer = opened(tiny_checkpoint, quantisers={"float8": "torchao"})

    with pytest.raises(ModelUnavailable, match=r'render.quantisers.float8 = "torchao" needs torchao'):
        renderer.__enter__()


@pytest.mark.parametrize(("kept", "maker"), all_makers())
@pytest.mark.slow
def test_a_picture_of_each_maker_is_like_the_one_without_loss_and_names_it(
    kept: Format, maker: Maker, tiny_checkpoint: Path
) -> None:
    choice = {kept: maker} if len(QUANTISERS[kept].makers) > 1 else {}
    with opened(tiny_checkpoint) as renderer:
        whole = drawn(renderer)

    with opened(tiny_checkpoint, PLAN_OF[kept].name, quantisers=choice) as renderer:
        rendering = rendered(renderer)
        again = drawn(renderer)

    assert rendering.arrangement is not None
    assert rendering.arrangement.exactness == "lossy"
    assert rendering.arrangement.levers == (f"{PLAN_OF[kept].what}; packed by {maker}",)
    picture = rendering.image.tobytes()
    assert picture == again
    difference = [abs(one - other) for one, other in zip(picture, whole, strict=True)]
    assert 0 < sum(difference) / len(difference) < 24
