"""Matrices that we or somebody else packed, turned back on a card as on the CPU."""

from typing import Any

import pytest
import torch
from torch import nn

from nunchaku_packing import Drawing
from quantised_folders import PACKINGS, Packing
from qwen_image_daemon.render.nunchaku_files import awq_layer, svdq_layer
from qwen_image_daemon.render.packed_files import sort_out
from qwen_image_daemon.render.packed_layers import PackedLinear, PackedMatrix
from qwen_image_daemon.render.packers import packer
from qwen_image_daemon.render.quantisers import QUANTISERS, Format, Maker, is_installed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def _needs(library: Any) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_installed(library), reason=f"{library} is not installed")


@pytest.mark.parametrize(
    "packing", [pytest.param(each, marks=_needs(each.library), id=name) for name, each in PACKINGS.items()]
)
@torch.no_grad()
def test_a_matrix_is_turned_back_on_the_card_as_on_the_cpu(packing: Packing) -> None:
    layer = nn.Linear(3072, 512, bias=False, dtype=torch.bfloat16)
    layer.weight.data.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    written, notes = packing.written(layer)
    found = sort_out(
        {f"layer.{name}": tensor for name, tensor in written.items()},
        {f"layer.{name}": text for name, text in notes.items()},
    )
    packed = PackedLinear(found.packed["layer"], None, torch.bfloat16)
    expected = packed.unpacked()

    for part in packed.buffers():
        part.data = part.data.to("cuda")

    assert packed.weight.is_cuda
    # A scale may be multiplied in another order: one step of bfloat16.
    assert torch.allclose(packed.unpacked().cpu(), expected, rtol=2**-7, atol=0)


@pytest.mark.parametrize("kind", ["int4", "nvfp4", "awq"])
@torch.no_grad()
def test_a_matrix_of_nunchakus_is_turned_back_on_the_card_into_what_it_stands_for(kind: str) -> None:
    draw = Drawing(5)
    layer = draw.awq(512, 3072) if kind == "awq" else draw.svdq(512, 3072, "int4" if kind == "int4" else "nvfp4")
    parts = {f"a.{part}": tensor for part, tensor in layer.parts.items()}
    matrix: PackedMatrix = (awq_layer("a", parts) if kind == "awq" else svdq_layer("a", parts, kind)).matrix

    turned_back = matrix.unpack({name: part.to("cuda") for name, part in matrix.parts.items()})

    assert turned_back.is_cuda
    assert torch.equal(turned_back.cpu(), layer.weight.float())


@pytest.mark.parametrize(
    ("kept", "maker"),
    [
        pytest.param(kept, maker, id=f"{kept} by {maker}", marks=() if maker == "torch" else _needs(maker))
        for kept, quantiser in QUANTISERS.items()
        for maker in quantiser.makers
    ],
)
@torch.no_grad()
def test_what_is_packed_on_the_card_loses_what_it_loses_on_the_cpu(kept: Format, maker: Maker) -> None:
    matrix = torch.randn(512, 3072, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    matrix[7] = 0
    pack = packer(kept, maker)

    here, there = pack(matrix)(), pack(matrix.to("cuda"))()

    assert there.is_cuda
    assert there.dtype == matrix.dtype
    # A sum in another order may round a value to its other neighbour.
    errors = [(back.cpu().float() - matrix.float()).norm() for back in (here, there)]
    assert float(errors[1]) == pytest.approx(float(errors[0]), rel=0.02)
