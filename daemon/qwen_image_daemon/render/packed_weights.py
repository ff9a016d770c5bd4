"""Matrices that rest on the device in fewer bits, and are turned back for the forward of their layer.

The layers stay torch's own. So LoRAs lie over them as over any others, an arrangement can be undone, and what was
quantised is the checkpoint's own tensor each time, never a copy that was quantised before.

At rest the parameter itself is one value, repeated: it takes no memory, and has the shape, the format and the
device that a LoRA looks for. Packing works on the CPU, too.
"""

from collections.abc import Sequence

import torch

from qwen_image_daemon.render import devices
from qwen_image_daemon.render.packers import Pack, Unpack
from qwen_image_daemon.render.streaming import Part, Streamed


class Packed(Streamed):
    """Parts whose tensors are kept packed on a device, from its making until `remove`."""

    def __init__(self, parts: Sequence[Part], pack: Pack, device: torch.device) -> None:
        """Pack the tensors, one by one: the device needs room for one of them beside those that are packed.

        Raises what torch raises where memory runs out.
        """
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
