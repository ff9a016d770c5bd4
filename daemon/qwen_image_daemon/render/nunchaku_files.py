"""Matrices as Nunchaku and diffusers' nunchaku_lite name them in safetensors files, as packed matrices of ours.

Its kernels are not asked for, and nothing is installed or fetched: what they multiply with is turned back. Where a
part is missing, KeyError is raised with its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers.quantizers.quantization_config import NunchakuLiteQuantizationConfig

from qwen_image_daemon.render.nunchaku_layout import (
    AWQ_GROUP,
    AWQ_ROWS,
    FP4_GROUP,
    INT4_GROUP,
    RANK_TILE,
    TILE,
    awq_matrix,
    fp4_matrix,
    int4_matrix,
    vectors,
)
from qwen_image_daemon.render.packed_files import Sorted, UnknownPacking
from qwen_image_daemon.render.packed_layers import PackedMatrix

PACKED: Final = ".qweight"
INT4: Final = "4 bits (INT4 with a low-rank part, Nunchaku)"
FP4: Final = "4 bits (NVFP4 with a low-rank part, Nunchaku)"
AWQ: Final = "4 bits (AWQ, Nunchaku)"

_SVDQ_KIND: Final = "svdq_w4a4"
_AWQ_KIND: Final = "awq_w4a16"
"""Under what a configuration names its layers."""
_HALVES: Final = (torch.bfloat16, torch.float16)
_MATRIX: Final = 2
"""Outputs and inputs."""
_MICRO: Final = (torch.float8_e4m3fn,)


@dataclass(frozen=True, slots=True)
class Found:
    """A layer as a file has it, its bias in order and in float32."""

    matrix: PackedMatrix
    bias: torch.Tensor | None


def sort_out_nunchaku(how: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Sorted:
    """Find the packed matrices among the tensors of a folder of diffusers' kind nunchaku_lite.

    `how` is what its config.json says of them. Raises KeyError and UnknownPacking.
    """
    left = dict(tensors)
    packed: dict[str, PackedMatrix] = {}
    for kind, precision, targets in _said(how):
        for layer in targets:
            found = awq_layer(layer, left) if kind == _AWQ_KIND else svdq_layer(layer, left, precision)
            packed[layer] = found.matrix
            if found.bias is not None:
                left[f"{layer}.bias"] = found.bias
    return Sorted(packed, left)


def svdq_layer(layer: str, tensors: dict[str, torch.Tensor], precision: str) -> Found:
    """Take a layer of SVDQuant out of the tensors. `precision` is int4 or nvfp4."""
    packed = _bits(layer, tensors, torch.int8)
    outputs, inputs = packed.shape[0], packed.shape[1] * 2
    _refuse_unless(outputs % TILE == 0 and inputs % TILE == 0, layer, PACKED, packed)
    up = tensors[f"{layer}.proj_up"]
    rank = up.shape[-1] if up.ndim else 0
    _refuse_unless(rank > 0 and rank % RANK_TILE == 0, layer, ".proj_up", up)
    group, scales = (INT4_GROUP, _HALVES) if precision == "int4" else (FP4_GROUP, _MICRO)
    take = _Taking(layer, tensors)
    parts = {
        "packed": packed,
        "scales": take("wscales", (inputs // group, outputs), scales),
        "smooth": take("smooth_factor", (inputs,)),
        "down": take("proj_down", (inputs, rank)),
        "up": take("proj_up", (outputs, rank)),
    }
    if precision == "nvfp4":
        parts["row_scales"] = take("wcscales", (outputs,))
        parts["tensor_scale"] = take("wtscale", None, (*_HALVES, torch.float32))
    bias = take("bias", (outputs,)) if f"{layer}.bias" in tensors else None
    kept, unpack = (INT4, int4_matrix) if precision == "int4" else (FP4, fp4_matrix)
    return Found(
        PackedMatrix(kept, (outputs, inputs), parts, unpack),
        None if bias is None else vectors(bias).view(-1),
    )


def awq_layer(layer: str, tensors: dict[str, torch.Tensor]) -> Found:
    """Take an AWQ layer out of the tensors."""
    packed = _bits(layer, tensors, torch.int32)
    outputs, inputs = packed.shape[0] * AWQ_ROWS, packed.shape[1] * 2
    _refuse_unless(inputs % AWQ_GROUP == 0, layer, PACKED, packed)
    take = _Taking(layer, tensors)
    scales = (inputs // AWQ_GROUP, outputs)
    parts = {"packed": packed, "scales": take("wscales", scales), "zeros": take("wzeros", scales)}
    bias = take("bias", (outputs,), (*_HALVES, torch.float32)) if f"{layer}.bias" in tensors else None
    return Found(
        PackedMatrix(AWQ, (outputs, inputs), parts, awq_matrix),
        None if bias is None else bias.float(),
    )


def _bits(layer: str, tensors: dict[str, torch.Tensor], form: torch.dtype) -> torch.Tensor:
    packed = tensors.pop(layer + PACKED)
    _refuse_unless(packed.ndim == _MATRIX and packed.dtype == form, layer, PACKED, packed)
    return packed


@dataclass(frozen=True, slots=True)
class _Taking:
    """Takes parts of a layer out of the tensors, of the shape that its matrix makes necessary."""

    layer: str
    tensors: dict[str, torch.Tensor]

    def __call__(
        self, part: str, shape: tuple[int, ...] | None, formats: tuple[torch.dtype, ...] = _HALVES
    ) -> torch.Tensor:
        """Take one; a shape of None is that of a single number."""
        tensor = self.tensors.pop(f"{self.layer}.{part}")
        fits = tensor.numel() == 1 if shape is None else tensor.shape == shape
        _refuse_unless(fits and tensor.dtype in formats, self.layer, f".{part}", tensor)
        return tensor


def _refuse_unless(fits: bool, layer: str, part: str, tensor: torch.Tensor) -> None:  # noqa: FBT001  no switch
    if not fits:
        shape = "×".join(map(str, tensor.shape)) or "one number"
        form = str(tensor.dtype).removeprefix("torch.")
        raise UnknownPacking(f"{layer}{part} ({shape}, {form}) is not as Nunchaku's kernels read it")


def _said(how: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Give kind, precision and layers as a configuration has them. diffusers says what is one."""
    kinds = (_SVDQ_KIND, _AWQ_KIND)
    try:
        read = NunchakuLiteQuantizationConfig(**{kind: how.get(kind) for kind in kinds})
    except (ValueError, TypeError) as error:
        why = str(error).rstrip(".")
        raise UnknownPacking(f"its quantization_config is none of nunchaku_lite: {why}") from None
    sections = {kind: section for kind in kinds if (section := getattr(read, kind)) is not None}
    # Of the others diffusers looks at the size.
    if _AWQ_KIND in sections and sections[_AWQ_KIND]["group_size"] != AWQ_GROUP:
        size = sections[_AWQ_KIND]["group_size"]
        raise UnknownPacking(f"its {_AWQ_KIND} is in groups of {size}, and not of {AWQ_GROUP}")
    return [(kind, section["precision"], section["targets"]) for kind, section in sections.items()]
