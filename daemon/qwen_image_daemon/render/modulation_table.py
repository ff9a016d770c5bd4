"""The transformer's modulation, computed once for a schedule, so that its weights need not be on the device.

A third of a Qwen-Image transformer's weights (6.8 of 20.4 billion) are the layers `img_mod` and `txt_mod` of its
blocks. They see nothing but the timestep: for 50 steps all that they ever give is 50 rows of 4.2 MiB. So the rows
are computed when a schedule begins, by the layers themselves and for the same inputs one by one, and are therefore
the same to the bit; the weights come onto the device only for that, block by block.

The modules stay where they are in the model, so that LoRAs find them: only their `forward` is replaced.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from weakref import ReferenceType, ref

import torch
from torch import nn

from qwen_image_daemon.render import devices
from qwen_image_daemon.render.streaming import tensors_of

STREAMS: Final = ("img_mod", "txt_mod")

_Key = tuple[float, ...]


class ModulationTable:
    """Rows of modulation for the timesteps of one schedule. In use from its making until `remove`.

    Works for every transformer of the 1.x pipelines, also those that look at references with a timestep of zero
    (`zero_cond_t`) or take an additional condition (layered). LoRAs on the layers are part of the rows: where
    their weights or scales change, the rows are computed anew.
    """

    def __init__(self, transformer: Any, device: torch.device) -> None:
        """Take the layers' weights off the device, and put look-ups into their places."""
        self._transformer = transformer
        self._device = device
        self._layers = [
            (block, stream, getattr(block, stream))
            for block in transformer.transformer_blocks
            for stream in STREAMS
        ]
        self._rows: dict[_Key, list[torch.Tensor]] = {}
        self._made_of = _Origin([], [], [])
        self._key: _Key = ()
        self._timesteps: Callable[[], Iterable[torch.Tensor]] = tuple
        self.computed = 0
        """How often rows were computed: once for each schedule where all is well."""
        self._hook = transformer.time_text_embed.register_forward_hook(self._note)
        for number, (_, _, layer) in enumerate(self._layers):
            layer.forward = self._look_up(number)

    @contextmanager
    def schedule(self, scheduler: Any) -> Iterator[None]:
        """Draw with this scheduler inside: its timesteps are those that rows are computed for, all at once."""
        if not self._made_of.is_same(self._origin()):
            self._rows.clear()
        self._timesteps = lambda: scheduler.timesteps
        try:
            yield
        finally:
            self._timesteps = tuple
            self._key = ()

    def remove(self) -> None:
        """Give the layers their own forward back. Their weights are where they were kept: on the host."""
        self._hook.remove()
        for _, _, layer in self._layers:
            del layer.forward
        self._rows.clear()

    def weights(self) -> Iterator[torch.Tensor]:
        """Give the weights that need not be on the device."""
        for _, _, layer in self._layers:
            yield from tensors_of(layer)

    def _origin(self) -> "_Origin":
        return _Origin.of([layer for _, _, layer in self._layers])

    def _look_up(self, number: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(_: torch.Tensor) -> torch.Tensor:
            return self._rows[self._key][number]

        return forward

    def _note(self, embedding: nn.Module, arguments: tuple[Any, ...], conditioning: torch.Tensor) -> None:
        """Have the rows for a timestep at hand: it was embedded just now, and the first block comes next."""
        timestep, hidden_states, *more = arguments
        condition = more[0] if more else None
        self._key = _key(timestep, condition)
        if self._key not in self._rows:
            self._compute(embedding, timestep, hidden_states, condition, conditioning)

    def _compute(
        self,
        embedding: Any,
        timestep: torch.Tensor,
        hidden_states: torch.Tensor,
        condition: torch.Tensor | None,
        conditioning: torch.Tensor,
    ) -> None:
        """Compute the rows of the whole schedule, and of this timestep where the schedule does not know it."""
        inputs = {self._key: conditioning}
        for scheduled in self._timesteps():
            # As the pipelines and the transformer do it: expanded, rounded, divided, rounded.
            single = (scheduled.to(self._device, hidden_states.dtype) / 1000).to(hidden_states.dtype)
            # The zeros are the references' own timestep (zero_cond_t).
            like_this = torch.where(timestep == 0, timestep, single)
            key = _key(like_this, condition)
            if key not in inputs:
                # Not through the module's call, which would come back to here.
                inputs[key] = embedding.forward(like_this, hidden_states, condition)
        rows: dict[_Key, list[torch.Tensor]] = {key: [] for key in inputs}
        for block, stream, layer in self._layers:
            with _borrowed(layer, self._device):
                for key, given in inputs.items():
                    seen = given.chunk(2, dim=0)[0] if block.zero_cond_t and stream == "txt_mod" else given
                    rows[key].append(type(layer).forward(layer, seen))
        self._rows = rows
        self._made_of = self._origin()
        self.computed += 1


@contextmanager
def _borrowed(layer: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a layer's weights on the device inside. The host keeps them: nothing is copied back."""
    kept = [(tensor, tensor.data) for tensor in tensors_of(layer)]
    try:
        for tensor, data in kept:
            tensor.data = devices.onto(device, data)
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def _key(timestep: torch.Tensor, condition: torch.Tensor | None) -> _Key:
    conditions: list[float] = [] if condition is None else condition.flatten().tolist()
    return (*timestep.flatten().tolist(), *conditions)


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """Of which tensors in which version, and with which adapters at which scales, layers are made."""

    tensors: list[ReferenceType[torch.Tensor]]
    versions: list[int]
    adapters: list[object]

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> "_Origin":
        """Look at the layers as they are now."""
        tensors = [tensor for layer in layers for tensor in tensors_of(layer)]
        adapted: list[Any] = [
            part for layer in layers for part in layer.modules() if hasattr(part, "active_adapters")
        ]
        adapters: list[object] = [
            (
                tuple(part.active_adapters),
                tuple(part.scaling.get(name) for name in part.active_adapters),
                part.disable_adapters,
                tuple(part.merged_adapters),
            )
            for part in adapted
        ]
        return cls([ref(each) for each in tensors], [_version(each) for each in tensors], adapters)

    def is_same(self, other: "_Origin") -> bool:
        """Say whether nothing was changed between the two."""
        # References to tensors compare these by their values, all of them: only identity is asked for.
        return (
            len(self.tensors) == len(other.tensors)
            and all(
                one() is not None and one() is another()
                for one, another in zip(self.tensors, other.tensors, strict=True)
            )
            and self.versions == other.versions
            and self.adapters == other.adapters
        )


def _version(tensor: torch.Tensor) -> int:
    # A LoRA that was put on in inference mode has no count of changes; another LoRA is another tensor.
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001  torch has no public question
