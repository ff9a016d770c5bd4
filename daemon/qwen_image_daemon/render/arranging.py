"""Drawing with whatever arrangement of the model the memory bears, stepping down where it runs out."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
import torch

from qwen_image_daemon.render.devices import give_back
from qwen_image_daemon.render.host_memory import Heap
from qwen_image_daemon.render.ladder import Ladder, Rung
from qwen_image_daemon.render.renderer import (
    Arrangement,
    Misplaced,
    OutOfMemory,
    RenderError,
    Rendering,
    RenderRequest,
)
from qwen_image_daemon.render.translation import translated
from qwen_image_daemon.render.warm_pipeline import CallerProgress, WarmPipeline

log = structlog.get_logger()

_ANEW: Final = "arranged anew"


class ArrangedModel:
    """A loaded model on a device, with the ladder of its arrangements."""

    def __init__(self, warm: WarmPipeline, ladder: Ladder, device: torch.device, heap: Heap) -> None:
        self.warm = warm
        self.device = device
        self._ladder = ladder
        self._heap = heap

    def draw(
        self, request: RenderRequest, caller: CallerProgress, failure: Callable[[Exception], RenderError]
    ) -> Rendering:
        """Draw one picture. `failure` says what an exception of the libraries means.

        Where memory runs out, it is given back and the same is tried again; then the next arrangement comes, and
        so on. Where parts of the model were on different devices it is arranged anew, once. Raises RenderErrors,
        and what the caller's progress raises.
        """
        rung = self._ladder.first(request)
        steps: list[str] = []
        while True:
            try:
                rendering = translated(partial(self._drawn, rung, request, caller), failure, caller.is_callers_own)
            except OutOfMemory as error:
                self._give_back()
                below = self._ladder.below(rung, request, str(error)) if steps else rung
                if below is None:
                    # The next picture begins at the top, with nothing on the device.
                    self.warm.forget_arrangement()
                    self._give_back()
                    raise
                steps.append(f"{'again' if below is rung else f'as {below} instead of {rung}'}: {error}")
                rung = below
            except Misplaced as error:
                if any(step.startswith(_ANEW) for step in steps):
                    raise
                self.warm.forget_arrangement()
                steps.append(f"{_ANEW}: {error}")
            else:
                if steps:
                    self._ladder.worked(rung.plan, request)
                plan = rung.plan
                arrangement = Arrangement(
                    plan=plan.name,
                    exactness=plan.exactness,
                    levers=() if plan.exactness == "exact" else (plan.what,),
                    steps_down=tuple(steps),
                )
                return replace(rendering, arrangement=arrangement)
            log.warning("memory.stepped_down", step=steps[-1])

    def _drawn(self, rung: Rung, request: RenderRequest, caller: CallerProgress) -> Rendering:
        if self.warm.arranged != (rung.plan, rung.staying):
            device = torch.device("cpu") if rung.plan.on_cpu else self.device
            log.info("memory.arranging", plan=str(rung), device=str(device), reason=rung.reason)
            self.warm.arrange(rung.plan, device, rung.staying)
        return self.warm.draw(request, caller)

    def _give_back(self) -> None:
        give_back(self.device)
        self._heap.trim()
