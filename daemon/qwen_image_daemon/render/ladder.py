"""Which arrangement a picture starts with, and which one comes when memory runs out. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.component_sizes import ComponentSizes
from qwen_image_daemon.render.effort import operations
from qwen_image_daemon.render.memory import (
    Claim,
    Memory,
    Work,
    allowed,
    block_bytes,
    blocks_that_stay,
    choose,
    claim,
)
from qwen_image_daemon.render.plans import PLAN_OF, PLANS, Plan
from qwen_image_daemon.render.remembered import Experience, Remembered
from qwen_image_daemon.render.renderer import HostOutOfMemory, OutOfMemory, Rendering, RenderRequest
from qwen_image_daemon.render.vae_rungs import RUNG_OF, VaeRung, VaeTask, VaeWork
from qwen_image_daemon.settings import Precision, Quality, RenderSettings

Attention = Literal["whole", "sliced"]

_NOTED_AS: Final[Mapping[VaeWork, str]] = MappingProxyType({"encoded": " encoding", "decoded": " decoding"})
"""What a kind of picture is called in the notes where what the VAE does for it is meant."""
_REFERENCE_PIXELS: Final = 1024 * 1024
"""At which the pipelines read each reference, whatever size it has."""


@dataclass(frozen=True, slots=True)
class ModelFootprint:
    """What a loaded model takes. Pictures smaller than the usual ones are arranged as those are."""

    source: str
    sizes: ComponentSizes
    precision: Precision
    usual: Size
    width: int
    """Of the transformer's hidden states."""
    guests: Callable[[RenderRequest], int]
    """Gives the bytes of the weights that draw along: a ControlNet, LoRAs."""
    unsliced: str | None
    """Why attention cannot be computed in slices, or None where it can."""


@dataclass(frozen=True, slots=True)
class Rung:
    """An arrangement to try, and why this one."""

    plan: Plan
    staying: int
    """Blocks of the transformer that stay on the device where the others are streamed."""
    reason: str
    attention: Attention = "whole"
    """sliced: computed piece by piece, which rounds otherwise."""

    def __str__(self) -> str:
        staying = f" with {self.staying} blocks staying" if self.staying else ""
        return f"{self.plan.name}{staying}{', attention in slices' if self.attention == 'sliced' else ''}"


class Ladder:
    """The arrangements of one loaded model, best first, for pictures of any size."""

    def __init__(
        self, model: ModelFootprint, memory: Memory, settings: RenderSettings, remembered: Remembered
    ) -> None:
        self._model = model
        self._memory = memory
        self._settings = settings
        self._worked = remembered.worked
        self._learned = remembered.learned
        self._usual_pixels = model.usual.width * model.usual.height

    def first(self, request: RenderRequest) -> Rung:
        """Give what a picture is to be tried with first."""
        plan, reason = self._chosen(request)
        known = PLAN_OF.get(self._worked.name(self._kind(request)) or "")
        # The settings, what is installed, or this program's version, may be others since.
        if known is not None and PLANS.index(known) >= PLANS.index(plan) and self._is_rung(known):
            return Rung(known, 0, f"memory ran out with {plan.name} for such a picture lately")
        model = self._model
        staying = blocks_that_stay(plan, model.sizes, self._work(request), model.precision, self._memory)
        return Rung(plan, staying, reason)

    def below(self, rung: Rung, request: RenderRequest, error: OutOfMemory) -> Rung | None:
        """Give what takes less of the memory that ran out, or None where there is nothing.

        On the device: attention in slices, fewer blocks that stay, then the next arrangement that takes no more.
        On the host: the next arrangement that claims less of it, and of the device no more than is there.
        """
        if isinstance(error, HostOutOfMemory):
            free = self._memory.device or 0
            return self._below(
                rung,
                request,
                error,
                lambda lower, taken: lower.host < taken.host and lower.device <= max(taken.device, free),
            )
        if rung.attention == "whole" and self.unsliced is None:
            return replace(rung, reason=str(error), attention="sliced")
        if rung.staying:
            return replace(rung, staying=0, reason=str(error))
        return self._below(rung, request, error, lambda lower, taken: lower.device <= taken.device)

    def _below(
        self, rung: Rung, request: RenderRequest, error: OutOfMemory, is_less: Callable[[Claim, Claim], bool]
    ) -> Rung | None:
        taken = self._claim(rung.plan, request)
        for candidate in PLANS[PLANS.index(rung.plan) + 1 :]:
            # What reads from disk takes as much of the device as what it is made after.
            is_for_the_host = candidate.from_files and not rung.plan.from_files
            if is_for_the_host and not isinstance(error, HostOutOfMemory):
                continue
            if self._is_rung(candidate) and is_less(self._claim(candidate, request), taken):
                return replace(rung, plan=candidate, staying=0, reason=str(error))
        return None

    def free_beside(self, rung: Rung, request: RenderRequest) -> int | None:
        """Say how many bytes of the device a picture leaves free, by the plan; None where it takes none of it."""
        if self._memory.device is None or rung.plan.on_cpu:
            return None
        model = self._model
        needs = claim(rung.plan, model.sizes, self._work(request), model.precision)
        staying = rung.staying * block_bytes(rung.plan, model.sizes, model.precision)
        return max(0, self._memory.device - needs.device - staying)

    @property
    def unsliced(self) -> str | None:
        """Say why attention cannot be computed in slices, or None where it can."""
        return self._model.unsliced

    def worked(self, plan: Plan, request: RenderRequest) -> None:
        """Keep in mind that a picture could be drawn with this plan where a better one ran out of memory."""
        self._worked.note(self._kind(request), plan.name)

    def learn(self, rung: Rung, request: RenderRequest, rendering: Rendering, peak_bytes: int | None) -> None:
        """Keep in mind what a picture took."""
        model = self._model
        staying = rung.staying * block_bytes(rung.plan, model.sizes, model.precision)
        seconds = rendering.seconds
        took = Experience(
            None if peak_bytes is None else peak_bytes - staying,
            seconds.denoise / max(1, rendering.steps),
            seconds.encode + seconds.decode,
        )
        self._learned.note(self._kind(request), rung.plan.name, took)

    def seconds_known(self, plan: Plan, request: RenderRequest, steps: int) -> float | None:
        """Say how long a picture of this kind takes with a plan, by those that were drawn; None where none was."""
        known = self._learned.of(self._kind(request)).get(plan.name)
        return None if known is None else known.seconds(steps)

    def operations(self, request: RenderRequest, steps: int) -> float:
        """Say how much computing a picture is, in floating point operations."""
        passes = steps * (1 if request.negative_prompt is None else 2)
        return operations(self._model.sizes, self._model.width, work_of(request), passes)

    @property
    def most_cpu_seconds(self) -> float:
        """How long a picture may take on the CPU as the last resort."""
        return self._settings.cpu_fallback_max_seconds

    @property
    def precision(self) -> Precision:
        """The format of the model's weights."""
        return self._model.precision

    def is_last_resort(self, plan: Plan, request: RenderRequest) -> bool:
        """Say whether a plan is that of the CPU although there is a device to draw on."""
        return plan.on_cpu and not self._chosen(request)[0].on_cpu

    @property
    def quality(self) -> Quality:
        """What is allowed where memory is short."""
        return self._settings.quality

    def ways_of_vae(self, request: RenderRequest, task: VaeTask) -> list[VaeRung]:
        """Give the ways to encode or decode a picture that come into question, from what worked lately on."""
        ways = list(task.rungs())
        known = RUNG_OF.get(self._worked.name(self._kind(request) + _NOTED_AS[task.work]) or "")
        return ways[ways.index(known) :] if known in ways else ways

    def vae_worked(self, rung: VaeRung, work: VaeWork, request: RenderRequest) -> None:
        """Keep in mind that a picture could be encoded or decoded so where a better way ran out of memory."""
        self._worked.note(self._kind(request) + _NOTED_AS[work], rung.name)

    def _claim(self, plan: Plan, request: RenderRequest) -> Claim:
        # One way of counting for all: what was measured of one plan says nothing of the next.
        return claim(plan, self._model.sizes, replace(self._work(request), measured={}), self._model.precision)

    def _work(self, request: RenderRequest) -> Work:
        """Say what is to be made room for: pictures smaller than usual are arranged as the usual ones are."""
        work = work_of(request, self._model.guests(request))
        usual = self._usual_size(request)
        known = self._learned.of(self._kind(request, usual))
        peaks = {plan: each.peak_bytes for plan, each in known.items() if each.peak_bytes is not None}
        return replace(work, pixels=max(work.pixels, self._usual_pixels), measured=peaks)

    def _usual_size(self, request: RenderRequest) -> str:
        is_small = request.width * request.height < self._usual_pixels
        return _called(self._model.usual) if is_small else _called(request)

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

    def _kind(self, request: RenderRequest, size: str | None = None) -> str:
        """Name what pictures have in common that take the same memory."""
        work = work_of(request, self._model.guests(request))
        guided = "guided" if request.negative_prompt is not None else "plain"
        kind = f"{self._model.source} {self._model.precision} {request.task} {size or _called(request)}"
        guests = f" +{work.guests}" if work.guests else ""
        layers = f" {work.pictures} layers" if work.pictures > 1 else ""
        return f"{kind} {work.reference_pixels} {guided}{layers}{guests}"


def work_of(request: RenderRequest, guests: int = 0) -> Work:
    """Say what a picture takes, as far as memory is concerned; `guests` are bytes of weights that draw along."""
    pixels = request.width * request.height
    layers = request.layers or 0
    references = len(request.references) * _REFERENCE_PIXELS
    # All layers are drawn at once, beside the picture itself and what it looks at, and decoded at once.
    return Work(
        pixels=pixels,
        steps=request.num_inference_steps,
        reference_pixels=references + (layers + 1) * pixels * bool(layers),
        pictures=max(1, layers),
        guests=guests,
    )


def _called(size: Size | RenderRequest) -> str:
    return f"{size.width}x{size.height}"


def _without_table(plan: Plan) -> Plan:
    return next(other for other in PLANS if other == replace(plan, name=other.name, what=other.what, table=False))
