"""How the libraries write packed matrices into safetensors files, and how each is turned back.

The libraries describe and unpack them; nothing here knows how the bits lie. Where a part is missing, KeyError is
raised with its name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qwen_image_daemon.render.packed_layers import PackedMatrix, Parts

_FOUR_BITS: Final = ".weight.quant_state.bitsandbytes__"
_ROW_SCALES: Final = ".SCB"
_IN_ROWS: Final = 0
"""How bitsandbytes numbers the one layout of int8 matrices that it still writes."""
_TORCHAO: Final[Mapping[str, str]] = {
    "Int8Tensor": "8-bit integers (torchao)",
    "Float8Tensor": "8-bit floating point (torchao)",
}


class UnknownPacking(Exception):
    """A matrix is packed in a way that cannot be turned back here. `str()` says which, a sentence's end."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """What is in a component's files: packed matrices by the name of their layer, and all other tensors."""

    packed: Mapping[str, PackedMatrix]
    others: Mapping[str, torch.Tensor]


def sort_out(tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> Sorted:
    """Find the packed matrices among a component's tensors. `notes` are what its files say beside them.

    Raises KeyError, UnknownPacking, and ImportError where a library is missing.
    """
    left = dict(tensors)
    packed: dict[str, PackedMatrix] = {}
    for name in tensors:
        if _FOUR_BITS in name:
            layer = name.partition(_FOUR_BITS)[0]
            packed[layer] = _in_four_bits(layer, left)
        elif name.endswith(_ROW_SCALES):
            layer = name.removesuffix(_ROW_SCALES)
            packed[layer] = _in_rows(layer, left)
    for name, text in notes.items():
        kind = _described(text).get("_type")
        if kind in {None, "Tensor"}:
            continue
        layer, _, tensor = name.rpartition(".")
        packed[layer] = _by_torchao(f"{layer}._{tensor}_", name, _described(text), left)
    return Sorted(packed, left)


def _in_four_bits(layer: str, tensors: dict[str, torch.Tensor]) -> PackedMatrix:
    """Take a matrix that bitsandbytes packed in blocks out of the tensors."""
    from bitsandbytes.functional import QuantState, dequantize_4bit  # noqa: PLC0415  an extra, and slow to import

    weight = f"{layer}.weight"
    bits = tensors.pop(weight)
    described = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"{weight}.")}
    state = QuantState.from_dict(described, device=torch.device("cpu"))
    blocks = state.state2
    parts = {"packed": bits, "scales": state.absmax, "code": state.code}
    if blocks is not None:
        parts |= {"offset": state.offset, "scales_of_scales": blocks.absmax, "code_of_scales": blocks.code}

    def unpack(parts: Parts) -> torch.Tensor:
        nested = blocks and QuantState(
            absmax=parts["scales_of_scales"],
            code=parts["code_of_scales"],
            blocksize=blocks.blocksize,
            dtype=blocks.dtype,
        )
        there = QuantState(
            absmax=parts["scales"],
            shape=state.shape,
            code=parts["code"],
            blocksize=state.blocksize,
            quant_type=state.quant_type,
            dtype=state.dtype,
            offset=parts.get("offset"),
            state2=nested,
        )
        matrix: torch.Tensor = dequantize_4bit(parts["packed"], there)
        return matrix

    outputs, inputs = state.shape
    return PackedMatrix(f"4 bits ({state.quant_type.upper()}, bitsandbytes)", (outputs, inputs), parts, unpack)


def _in_rows(layer: str, tensors: dict[str, torch.Tensor]) -> PackedMatrix:
    """Take a matrix that bitsandbytes packed in 8 bits with a scale for each row out of the tensors."""
    from bitsandbytes.functional import int8_vectorwise_dequant  # noqa: PLC0415  an extra, and slow to import

    matrix, scales = tensors.pop(f"{layer}.weight"), tensors.pop(f"{layer}{_ROW_SCALES}")
    layout = tensors.pop(f"{layer}.weight_format", None)
    if layout is not None and layout.item() != _IN_ROWS:
        raise UnknownPacking(f"{layer} is packed in an old layout of bitsandbytes")

    def unpack(parts: Parts) -> torch.Tensor:
        turned_back: torch.Tensor = int8_vectorwise_dequant(parts["packed"], parts["scales"])
        return turned_back

    outputs, inputs = matrix.shape
    parts = {"packed": matrix, "scales": scales}
    return PackedMatrix("8-bit integers (bitsandbytes)", (outputs, inputs), parts, unpack)


def _by_torchao(prefix: str, name: str, how: dict[str, Any], tensors: dict[str, torch.Tensor]) -> PackedMatrix:
    """Take a matrix that is one of torchao's tensors out of those that it is made of."""
    from torchao.prototype.safetensors.safetensors_utils import object_from_dict  # noqa: PLC0415  an extra, and slow

    kind = how["_type"]
    if kind not in _TORCHAO or how["_data"].get("act_quant_kwargs") is not None:
        raise UnknownPacking(f"{name} is a {kind} of torchao that is more than weights in 8 bits")
    parts = {part: tensors.pop(prefix + part) for part in how["_tensor_data_names"]}

    def unpack(parts: Parts) -> torch.Tensor:
        matrix: torch.Tensor = object_from_dict({**how, "_data": {**how["_data"], **parts}}).dequantize()
        return matrix

    outputs, inputs = parts["qdata"].shape
    return PackedMatrix(_TORCHAO[kind], (outputs, inputs), parts, unpack)


def _described(text: str) -> dict[str, Any]:
    """Read one of the notes that torchao writes; other notes are nothing to it."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
