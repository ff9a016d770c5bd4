"""Which arrangement a picture starts with, and which one comes when memory runs out. Imports no torch."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from qwen_image_daemon.render.component_sizes import ComponentSizes
from qwen_image_daemon.render.memory import (
    PLAN_OF,
    PLANS,
    Memory,
    Plan,
    Work,
    allowed,
    blocks_that_stay,
    choose,
    claim,
)
from qwen_image_daemon.render.renderer import RenderRequest
from qwen_image_daemon.settings import PlanName, Precision, RenderSettings
from qwen_image_daemon.spool.durable import replace_content

log = structlog.get_logger()

_REFERENCE_PIXELS: Final = 1024 * 1024
"""At which the pipelines read each reference, whatever size it has."""


class WorkedBefore:
    """What a kind of picture was drawn with after memory had run out, over restarts, in a small file.

    An entry is forgotten after a while, so that the better arrangement is tried again: what was in the way may be
    gone. A file that cannot be read or written costs a detour for each such picture, and nothing else.
    """

    def __init__(self, file: Path | None, for_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Keep it in a file, or only for this process where there is None."""
        self._file = file
        self._for_seconds = for_seconds
        self._clock = clock
        self._entries: dict[str, tuple[PlanName, float]] = self._read()

    def plan(self, kind: str) -> Plan | None:
        """Give what worked lately for this kind of picture, if memory ever ran out for it."""
        name, at = self._entries.get(kind, (None, 0.0))
        # The host's clock may have been set back since.
        if name is None or not 0 <= self._clock() - at < self._for_seconds:
            return None
        return PLAN_OF[name]

    def note(self, kind: str, plan: Plan) -> None:
        """Keep in mind what worked."""
        self._entries[kind] = plan.name, self._clock()
        if self._file is None:
            return
        try:
            replace_content(self._file, json.dumps(self._entries, indent=2).encode())
        except OSError as error:
            log.warning("memory.not_noted", file=str(self._file), reason=str(error))

    def _read(self) -> dict[str, tuple[PlanName, float]]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {kind: (name, float(at)) for kind, (name, at) in found.items() if name in PLAN_OF}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("memory.notes_unreadable", file=str(self._file), reason=str(error))
            return {}


@dataclass(frozen=True, slots=True)
class ModelFootprint:
    """What a loaded model takes. Pictures smaller than the usual ones are arranged as those are."""

    source: str
    sizes: ComponentSizes
    precision: Precision
    usual_pixels: int


@dataclass(frozen=True, slots=True)
class Rung:
    """An arrangement to try, and why this one."""

    plan: Plan
    staying: int
    """Blocks of the transformer that stay on the device where the others are streamed."""
    reason: str

    def __str__(self) -> str:
        return f"{self.plan.name} with {self.staying} blocks staying" if self.staying else self.plan.name


class Ladder:
    """The arrangements of one loaded model, best first, for pictures of any size."""

    def __init__(
        self,
        model: ModelFootprint,
        memory: Memory,
        settings: RenderSettings,
        worked: WorkedBefore,
    ) -> None:
        self._model = model
        self._memory = memory
        self._settings = settings
        self._worked = worked

    def first(self, request: RenderRequest) -> Rung:
        """Give what a picture is to be tried with first."""
        plan, reason = self._chosen(request)
        known = self._worked.plan(self._kind(request))
        # The settings, or what is installed, may be others since.
        if known is not None and PLANS.index(known) >= PLANS.index(plan) and self._is_rung(known):
            return Rung(known, 0, f"memory ran out with {plan.name} for such a picture lately")
        model = self._model
        staying = blocks_that_stay(plan, model.sizes, self._work(request), model.precision, self._memory)
        return Rung(plan, staying, reason)

    def below(self, rung: Rung, request: RenderRequest, reason: str) -> Rung | None:
        """Give the next arrangement that takes no more of the device, or None where there is none."""
        if rung.staying:
            return Rung(rung.plan, 0, reason)
        taken = self._device(rung.plan, request)
        for candidate in PLANS[PLANS.index(rung.plan) + 1 :]:
            if self._is_rung(candidate) and self._device(candidate, request) <= taken:
                return Rung(candidate, 0, reason)
        return None

    def worked(self, plan: Plan, request: RenderRequest) -> None:
        """Keep in mind that a picture could be drawn with this plan where a better one ran out of memory."""
        self._worked.note(self._kind(request), plan)

    def _device(self, plan: Plan, request: RenderRequest) -> int:
        return claim(plan, self._model.sizes, self._work(request), self._model.precision).device

    def _work(self, request: RenderRequest) -> Work:
        work = work_of(request)
        return replace(work, pixels=max(work.pixels, self._model.usual_pixels))

    def _chosen(self, request: RenderRequest) -> tuple[Plan, str]:
        if self._settings.placement != "auto":
            plan = PLAN_OF[self._settings.placement]
            if plan.table and not self._model.sizes.modulation:
                # This model has nothing to tabulate: without the table it is the same.
                plan = _without_table(plan)
            return plan, "the settings say so (render.placement)"
        quality = self._settings.quality
        choice = choose(self._model.sizes, self._work(request), self._model.precision, self._memory, quality)
        if choice.plan is not None:
            return choice.plan, choice.reason
        # What it takes is estimated: better to try than to refuse.
        last = allowed(quality, self._memory, self._model.sizes)[-1]
        return last, f"nothing fits by the estimate: {choice.reason}"

    def _is_rung(self, plan: Plan) -> bool:
        if plan.on_cpu:
            return self._settings.cpu_fallback
        everywhere = Memory(self._memory.device or 0, self._memory.host)
        return plan in allowed(self._settings.quality, everywhere, self._model.sizes)

    def _kind(self, request: RenderRequest) -> str:
        """Name what pictures have in common that take the same memory."""
        work = work_of(request)
        guided = "guided" if request.negative_prompt is not None else "plain"
        size = f"{request.width}x{request.height}"
        return (
            f"{self._model.source} {self._model.precision} {request.task} {size} {work.reference_pixels} {guided}"
        )


def work_of(request: RenderRequest) -> Work:
    """Say what a picture takes, as far as memory is concerned."""
    pixels = request.width * request.height
    layers = request.layers or 0
    references = len(request.references) * _REFERENCE_PIXELS
    # All layers are drawn at once, beside the picture itself and what it looks at; they are decoded one by one.
    return Work(pixels, request.num_inference_steps, references + (layers + 1) * pixels * bool(layers))


def _without_table(plan: Plan) -> Plan:
    return next(other for other in PLANS if other == replace(plan, name=other.name, what=other.what, table=False))
