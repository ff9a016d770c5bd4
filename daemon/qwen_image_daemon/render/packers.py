"""What packs a matrix into fewer bits, and turns it back: torch itself and the libraries, by their names.

A library is asked for nothing else: it makes the bits, which are ordinary tensors, and a matrix of them again. All
of this runs on the CPU, too. None of it throws dice: the same matrix gives the same bits each time.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

import torch

from qwen_image_daemon.render.quantisers import Format, Maker
from qwen_image_daemon.render.sdnq_library import sdnq_quantizer

_LARGEST_FLOAT8: Final = torch.finfo(torch.float8_e4m3fn).max
_LEAST_STEP: Final = -24
"""The smallest power of two that float16 has, for rows of nothing but zeros."""

Unpack = Callable[[], torch.Tensor]
Pack = Callable[[torch.Tensor], Unpack]
"""Packs a matrix, which is left as it is, where it is. What it gives makes a new one of the bits each time."""


def packer(kept: Format, maker: Maker) -> Pack:
    """Give what packs a matrix. The libraries are imported here: they take seconds.

    Raises ImportError where the library is missing, ValueError where it does not make the format.
    """
    match maker:
        case "torch":
            made: dict[Format, Callable[[], Pack]] = {"float8": lambda: _as_float8}
        case "torchao":
            made = {"int8": _int8_of_torchao, "float8": _float8_of_torchao}
        case "bitsandbytes":
            made = {"int8": _int8_of_bitsandbytes, "nf4": _nf4_of_bitsandbytes}
        case "sdnq":
            made = dict.fromkeys(("int8", "uint6", "uint4"), partial(_by_sdnq, kept))
        case _:
            assert_never(maker)
    if kept not in made:
        raise ValueError(f"{maker} does not make {kept}")
    return made[kept]()


def _as_float8(matrix: torch.Tensor) -> Unpack:
    """Keep a matrix as eight-bit floats, each row with a power of two beside it.

    Without one, what is smaller than 1/64 loses bits: 28 % of a result where weights are spread by 0.002.
    """
    scale = _power_of_two(matrix, _LARGEST_FLOAT8)
    packed, precision = (matrix / scale).to(torch.float8_e4m3fn), matrix.dtype
    return lambda: packed.to(precision).mul_(scale)


def _power_of_two(matrix: torch.Tensor, most: float) -> torch.Tensor:
    """Give what each row can be divided by so that no value in it is above `most`. That rounds nothing."""
    largest = matrix.abs().amax(dim=-1, keepdim=True).float()
    steps = (largest / most).log2().ceil().clamp(min=_LEAST_STEP)
    return torch.exp2(steps).to(matrix.dtype)


def _float8_of_torchao() -> Pack:
    from torchao.quantization import Float8Tensor, PerRow  # noqa: PLC0415  an extra, and slow to import

    # Without it the scale of a row of zeros is zero, and the row is turned back into no numbers.
    least = _LARGEST_FLOAT8 * 2.0**_LEAST_STEP

    def pack(matrix: torch.Tensor) -> Unpack:
        unpack: Unpack = Float8Tensor.from_hp(matrix, torch.float8_e4m3fn, PerRow(), hp_value_lb=least).dequantize
        return unpack

    return pack


def _int8_of_torchao() -> Pack:
    from torchao.quantization import Int8Tensor, PerRow  # noqa: PLC0415  an extra, and slow to import

    def pack(matrix: torch.Tensor) -> Unpack:
        unpack: Unpack = Int8Tensor.from_hp(matrix, PerRow()).dequantize
        return unpack

    return pack


def _int8_of_bitsandbytes() -> Pack:
    from bitsandbytes import functional  # noqa: PLC0415  an extra, and slow to import

    def pack(matrix: torch.Tensor) -> Unpack:
        # On a card it takes float16 only, which small weights would lose bits in, and large ones would be too much
        # for.
        scale = _power_of_two(matrix, 1)
        packed, largest, _ = functional.int8_vectorwise_quant((matrix / scale).half())
        precision = matrix.dtype
        return lambda: functional.int8_vectorwise_dequant(packed, largest).to(precision).mul_(scale)

    return pack


def _nf4_of_bitsandbytes() -> Pack:
    from bitsandbytes import functional  # noqa: PLC0415  an extra, and slow to import

    def pack(matrix: torch.Tensor) -> Unpack:
        packed, state = functional.quantize_4bit(
            matrix.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4"
        )
        return lambda: functional.dequantize_4bit(packed, state)

    return pack


def _by_sdnq(kept: Format) -> Pack:
    """Keep a matrix as integers, with scales for groups of its values, turned by a Hadamard matrix before.

    Turned, no value of a group stands out: what is lost no longer depends on how heavy the tails of the weights
    are. Its low-rank part (SVD) is left out: it is found with random numbers.
    """
    quantise = sdnq_quantizer().sdnq_quantize_layer_weight

    def pack(matrix: torch.Tensor) -> Unpack:
        turn_back, found = quantise(
            matrix,
            layer_class_name="Linear",
            weights_dtype=kept,
            use_hadamard=True,
            # Scales in the model's own precision: half the bytes, and the same loss.
            dequantize_fp32=False,
        )
        packed = found["weight"]
        parts = {name: part for name, part in found.items() if part is not None and name != "weight"}
        # Compiled it would differ by machine, and take minutes at the first picture.
        return lambda: turn_back(packed, **parts, skip_compile=True)

    return pack
