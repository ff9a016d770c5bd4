"""Drawing with whatever arrangement of the model the memory bears, stepping down where it runs out."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Final

import structlog
import torch

from qwen_image_daemon.render.caller_progress import CallerProgress
from qwen_image_daemon.render.cpu_rate import measured_rate
from qwen_image_daemon.render.devices import DTYPES
from qwen_image_daemon.render.effort import spelled
from qwen_image_daemon.render.ladder import Ladder, Rung
from qwen_image_daemon.render.making_room import Room
from qwen_image_daemon.render.peaks import PeakMeter
from qwen_image_daemon.render.renderer import (
    HostOutOfMemory,
    Misplaced,
    OutOfMemory,
    RenderError,
    Rendering,
    RenderRequest,
)
from qwen_image_daemon.render.translation import translated
from qwen_image_daemon.render.warm_pipeline import WarmPipeline

log = structlog.get_logger()

_ANEW: Final = "arranged anew"


class ArrangedModel:
    """A loaded model on a device, with the ladder of its arrangements."""

    def __init__(
        self,
        warm: WarmPipeline,
        ladder: Ladder,
        meter: PeakMeter,
        device: torch.device,
        room: Room,
    ) -> None:
        self.warm = warm
        self.meter = meter
        self.device = device
        self._ladder = ladder
        self._room = room

    def draw(
        self, request: RenderRequest, caller: CallerProgress, failure: Callable[[Exception], RenderError]
    ) -> Rendering:
        """Draw one picture. `failure` says what an exception of the libraries means.

        Where memory runs out, it is given back and the same is tried again, with nothing on the device of models
        that stand by; where it is the host's, once more without them; then the next arrangement comes, and so on.
        Where parts of the model were on different devices it is arranged anew, once. Raises RenderErrors, and what
        the caller's progress raises.
        """
        rung = self._ladder.first(request)
        steps: list[str] = []
        while True:
            self._announce(rung, request, caller)
            try:
                rendering = translated(partial(self._drawn, rung, request, caller), failure, caller.is_callers_own)
            except OutOfMemory as error:
                below = self._below(rung, request, error, steps)
                if below is None:
                    self._begin_at_the_top()
                    raise
                rung = below
            except Misplaced as error:
                if any(step.startswith(_ANEW) for step in steps):
                    raise
                self.warm.forget_arrangement()
                steps.append(f"{_ANEW}: {error}")
            else:
                if steps:
                    self._ladder.worked(rung.plan, request)
                rendering = _told(rendering, rung, caller.note, steps)
                self._learn(rung, request, rendering)
                return rendering
            log.warning("memory.stepped_down", step=steps[-1])

    def _below(self, rung: Rung, request: RenderRequest, error: OutOfMemory, steps: list[str]) -> Rung | None:
        """Give what is tried next, and put down why."""
        again = self._room.again(error, is_first=not steps)
        if again is not None:
            steps.append(f"{again}: {error}")
            return rung
        below = self._ladder.below(rung, request, error)
        if below is None:
            return None
        unsliced = self._ladder.unsliced
        if unsliced is not None and unsliced not in steps and not isinstance(error, HostOutOfMemory):
            steps.append(unsliced)
        steps.append(f"as {below} instead of {rung}: {error}")
        return below

    def _announce(self, rung: Rung, request: RenderRequest, caller: CallerProgress) -> None:
        """Say how long the picture will take. Raises OutOfMemory where that is too long for the CPU."""
        count = self.warm.steps_of(request)
        seconds = self._ladder.seconds_known(rung.plan, request, count)
        caller.note = None
        if self._ladder.is_last_resort(rung.plan, request):
            seconds = seconds or self._ladder.operations(request, count) / self._cpu_rate
            if seconds > self._ladder.most_cpu_seconds:
                self._begin_at_the_top()
                raise _too_slow(seconds, self._ladder.most_cpu_seconds, rung.reason)
            caller.note = f"drawn on the CPU, which takes about {spelled(seconds)} a picture"
            log.warning(
                "memory.last_resort", cpu_seconds=round(seconds), cpu_tflops=round(self._cpu_rate / 1e12, 3)
            )
        caller.expected_seconds = seconds

    @cached_property
    def _cpu_rate(self) -> float:
        return measured_rate(DTYPES[self._ladder.precision])

    def _drawn(self, rung: Rung, request: RenderRequest, caller: CallerProgress) -> Rendering:
        free = self._ladder.free_beside(rung, request)
        if free is not None:
            self._room.make_way(free)
        if self.warm.arranged != (rung.plan, rung.staying):
            device = torch.device("cpu") if rung.plan.on_cpu else self.device
            log.info("memory.arranging", plan=str(rung), device=str(device), reason=rung.reason)
            self.warm.arrange(rung.plan, device, rung.staying)
        self.meter.begin()
        with self.warm.sliced_attention() if rung.attention == "sliced" else nullcontext():
            return self.warm.draw(request, caller)

    def _begin_at_the_top(self) -> None:
        """Leave nothing on the device, for the next picture."""
        self.warm.forget_arrangement()
        self._room.give_back()

    def _learn(self, rung: Rung, request: RenderRequest, rendering: Rendering) -> None:
        arrangement = rendering.arrangement
        undisturbed = (
            arrangement is not None
            and not arrangement.steps_down
            and arrangement.encoding == arrangement.decoding == "whole"
        )
        # The peak of the device says nothing of what the CPU took, nor that of a picture that ran out of memory.
        measured = undisturbed and rung.plan.on_cpu == (self.device.type == "cpu")
        peak = self.meter.peak_bytes() if measured else None
        # What others keep there is not this picture's.
        own_peak = None if peak is None else peak - self._room.kept_by_others
        self._ladder.learn(rung, request, rendering, own_peak)


def _too_slow(seconds: float, most: float, reason: str) -> OutOfMemory:
    return OutOfMemory(
        f"The CPU as the last resort would take about {spelled(seconds)} for this picture, longer than the "
        f"{spelled(most)} that the settings allow (render.cpu_fallback_max_seconds). Before that: {reason}",
        "Draw smaller pictures or in fewer steps, or raise render.cpu_fallback_max_seconds.",
    )


def _told(rendering: Rendering, rung: Rung, note: str | None, steps: list[str]) -> Rendering:
    """Say in the rendering how the model was arranged for it, beside what the VAE did."""
    arrangement = rendering.arrangement
    if arrangement is None:
        return rendering
    told = (*steps, *(() if note is None else (note,)), *arrangement.steps_down)
    arrangement = arrangement.model_copy(update={"steps_down": told})
    if rung.attention == "sliced":
        arrangement = arrangement.less_exact("float-drift", "attention was computed in slices")
    return replace(rendering, arrangement=arrangement)
