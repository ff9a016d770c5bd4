"""Matrices that rest on the device in fewer bits, and are turned back for the forward of their layer.

The libraries only make the bits and turn them back; the layers stay torch's own. So LoRAs lie over them as over
any others, an arrangement can be undone, and what was quantised is the checkpoint's own tensor each time, never a
copy that was quantised before.

At rest the parameter itself is one value, repeated: it takes no memory, and has the shape, the format and the
device that a LoRA looks for. Packing works on the CPU, too.
"""

from collections.abc import Callable, Sequence
from typing import Final, assert_never

import torch

from qwen_image_daemon.render import devices
from qwen_image_daemon.render.quantisers import Format
from qwen_image_daemon.render.streaming import Part, Streamed

_LARGEST_FLOAT8: Final = torch.finfo(torch.float8_e4m3fn).max
_LEAST_STEP: Final = -24
"""The smallest power of two that float16 has, for rows of nothing but zeros."""

Unpack = Callable[[], torch.Tensor]
Pack = Callable[[torch.Tensor], Unpack]


class Packed(Streamed):
    """Parts whose tensors are kept packed on a device, from its making until `remove`."""

    def __init__(self, parts: Sequence[Part], kept: Format, device: torch.device) -> None:
        """Pack the tensors, one by one: the device needs room for one of them beside those that are packed.

        Raises what torch raises where memory runs out, and ImportError where the format's library is missing.
        """
        pack = _packer(kept)
        self._unpacks: dict[torch.Tensor, Unpack] = {}
        self.resting: dict[torch.Tensor, torch.Tensor] = {}
        """The tensors, with what stands for them while they are at rest."""
        for part in parts:
            for tensor in part.tensors:
                self._unpacks[tensor] = pack(devices.onto(device, tensor.data))
                self.resting[tensor] = torch.empty((), dtype=tensor.dtype, device=device).expand(tensor.shape)
        # Only now: where packing fails, nothing was changed.
        for tensor, nothing in self.resting.items():
            tensor.data = nothing
        super().__init__(parts, lambda resting: resting)

    def remove(self) -> None:
        """Let go of what is packed. The tensors are put back by whoever has kept them."""
        super().remove()
        self._unpacks.clear()
        self.resting.clear()

    def _copies(self, place: int) -> list[torch.Tensor]:
        return [self._unpacks[tensor]() for tensor in self._parts[place].tensors]


def _packer(kept: Format) -> Pack:
    """Give what packs a matrix. The libraries are imported here: they take seconds."""
    match kept:
        case "float8":
            return _as_float8
        case "int8":
            return _int8_packer()
        case "nf4":
            return _nf4_packer()
        case "as loaded":
            raise ValueError("nothing to pack")
    assert_never(kept)


def _as_float8(matrix: torch.Tensor) -> Unpack:
    """Keep a matrix as eight-bit floats, each row with a power of two beside it.

    Without one, what is smaller than 1/64 loses bits: 28 % of a result where weights are spread by 0.002. To
    multiply by a power of two rounds nothing.
    """
    largest = matrix.abs().amax(dim=-1, keepdim=True).float()
    steps = (largest / _LARGEST_FLOAT8).log2().ceil().clamp(min=_LEAST_STEP)
    scale = torch.exp2(steps).to(matrix.dtype)
    packed, precision = (matrix / scale).to(torch.float8_e4m3fn), matrix.dtype
    return lambda: packed.to(precision).mul_(scale)


def _int8_packer() -> Pack:
    from torchao.quantization import Int8Tensor, PerRow  # noqa: PLC0415  an extra, and slow to import

    def pack(matrix: torch.Tensor) -> Unpack:
        unpack: Unpack = Int8Tensor.from_hp(matrix, PerRow()).dequantize
        return unpack

    return pack


def _nf4_packer() -> Pack:
    from bitsandbytes import functional  # noqa: PLC0415  an extra, and slow to import

    def pack(matrix: torch.Tensor) -> Unpack:
        packed, state = functional.quantize_4bit(
            matrix.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4"
        )
        return lambda: functional.dequantize_4bit(packed, state)

    return pack
