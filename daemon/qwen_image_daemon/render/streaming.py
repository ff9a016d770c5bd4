"""Weights that come to work for one forward of their module and rest otherwise.

At rest they lie in host memory, or on the device in fewer bits. Nothing is copied back: what rests stays as it is,
and only the working copy is dropped. The hooks are torch's own; the second one is called after a failure, too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from qwen_image_daemon.render import devices


@dataclass(frozen=True, slots=True)
class Part:
    """A module, and the tensors that it needs to compute: its own, or those of everything in it."""

    module: nn.Module
    tensors: Sequence[torch.Tensor]


class Streamed:
    """Parts that have their working weights only while they compute. `working` makes them of those at rest."""

    def __init__(self, parts: Sequence[Part], working: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._parts = parts
        self._working = working
        self._resting: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        """By the part's place: what its tensors are at rest, while it is at work."""
        self._hooks: list[Any] = []
        for place, part in enumerate(parts):
            self._hooks += [
                part.module.register_forward_pre_hook(self._before(place)),
                part.module.register_forward_hook(self._after(place), always_call=True),
            ]

    def rest(self) -> None:
        """Let everything rest that is still at work."""
        for place in list(self._resting):
            self._lay_down(place)

    def remove(self) -> None:
        """Let all parts rest, and leave them as they are."""
        for hook in self._hooks:
            hook.remove()
        self.rest()

    def _before(self, place: int) -> Callable[[nn.Module, Any], None]:
        def bring(_: nn.Module, __: Any) -> None:
            tensors = self._parts[place].tensors
            resting = self._resting.setdefault(place, [])
            for tensor, copy in zip(tensors, self._copies(place), strict=True):
                resting.append((tensor, tensor.data))
                tensor.data = copy

        return bring

    def _after(self, place: int) -> Callable[[nn.Module, Any, Any], None]:
        def lay_down(_: nn.Module, __: Any, result: Any) -> None:
            self._lay_down(place)
            if result is not None:
                self._went_well(place)

        return lay_down

    def _copies(self, place: int) -> list[torch.Tensor]:
        """Give the working weights of a part that is about to compute."""
        return [self._working(tensor.data) for tensor in self._parts[place].tensors]

    def _went_well(self, place: int) -> None:
        """Take note that a part has computed."""

    def _lay_down(self, place: int) -> None:
        for tensor, data in self._resting.pop(place, ()):
            tensor.data = data


class StreamedAhead(Streamed):
    """Parts that compute in this order, again and again: while one computes, the next one comes.

    The copies run on a stream of their own, beside the computation where the device has streams; from host memory
    that is pinned they take no time of the processor either.
    """

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        self._device = device
        self._streams = torch.get_device_module(device)
        self._side = self._streams.Stream(device)
        self._coming: dict[int, tuple[list[torch.Tensor], Any]] = {}
        super().__init__(parts, partial(devices.onto, device))

    def rest(self) -> None:
        """Let everything rest that is still at work, and drop what is on its way."""
        self._coming.clear()
        super().rest()

    def _copies(self, place: int) -> list[torch.Tensor]:
        self._send(place)
        copies, arrived = self._coming.pop(place)
        now = self._streams.current_stream(self._device)
        now.wait_event(arrived)
        for copy in copies:
            if copy.device.type == "cuda":
                # Made on the side stream: the memory must not be given away while it is read.
                copy.record_stream(now)
        return copies

    def _went_well(self, place: int) -> None:
        # It is only queued by now: the copy runs beside it.
        self._send((place + 1) % len(self._parts))

    def _send(self, place: int) -> None:
        if place in self._coming:
            return
        with self._streams.stream(self._side):
            self._coming[place] = super()._copies(place), self._side.record_event()


def tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """Give all that a module computes with, which has to be where it computes."""
    yield from module.parameters()
    yield from module.buffers()
