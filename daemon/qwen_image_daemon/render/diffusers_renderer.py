"""The renderer that draws with a Qwen-Image checkpoint through diffusers."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Self

from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.arranging import ArrangedModel
from qwen_image_daemon.render.caller_progress import CallerProgress
from qwen_image_daemon.render.checkpoint_opening import CheckpointOpening, Opened
from qwen_image_daemon.render.cleaning import Cleaning
from qwen_image_daemon.render.devices import give_back, is_the_hosts
from qwen_image_daemon.render.handed_over import Lasting, Part
from qwen_image_daemon.render.host_memory import Heap
from qwen_image_daemon.render.renderer import CleanUp, ModelInfo, Progress, Rendering, RenderRequest
from qwen_image_daemon.render.translation import rendering_failure, translated
from qwen_image_daemon.settings import ModelSettings, RenderSettings


class DiffusersRenderer:
    """One checkpoint on one device, loaded in the first precision that the machine and the checkpoint bear."""

    def __init__(
        self,
        model: ModelSettings,
        settings: RenderSettings,
        accessories: Accessories,
        lasting: Lasting | None = None,
    ) -> None:
        """`lasting` has what the model before this one left behind, and takes what this one leaves."""
        lasting = lasting or Lasting()
        self._heap = Heap()
        self._opening = CheckpointOpening(model, settings, accessories, lasting, owner=self, heap=self._heap)
        self._cleanup = settings.cleanup
        self._handed_over = lasting.handed_over
        self._parking = lasting.parking
        self._opened: Opened | None = None
        self._used = False
        """Whether anything was drawn since the last clean-up."""
        self._stands_by = False

    def __enter__(self) -> Self:
        """Load the model and draw a trial picture. Raises ModelUnavailable, OutOfMemory or DeviceLost."""
        self._opened = self._opening.opened()
        gc.collect()
        self._heap.trim()
        # What is here now stays: later collections need not walk through it again (350 ms each).
        gc.freeze()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let go of the model and of the memory it held, but for what the next one may have in common with it."""
        device = self._entered.loaded.device
        if self._handed_over is not None:
            self._handed_over.take_back(self)
        self._parking.forget(self)
        if not self._stands_by:
            # What is handed over is whole and in host memory, however this model was arranged.
            self._entered.loaded.warm.forget_arrangement()
            if self._handed_over is not None:
                self._handed_over.leave(self._shareable())
        # Otherwise it is so already, its parts may be at work in another model, and the memory is needed.
        self._opened = None
        gc.unfreeze()
        give_back(device)
        self._heap.trim()

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded."""
        return self._entered.info

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Draw one picture; see Renderer.render. Where memory runs out, the next arrangement is tried."""
        opened = self._entered
        self._used = True
        self._stands_by = False
        self._parking.forget(self)
        rendering = opened.loaded.draw(request, CallerProgress(progress), rendering_failure)
        return _lossy(rendering, opened.lossy_by)

    def stand_by(self) -> None:
        """Leave the device, but for a copy of the transformer where that may stay, and lend out what is shared."""
        loaded = self._entered.loaded
        loaded.warm.forget_guests()
        self._park(loaded)
        self._stands_by = True
        if self._handed_over is not None:
            self._handed_over.lend(self, self._shareable())
        give_back(loaded.device)

    def _park(self, loaded: ArrangedModel) -> None:
        # On a device whose memory is the host's a copy would take what the host's own tensors are in.
        if not self._parking.is_open or is_the_hosts(loaded.device):
            loaded.warm.forget_arrangement()
            return
        kept = loaded.warm.park()
        if kept:
            self._parking.keep(self, kept, loaded.warm.unpark)

    def clean_up(self) -> CleanUp:
        """Clear memory as `render.cleanup` says. Raises DeviceLost where the accelerator is gone."""
        loaded = self._entered.loaded
        used, self._used = self._used, False

        def cleaned() -> CleanUp:
            cleaning = Cleaning(loaded.device, self._heap, loaded.warm.forget_sizes)
            match self._cleanup:
                case "always":
                    return cleaning.everything()
                case "adaptive":
                    return cleaning.what_pays() if used else cleaning.nothing_new()
                case "never":
                    return cleaning.nothing()

        done = translated(cleaned, rendering_failure)
        # Each picture begins the device's peak anew; the report tells that of all of them.
        told = {
            "peak_bytes": loaded.meter.reported(done.left.peak_bytes),
            "standing_by_bytes": self._parking.bytes_beside(self),
        }
        plan, _ = loaded.warm.arranged
        return done.model_copy(
            update={
                "arrangement": None if plan is None else plan.name,
                "found": done.found.model_copy(update=told),
                "left": done.left.model_copy(update=told),
            }
        )

    def _shareable(self) -> dict[Part, Any]:
        opened = self._entered
        return {part: opened.loaded.warm.component(name) for name, part in opened.shareable.items()}

    @property
    def _entered(self) -> Opened:
        if self._opened is None:
            raise RuntimeError("The renderer is used outside of its with block.")
        return self._opened


def _lossy(rendering: Rendering, levers: Iterable[str]) -> Rendering:
    """Say that a picture is lossy by what the checkpoint lost, if anything, however it was arranged."""
    arrangement = rendering.arrangement
    if arrangement is None:
        return rendering
    for lever in levers:
        arrangement = arrangement.less_exact("lossy", lever)
    return replace(rendering, arrangement=arrangement)
