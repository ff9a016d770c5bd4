"""Writes layers as Nunchaku's files have them, number by number, and says what they stand for.

Each number is put where the format has it by index arithmetic; the daemon reshapes and permutes. That it is the
format is held by digests of what its own tool writes (test_nunchaku.py). All values are few bits long, so that no
order of computing rounds them.
"""

from dataclasses import dataclass
from typing import Literal

import torch

State = dict[str, torch.Tensor]
Precision = Literal["int4", "nvfp4"]

RANK = 16
GELU_SHIFT = 11 / 64
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)
FUSED = {"attn.to_qkv": ("to_q", "to_k", "to_v"), "attn.add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj")}
LINEAR = (
    "attn.to_out.0",
    "attn.to_add_out",
    *(f"{stream}_mlp.net.{place}" for stream in ("img", "txt") for place in ("0.proj", "2")),
)
MODULATION = ("img_mod.1", "txt_mod.1")


def packed_codes(codes: torch.Tensor) -> torch.Tensor:
    """Pack four bits each, given from 0 to 15 or from -8 to 7, for the matrix kernels."""
    n, k = _grid(codes)
    tiles = codes.shape[1] // 64
    word = ((n // 128 * tiles + k // 64) * 8 + n % 128 // 16) * 8 + n % 8
    word = (word * 4 + k % 32 // 8) * 4 + n % 16 // 8 * 2 + k % 64 // 32
    return _nibbles(codes, word * 8 + k % 8, codes.numel() // 2).view(torch.int8).view(codes.shape[0], -1)


def packed_awq(codes: torch.Tensor) -> torch.Tensor:
    """Pack four bits each, from 0 to 15, for the vector kernels."""
    n, k = _grid(codes)
    word = ((n // 4 * (codes.shape[1] // 64) + k // 64) * 4 + n % 4) * 16 + k % 64 // 32 * 8 + k % 8
    bits = _nibbles(codes, word * 4 + k % 32 // 8, codes.numel() // 2)
    return bits.view(torch.int32).view(codes.shape[0] // 4, -1)


def packed_channels(values: torch.Tensor) -> torch.Tensor:
    """Pack numbers for channels and groups, or for channels alone."""
    n, group = _grid(values)
    groups = values.shape[1]
    place = n % 128 // 16 * 16 + n % 8 // 2 * 4 + n % 16 // 8 * 2 + n % 2
    packed = _put(values, (n // 128 * groups + group) * 128 + place)
    return packed.view(groups, -1) if groups > 1 else packed


def packed_micro(values: torch.Tensor) -> torch.Tensor:
    """Pack the scales of groups of 16, in 8 bits."""
    n, group = _grid(values)
    groups = values.shape[1]
    place = group // 4 * 512 + n % 8 * 64 + n % 32 // 8 * 16 + n % 128 // 32 * 4 + group % 4
    packed = _put(values, n // 128 * groups * 128 + place).view(groups, -1)
    return packed.to(torch.float8_e4m3fn)


def packed_down(weight: torch.Tensor) -> torch.Tensor:
    """Pack a projection (rank, inputs)."""
    row, column = _grid(weight)
    tile = column // 16 * (weight.shape[0] // 16) + row // 16
    return _low_rank(weight, tile, row, column).view(weight.shape[1], -1)


def packed_up(weight: torch.Tensor) -> torch.Tensor:
    """Pack a projection (outputs, rank)."""
    row, column = _grid(weight)
    tile = row // 16 * (weight.shape[1] // 16) + column // 16
    return _low_rank(weight, tile, row, column).view(weight.shape[0], -1)


def _low_rank(weight: torch.Tensor, tile: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    lane = row % 8 * 4 + column % 8 // 2
    return _put(weight, tile * 256 + lane * 8 + row % 16 // 8 * 4 + column % 16 // 8 * 2 + column % 2)


def _grid(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(matrix.shape[0])[:, None], torch.arange(matrix.shape[1])[None, :]


def _put(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    packed = torch.zeros(values.numel(), dtype=torch.float64)
    packed[places.expand(values.shape).flatten()] = values.double().flatten()
    return packed.bfloat16()


def _nibbles(codes: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
    packed = torch.zeros(size, dtype=torch.int64)
    packed.index_add_(0, (places // 2).flatten(), ((codes.long() & 15) << (places % 2 * 4)).flatten())
    return packed.to(torch.uint8)


@dataclass(frozen=True)
class Layer:
    """A layer as a file has it, and what it stands for."""

    parts: State
    weight: torch.Tensor
    bias: torch.Tensor
    residual: torch.Tensor
    """The quantised part of the weight."""


class Drawing:
    """Draws layers, others for every seed."""

    def __init__(self, seed: int) -> None:
        self._noise = torch.Generator().manual_seed(seed)

    def codes(self, *shape: int) -> torch.Tensor:
        """Give four bits each."""
        return self._integers(0, 16, *shape)

    def svdq(self, outputs: int, inputs: int, precision: Precision) -> Layer:
        """Give a layer with a low-rank part."""
        codes = self.codes(outputs, inputs)
        smooth, bias = self._power(-1, 2, inputs), self._bias(outputs)
        up, down = self._integers(-3, 4, outputs, RANK) / 32, self._integers(-3, 4, RANK, inputs) / 32
        parts = {
            "qweight": packed_codes(codes),
            "bias": packed_channels(bias[:, None]),
            "smooth_factor": packed_channels(smooth[:, None]),
            "smooth_factor_orig": packed_channels(smooth[:, None]),
            "proj_down": packed_down(down),
            "proj_up": packed_up(up),
        }
        if precision == "int4":
            scales = self._power(-7, -5, outputs, inputs // 64)
            parts["wscales"] = packed_channels(scales)
            steps = torch.where(codes > 7, codes - 16, codes).double()
        else:
            fine, rows = self._power(-3, -1, outputs, inputs // 16), self._power(-1, 1, outputs)
            parts |= {"wscales": packed_micro(fine), "wcscales": packed_channels(rows[:, None])}
            parts["wtscale"] = torch.tensor([0.25], dtype=torch.bfloat16)
            scales, steps = fine * rows[:, None] / 4, E2M1[codes]
        residual = steps * scales.repeat_interleave(inputs // scales.shape[1], 1) / smooth
        return Layer(parts, residual + up @ down, bias, residual)

    def awq(self, outputs: int, inputs: int) -> Layer:
        """Give a layer without one, whose parts but the packed one are in order."""
        codes, bias = self.codes(outputs, inputs), self._bias(outputs)
        scales = self._power(-7, -5, outputs, inputs // 64)
        zeros = -scales * self._integers(6, 9, *scales.shape)
        parts = {
            "qweight": packed_awq(codes),
            "wscales": scales.T.contiguous().bfloat16(),
            "wzeros": zeros.T.contiguous().bfloat16(),
            "bias": bias.bfloat16(),
        }
        weight = codes * scales.repeat_interleave(64, 1) + zeros.repeat_interleave(64, 1)
        return Layer(parts, weight, bias, weight)

    def _integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        drawn = torch.randint(low, high, shape, generator=self._noise)
        return drawn if low >= 0 else drawn.double()

    def _power(self, low: int, high: int, *shape: int) -> torch.Tensor:
        return 2.0 ** self._integers(low, high, *shape).double()

    def _bias(self, outputs: int) -> torch.Tensor:
        return self._integers(-16, 17, outputs) / 64


@dataclass(frozen=True)
class Written:
    """A transformer's tensors: as a file has them, and as the makers' model would."""

    packed: State
    whole: State
    layers: tuple[str, ...]
    """The names of those with a low-rank part."""


def as_nunchaku_writes(state: State, precision: Precision) -> Written:
    """Give a Qwen-Image transformer in another one's place, as in Nunchaku's own files."""
    draw = Drawing(3)
    packed, whole = _blocks_less(state)
    for block in _blocks(state):
        for fused, names in FUSED.items():
            outputs, inputs = state[f"{block}.attn.{names[0]}.weight"].shape
            layer = draw.svdq(3 * outputs, inputs, precision)
            packed |= _named(f"{block}.{fused}", layer.parts)
            for name, weight, bias in zip(names, layer.weight.chunk(3), layer.bias.chunk(3), strict=True):
                whole |= _dense(f"{block}.attn.{name}", weight, bias)
        for name in LINEAR:
            layer = draw.svdq(*state[f"{block}.{name}.weight"].shape, precision)
            packed |= _named(f"{block}.{name}", layer.parts)
            is_shifted = precision == "int4" and name.endswith("net.2")
            more = layer.residual.sum(1) * GELU_SHIFT if is_shifted else 0
            whole |= _dense(f"{block}.{name}", layer.weight, layer.bias + more)
        for name in MODULATION:
            layer = draw.awq(*state[f"{block}.{name}.weight"].shape)
            packed |= _named(f"{block}.{name}", layer.parts)
            runs = torch.arange(len(layer.bias)).view(-1, 6).T
            bias = layer.bias[runs]
            bias[[1, 4]] -= 1
            whole |= _dense(f"{block}.{name}", layer.weight[runs.flatten()], bias.flatten())
    return Written(packed, whole, ())


def as_diffusers_reads(state: State, precision: Precision) -> Written:
    """Give one in layers as the makers' model has them, as in folders of nunchaku_lite."""
    draw = Drawing(4)
    packed, whole = _blocks_less(state)
    low_rank = []
    for block in _blocks(state):
        own = [f"attn.{name}" for names in FUSED.values() for name in names]
        for name in (*own, *LINEAR, *MODULATION):
            shape = state[f"{block}.{name}.weight"].shape
            layer = draw.awq(*shape) if name in MODULATION else draw.svdq(*shape, precision)
            layer.parts.pop("smooth_factor_orig", None)
            packed |= _named(f"{block}.{name}", layer.parts)
            whole |= _dense(f"{block}.{name}", layer.weight, layer.bias)
            low_rank += [] if name in MODULATION else [f"{block}.{name}"]
    return Written(packed, whole, tuple(low_rank))


def _blocks_less(state: State) -> tuple[State, State]:
    """Give what is in fewer bits in no file: all but the blocks, and the norms in them."""
    kept = {
        name: tensor.bfloat16()
        for name, tensor in state.items()
        if not name.startswith("transformer_blocks") or ".norm_" in name
    }
    return kept, {name: tensor.float() for name, tensor in kept.items()}


def _blocks(state: State) -> list[str]:
    return sorted({".".join(name.split(".")[:2]) for name in state if name.startswith("transformer_blocks")})


def _named(layer: str, parts: State) -> State:
    return {f"{layer}.{part}": tensor for part, tensor in parts.items()}


def _dense(layer: str, weight: torch.Tensor, bias: torch.Tensor) -> State:
    return {f"{layer}.weight": weight.float(), f"{layer}.bias": bias.float()}
