"""Clearing memory between two jobs: what can be cleared, when it pays, and what was done.

torch keeps what a picture needed for the next one, and takes it from there at no cost. Giving it back costs a wait
and asking for it again. It pays where the next picture would find too little beside it: torch then gives up its
caches in the middle of that picture, and not even all of them: no block of which a part is in use.
"""

import gc
import time
from collections.abc import Callable
from typing import Final

import torch

from qwen_image_daemon.render.devices import empty_caches, wait_for
from qwen_image_daemon.render.host_memory import Heap
from qwen_image_daemon.render.memory_report import device_memory
from qwen_image_daemon.render.renderer import CleaningStep, CleanUp, MemoryInfo

_LEAST_WORTH_BYTES: Final = 256 * 1024 * 1024
"""Less than a picture's largest tensors at the usual sizes is not worth a wait."""


def why_empty(memory: MemoryInfo) -> str | None:
    """Say why giving back the device's caches would pay, or None: they hold more than what is free beside them."""
    idle = memory.reserved_bytes - memory.allocated_bytes
    if idle < _LEAST_WORTH_BYTES or idle <= memory.free_bytes:
        return None
    return (
        f"{idle / 2**20:.0f} MiB lay idle in the caches, {memory.free_bytes / 2**20:.0f} MiB were free beside them"
    )


class Cleaning:
    """One clean-up of a device and of the process that works with it.

    `forget` drops what is kept to save time and grows with what is drawn. All methods raise what the device met
    with before.
    """

    def __init__(self, device: torch.device, heap: Heap, forget: Callable[[], None]) -> None:
        self._device = device
        self._heap = heap
        self._forget = forget
        self._started = time.perf_counter()
        self._done: list[CleaningStep] = []
        wait_for(device)
        self._found = self._left = device_memory(device)

    def everything(self) -> CleanUp:
        """Give back all that nothing uses."""
        self._collect()
        self._empty()
        self._trim()
        return self._clean_up("render.cleanup is always")

    def what_pays(self) -> CleanUp:
        """Collect garbage, which costs next to nothing (`gc.freeze`), and give back where that pays."""
        self._collect()
        reasons: list[str] = []
        if reason := why_empty(self._left):
            reasons.append(reason)
            self._empty()
        if reason := self._heap.why_trim(self._left.idle_heap_bytes):
            reasons.append(reason)
            self._trim()
        return self._clean_up("; ".join(reasons) or "to give more back would not pay")

    def nothing_new(self) -> CleanUp:
        """Say that there is nothing to clear."""
        return self._clean_up("nothing was drawn since the last time")

    def nothing(self) -> CleanUp:
        """Only measure."""
        return self._clean_up("render.cleanup is never")

    def _collect(self) -> None:
        self._forget()
        gc.collect()
        self._note("garbage collected")

    def _empty(self) -> None:
        if self._device.type != "cpu":
            empty_caches(self._device)
            self._note("device caches emptied")

    def _trim(self) -> None:
        self._heap.trim()
        self._note("heap trimmed")

    def _note(self, step: CleaningStep) -> None:
        self._done.append(step)
        # Measuring begins the peak anew: that of the pictures is what counts.
        self._left = device_memory(self._device).model_copy(update={"peak_bytes": self._found.peak_bytes})

    def _clean_up(self, reason: str) -> CleanUp:
        return CleanUp(
            done=tuple(self._done),
            reason=reason,
            seconds=time.perf_counter() - self._started,
            found=self._found,
            left=self._left,
        )
