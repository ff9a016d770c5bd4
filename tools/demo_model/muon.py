"""Muon: momentum whose matrices are made orthogonal before they are applied.

torch.optim.Muon does the same for two-dimensional parameters. This one also takes convolution kernels, as
matrices of output channels by everything else, and treats all parameters of one shape in a single batch, which
halves its time for the many small matrices of these models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from .precision import product_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration by Keller Jordan: any singular value ends near one after five rounds."""
_ROUNDS: Final = 5
_ADAM_SIZE: Final = 0.2
"""Root mean square of an update at a learning rate of one: that of Adam, so that rates carry over."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """Replace the singular values of a batch of matrices (n, rows, columns) by about one each."""
    a, b, c = _COEFFICIENTS
    x: Tensor = matrices.to(product_dtype(matrices.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result


class Muon(torch.optim.Optimizer):
    """For matrices and kernels; vectors, embeddings and the first and last layers belong to AdamW."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        """Take parameters of two dimensions or more."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override] # no loss comes back
        """Move every parameter that has a gradient; a closure is not evaluated."""
        del closure
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shape = (parameter.shape[0], parameter[0].numel())
                    alike.setdefault(shape, []).append((parameter, parameter.grad))
            for shape, pairs in alike.items():
                self._move(pairs, shape, group)

    def _move(self, pairs: list[tuple[Tensor, Tensor]], shape: tuple[int, int], group: dict[str, Any]) -> None:
        directions = []
        for parameter, gradient in pairs:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            directions.append(gradient.lerp(momentum, group["momentum"]).reshape(shape))
        reach = group["lr"] * _ADAM_SIZE * max(shape) ** 0.5
        for (parameter, _), direction in zip(pairs, orthogonalised(torch.stack(directions)), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction.reshape(parameter.shape), alpha=-reach)
