"""Layers whose matrix is in fewer bits in the checkpoint itself: unpacked for each forward, and never packed anew.

The parts of a packed matrix (bytes, scales) are ordinary tensors, and buffers of their layer: the one owner of all
weights moves, streams and maps them like any others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.nn import functional

Parts = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix in fewer bits as a file has it."""

    kept: str
    """The format, for a person."""
    shape: tuple[int, int]
    """Outputs and inputs of its layer."""
    parts: Parts
    unpack: Callable[[Parts], torch.Tensor]
    """Turns the parts back, on whatever device they are, into (outputs, inputs)."""


class PackedLinear(nn.Linear):
    """A linear layer over a packed matrix. LoRAs lie over it as over any other."""

    def __init__(self, matrix: PackedMatrix, bias: nn.Parameter | None, precision: torch.dtype) -> None:
        """Take the matrix, and the bias as it is."""
        # Not Linear's own, which makes a matrix.
        nn.Module.__init__(self)
        self.kept = matrix.kept
        self.out_features, self.in_features = matrix.shape
        self.register_parameter("bias", bias)
        self._precision = precision
        self._unpack = matrix.unpack
        self._parts = tuple(matrix.parts)
        for name, part in matrix.parts.items():
            self.register_buffer(name, part, persistent=False)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]  # a matrix that is there only while it is at work
        """Give what a LoRA looks for: shape, format and device. It is one value, repeated, and takes no memory."""
        nothing = torch.empty((), dtype=self._precision, device=self.get_buffer(self._parts[0]).device)
        return nothing.expand(self.out_features, self.in_features)

    def unpacked(self) -> torch.Tensor:
        """Give the matrix (outputs, inputs) in the layer's precision."""
        return self._unpack({name: self.get_buffer(name) for name in self._parts}).to(self._precision)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  as torch calls it
        """Compute as torch's own layer would with the unpacked matrix."""
        return functional.linear(input, self.unpacked(), self.bias)


def formats_in(component: nn.Module) -> list[str]:
    """Give the formats in which matrices of a component are packed, none where it was loaded otherwise."""
    return sorted({layer.kept for layer in component.modules() if isinstance(layer, PackedLinear)})


def parameters_of(component: nn.Module) -> int:
    """Count the parameters that a component computes with, whatever they are kept in."""
    # Those of a matrix in a GGUF file are counted in bytes, and it knows what they stand for.
    whole = (prod(getattr(each, "quant_shape", each.shape)) for each in component.parameters())
    packed = (layer for layer in component.modules() if isinstance(layer, PackedLinear))
    return sum(whole) + sum(layer.out_features * layer.in_features for layer in packed)
