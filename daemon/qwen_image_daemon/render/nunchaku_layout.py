"""How matrices lie in Nunchaku's files, and how they are turned back without its kernels. Knows no model, no file.

The kernels read each part in the order in which a warp's lanes take it; that order is undone here. It is a fact
of Nunchaku's format, told by the tool that writes it (mit-han-lab/deepcompressor: backend/nunchaku/utils.py,
NunchakuWeightPacker, and backend/tinychat/utils.py, pack_w4) and by the kernels that read it
(nunchaku-tech/nunchaku: src/kernels/zgemm/gemm_base.cuh and gemm_w4a4.cuh, src/kernels/awq/gemv_awq.cu).
Everything is turned back in float32, on whatever device it is.

A matrix of SVDQuant is quantised · scales / smooth + up · down: the low-rank part sees the layer's input itself,
the quantised one the input divided by `smooth` (nunchaku/models/linear.py).
"""

from typing import Final

import torch

from qwen_image_daemon.render.packed_layers import Parts

TILE: Final = 128
"""Outputs that lie together; inputs come in as many at least. Whole tiles can be taken out of a layer's parts."""
RANK_TILE: Final = 16
INT4_GROUP: Final = 64
FP4_GROUP: Final = 16
AWQ_GROUP: Final = 64
AWQ_ROWS: Final = 4
"""Rows that are interleaved in an AWQ matrix."""


def int4_matrix(parts: Parts) -> torch.Tensor:
    """Turn a matrix of SVDQuant with integers from -8 to 7 back: (outputs, inputs)."""
    return _with_low_rank(int4_residual(parts), parts)


def int4_residual(parts: Parts) -> torch.Tensor:
    """Turn the quantised part alone back, as it stands to the layer's input."""
    steps = torch.stack(_signed(_tiled(parts["packed"])), -1)
    return _scaled(steps, vectors(parts["scales"]), parts["smooth"])


def fp4_matrix(parts: Parts) -> torch.Tensor:
    """Turn a matrix of SVDQuant with floating point in 4 bits (E2M1) back: (outputs, inputs)."""
    both = torch.stack(_signed(_tiled(parts["packed"])), -1)
    # The bits of -8 to -1 are those of 8 to 15: a sign, and one of eight magnitudes.
    magnitude = both & 7
    # 0, 1, 2, 3, 4, 6, 8, 12: twice what E2M1 stands for.
    doubled = magnitude + (magnitude - 4).clamp(min=0) + 2 * (magnitude - 6).clamp(min=0)
    steps = torch.where(both < 0, -doubled, doubled)
    of_rows = 0.5 * parts["tensor_scale"].float() * vectors(parts["row_scales"])
    return _with_low_rank(_scaled(steps, _micro_scales(parts["scales"]) * of_rows, parts["smooth"]), parts)


def awq_matrix(parts: Parts) -> torch.Tensor:
    """Turn an AWQ matrix with integers from 0 to 15 back: (outputs, inputs)."""
    packed, scales = parts["packed"], parts["scales"]
    outputs, inputs = packed.shape[0] * AWQ_ROWS, packed.shape[1] * 2
    # By four rows, 64 inputs, row, 32 inputs, word of 16 bits, byte: bits 4j to 4j+3 of word i are input 8j+i.
    words = packed.view(torch.uint8).reshape(outputs // AWQ_ROWS, inputs // 64, AWQ_ROWS, 2, 8, 2)
    steps = torch.stack((words & 15, words >> 4), -1).permute(0, 2, 1, 3, 5, 6, 4)
    matrix = steps.reshape(outputs, -1, AWQ_GROUP) * scales.float().T.unsqueeze(-1)
    matrix.add_(parts["zeros"].float().T.unsqueeze(-1))
    return matrix.view(outputs, inputs)


def vectors(packed: torch.Tensor) -> torch.Tensor:
    """Turn one number for each channel, or one for each group and output, back: (channels, numbers)."""
    # By tile, group, 16 channels, pair, half of the 16, place in the pair.
    tiled = packed.reshape(
        packed.numel() // TILE if packed.ndim == 1 else packed.shape[-1] // TILE, -1, 8, 4, 2, 2
    )
    channels = tiled.shape[0] * TILE
    return tiled.permute(0, 2, 4, 3, 5, 1).reshape(channels, -1).float()


def _micro_scales(packed: torch.Tensor) -> torch.Tensor:
    """Turn the scales in 8 bits of floating point in 4 bits back: (outputs, groups)."""
    outputs = packed.shape[-1]
    # By tile, 4 groups, place in 8 channels, 8 channels, 32 channels, group.
    tiled = packed.float().reshape(outputs // TILE, -1, 8, 4, 4, 4)
    return tiled.permute(0, 4, 3, 2, 1, 5).reshape(outputs, -1)


def _tiled(packed: torch.Tensor) -> torch.Tensor:
    """Bring the bytes of a matrix of SVDQuant into their order: (outputs, inputs / 2)."""
    outputs, half = packed.shape
    # By 128 outputs, 64 inputs, 16 outputs, place in 8 outputs, 8 inputs, 8 outputs, 32 inputs, byte.
    tiled = packed.reshape(outputs // TILE, half // 32, 8, 8, 4, 2, 2, 4)
    return tiled.permute(0, 2, 5, 3, 1, 6, 4, 7).reshape(outputs, half)


def _signed(pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the lower and the upper four bits of bytes as integers with a sign."""
    # Shifting a signed integer to the right keeps its sign.
    return (pairs << 4) >> 4, pairs >> 4


def _scaled(steps: torch.Tensor, scales: torch.Tensor, smooth: torch.Tensor) -> torch.Tensor:
    outputs, groups = scales.shape
    # Each pass over a matrix counts, for every forward: the first product makes it of floats, too.
    matrix = steps.reshape(outputs, groups, -1) * scales.unsqueeze(-1)
    return matrix.view(outputs, -1).div_(vectors(smooth).T)


def _with_low_rank(matrix: torch.Tensor, parts: Parts) -> torch.Tensor:
    up, down = parts["up"], parts["down"]
    # By 16 channels, 16 of the rank.
    upward = _low_rank(up).permute(0, 2, 1, 3).reshape(up.shape)
    downward = _low_rank(down).permute(1, 2, 0, 3).reshape(down.shape[1], down.shape[0])
    return matrix.addmm_(upward.float(), downward.float())


def _low_rank(packed: torch.Tensor) -> torch.Tensor:
    """Bring a low-rank part's tiles of 16 by 16 into their order, row by row."""
    channels, rank = packed.shape
    # By tiles, place in 8 rows, pair of columns, 8 rows, 8 columns, place in the pair.
    tiled = packed.reshape(channels // RANK_TILE, rank // RANK_TILE, 8, 4, 2, 2, 2)
    return tiled.permute(0, 1, 4, 2, 5, 3, 6).reshape(
        channels // RANK_TILE, rank // RANK_TILE, RANK_TILE, RANK_TILE
    )
