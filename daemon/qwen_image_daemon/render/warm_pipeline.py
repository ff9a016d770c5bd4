"""Drawing one picture with a loaded model, and leaving no trace of it. Knows no settings but the gate's limits."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
import torch
from PIL import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.calls import arguments_of
from qwen_image_daemon.render.decoding import refuse_not_finite
from qwen_image_daemon.render.differences import (
    drawn_size,
    pipeline_of,
    settled,
    size_differences,
    steps_differences,
)
from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.loras import CheckedLora, Loras, lora_differences
from qwen_image_daemon.render.memory import Plan as MemoryPlan
from qwen_image_daemon.render.models import MODELS, Pipeline, way_of
from qwen_image_daemon.render.picture_gate import refuse_no_picture, refuse_unchanged
from qwen_image_daemon.render.position_caches import forget_positions
from qwen_image_daemon.render.renderer import (
    Arrangement,
    BadPicture,
    Progress,
    Rendering,
    RenderRequest,
    Stage,
    StageSeconds,
    UnexpectedFailure,
)
from qwen_image_daemon.render.request_checks import refuse_unfit
from qwen_image_daemon.render.schedule import steps_that_run
from qwen_image_daemon.render.schedulers import refuse_scheduler, scheduler_for
from qwen_image_daemon.render.task_pipelines import TaskPipelines
from qwen_image_daemon.render.vae_ladder import VaeLadder, VaeWay
from qwen_image_daemon.settings import RenderSettings

log = structlog.get_logger()


class CallerProgress:
    """Hands progress to the caller and knows whether an exception is the caller's own.

    `is_callers_own` turns true while the caller's function runs and stays so where it raises.
    """

    def __init__(self, progress: Callable[[Progress], None]) -> None:
        self._progress = progress
        self._with_caller = False
        self.expected_seconds: float | None = None
        """How long the picture will take, where that is known."""
        self.note: str | None = None
        """What a person should know of how it is drawn."""

    def report(self, stage: Stage, step: int, steps: int) -> None:
        """Call the caller's function."""
        self._with_caller = True
        self._progress(Progress(stage, step, steps, self.expected_seconds, self.note))
        self._with_caller = False

    def is_callers_own(self) -> bool:
        """Say whether the exception that is under way came out of the caller's function."""
        return self._with_caller


class _DenoisedError(Exception):
    """Raised to leave a pipeline that cannot end before the decoding."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A request that was checked, with what the checks found out."""

    request: RenderRequest
    facts: Pipeline
    steps: int
    size: Size
    """In which the pipeline draws."""
    loras: tuple[CheckedLora, ...]
    adjustments: tuple[str, ...]


class WarmPipeline:
    """A loaded model, with all ways to draw that its family has."""

    def __init__(
        self,
        pipelines: TaskPipelines,
        loras: Loras,
        prompts: PromptEncoder,
        vae: VaeLadder,
        limits: RenderSettings,
    ) -> None:
        self._pipelines = pipelines
        self._vae = vae
        self._loras = loras
        self._prompts = prompts
        self._family = pipelines.family
        self._limits = limits

    def draw(self, request: RenderRequest, caller: CallerProgress) -> Rendering:
        """Draw one picture. One that is none is drawn once more, on the safe path.

        Raises RenderErrors, what the caller's progress raises, and whatever the libraries raise.
        """
        plan = self._plan(request)
        try:
            return self._drawn(plan, caller, nullcontext())
        except BadPicture as error:
            log.warning("picture.bad", reason=str(error), again="decoded in float32")
        note = "the picture was drawn a second time, and decoded in float32: the first one was none"
        again = self._drawn(plan, caller, _in_float32(self._pipelines.loaded.vae))
        return replace(again, adjustments=(*again.adjustments, note))

    def arrange(self, plan: MemoryPlan, device: torch.device, staying: int) -> None:
        """Bring the model into another arrangement, or anew into the same one."""
        self.forget()
        self._pipelines.placement.arrange(plan, device, staying)

    def forget_arrangement(self) -> None:
        """Bring everything back into host memory; it must be arranged before the next picture."""
        self.forget()
        self._pipelines.placement.undo()

    def park(self) -> int:
        """Bring all back into host memory, but for a copy of the transformer. Gives its bytes on the device."""
        self.forget()
        return self._pipelines.placement.park()

    def unpark(self) -> None:
        """Drop the copy."""
        self._pipelines.placement.unpark()

    def forget_guests(self) -> None:
        """Drop what was loaded beside the model for some pictures: a ControlNet."""
        self._pipelines.forget_controlnet()

    @property
    def arranged(self) -> tuple[MemoryPlan | None, int]:
        """The arrangement that the model is in, None while it is in host memory only; and how many blocks stay."""
        return self._pipelines.placement.plan, self._pipelines.placement.staying

    @contextmanager
    def sliced_attention(self) -> Iterator[None]:
        """Compute attention piece by piece inside, on a transformer that can."""
        transformer = self._pipelines.loaded.transformer
        try:
            transformer.set_attention_slice("auto")
            yield
        finally:
            transformer.set_attention_slice(None)

    def steps_of(self, request: RenderRequest) -> int:
        """Say how many denoising steps are run for a request."""
        return steps_that_run(request, self._pipelines.fixed_steps)

    def component(self, name: str) -> Any:
        """Give one of the model's parts."""
        return self._pipelines.loaded.components[name]

    def forget_sizes(self) -> None:
        """Drop what grows with every size that is drawn. The last few prompts stay: they are few, and small."""
        forget_positions(self._pipelines.loaded.transformer)

    def forget(self) -> None:
        """Drop everything that is kept to save time, but not the model."""
        self._prompts.forget()
        self._loras.take_off()
        self.forget_sizes()

    def _plan(self, request: RenderRequest) -> _Plan:
        """Check all that can be checked before time is spent. Raises RequestRefused."""
        refuse_unfit(request, self._family)
        facts = pipeline_of(request, self._family)
        refuse_scheduler(request.scheduler, facts)
        loras = self._loras.checked(request.loras)
        fixed = self._pipelines.fixed_steps
        # The catalogue's number stands for the checkpoint's, whatever that is.
        prescribed = None if request.num_inference_steps == self._family.fixed_steps else fixed
        differences = (
            *size_differences(request, self._family),
            *steps_differences(request, prescribed),
            *self._prompts.differences(request),
            *lora_differences(loras),
        )
        return _Plan(
            request=request,
            facts=facts,
            steps=steps_that_run(request, fixed),
            size=drawn_size(request, self._family),
            loras=loras,
            adjustments=settled(differences, strict=request.strict),
        )

    def _drawn(self, plan: _Plan, caller: CallerProgress, decoding: AbstractContextManager[None]) -> Rendering:
        request = plan.request
        passes: list[None] = []
        transformer = self._pipelines.loaded.transformer
        counting = transformer.register_forward_pre_hook(lambda *_: passes.append(None))
        try:
            with counting, torch.inference_mode(), self._seeded(request.seed):
                # What is made in inference mode could not be arranged otherwise afterwards.
                with torch.inference_mode(mode=False):
                    self._loras.put_on(plan.loras, request.loras)
                self._pipelines.placement.settle()
                caller.report("encode", 0, plan.steps)
                started = time.perf_counter()
                prompts, caption = self._encoded(request, plan.facts)
                encoded = time.perf_counter()
                begin_denoising = partial(caller.report, "denoise", 0, plan.steps)
                begin_denoising()
                with self._vae.encoding(request, begin_denoising) as way_in:
                    latents = self._denoised(plan, prompts, caller)
                denoised = time.perf_counter()
                _refuse_other_passes(len(passes), plan)
                with decoding:
                    drawn = self._vae.decoded(
                        latents, plan.size, request, lambda: caller.report("decode", plan.steps, plan.steps)
                    )
                image = self._looked_at(request, drawn.pictures)
                seconds = StageSeconds(
                    encode=encoded - started,
                    denoise=denoised - encoded,
                    decode=time.perf_counter() - denoised,
                )
        except BaseException:
            # What was encoded may be what is wrong.
            self._prompts.forget()
            raise
        finally:
            self._restore()
        return Rendering(
            image=image,
            seconds=seconds,
            steps=plan.steps,
            layers=drawn.pictures if request.layers is not None else (),
            caption=caption,
            passes=len(passes),
            adjustments=plan.adjustments,
            arrangement=self._arrangement(way_in, drawn.way),
        )

    def _arrangement(self, way_in: VaeWay, way_out: VaeWay) -> Arrangement | None:
        plan = self._pipelines.placement.plan
        if plan is None:
            return None
        arrangement = Arrangement(
            plan=plan.name,
            exactness="exact",
            encoding=way_in.last_rung.name,
            decoding=way_out.last_rung.name,
            steps_down=(*way_in.steps_down, *way_out.steps_down),
        )
        if plan.exactness != "exact":
            arrangement = arrangement.less_exact(plan.exactness, plan.what)
        for way in (way_in, way_out):
            for rung in dict.fromkeys(way.rungs):
                if rung.exactness != "exact":
                    arrangement = arrangement.less_exact(rung.exactness, rung.said_of(way.work))
        return arrangement

    def _looked_at(self, request: RenderRequest, pictures: tuple[Image.Image, ...]) -> Image.Image:
        """Give the picture in the size asked for. Raises BadPicture where it is none."""
        image = pictures[0]
        for layer in pictures[1:]:
            image = Image.alpha_composite(image, layer)
        if not MODELS[self._family.name].draws_alpha:
            image = image.convert("RGB")
        refuse_no_picture(image, self._limits)
        if request.task == "edit" and request.mask is None:
            refuse_unchanged(image, request.references[0], self._limits)
        if image.size != (request.width, request.height):
            image = image.resize((request.width, request.height), Image.Resampling.LANCZOS)
        return image

    def _encoded(self, request: RenderRequest, facts: Pipeline) -> tuple[dict[str, Any], str | None]:
        """Give the prompts as arguments of the pipeline, and the caption where the model wrote one."""
        if not facts.takes_embeddings:
            # Beside pictures 2.1 encodes them itself, while it draws.
            return {"prompt": request.prompt, "negative_prompt": request.negative_prompt}, None
        prompt, caption = request.prompt, None
        if request.task == "layered" and not prompt.strip():
            prompt = caption = self._caption(request)
        with_pictures = MODELS[self._family.name].prompt_reading == "with pictures"
        pictures = request.references if with_pictures else ()
        positive = self._prompts.encoded(prompt, pictures)
        arguments: dict[str, Any] = {"prompt_embeds": positive.tokens, "prompt_embeds_mask": positive.mask}
        if request.negative_prompt is not None:
            negative = self._prompts.encoded(request.negative_prompt, pictures)
            arguments["negative_prompt_embeds"] = negative.tokens
            arguments["negative_prompt_embeds_mask"] = negative.mask
        if request.task == "layered":
            # It describes the picture anew, for nothing, where no prompt stands beside the embedding.
            arguments["prompt"] = prompt.strip() or "."
        return arguments, caption

    def _caption(self, request: RenderRequest) -> str:
        if request.source is None or request.resolution is None:
            raise ValueError("nothing to describe")
        # The same words for all pictures of a job, also for those that are drawn after a restart.
        with self._seeded(0):
            return self._prompts.caption(request.source, request.resolution)

    def _denoised(self, plan: _Plan, prompts: dict[str, Any], caller: CallerProgress) -> torch.Tensor:
        """Give the packed latents (1, tokens, channels) after the last step."""
        request = plan.request
        last: list[torch.Tensor] = []

        def on_step_end(_: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            # Waits for the device, so that a step that is reported is finished, and ends a ruined picture early.
            refuse_not_finite(tensors["latents"], f"Step {step + 1} of the picture")
            caller.report("denoise", step + 1, plan.steps)
            if step + 1 == plan.steps and not plan.facts.gives_latents:
                last.append(tensors["latents"])
                raise _DenoisedError
            return tensors  # the pipelines take back what they handed out

        pipeline = self._pipelines.pipeline(
            way_of(request.task, masked=request.mask is not None),
            request.control.controlnet if request.control is not None else None,
            scheduler_for(self._pipelines.scheduler, request.scheduler),
        )
        arguments: dict[str, Any] = {
            **arguments_of(request, plan.facts),
            **self._in_their_place(prompts),
            # The CPU's generator draws the same noise for every device.
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "output_type": "latent",
            "callback_on_step_end": on_step_end,
        }
        if hasattr(pipeline, "tokenizer_max_length"):
            # Embeddings are cut to 512 otherwise.
            arguments["max_sequence_length"] = pipeline.tokenizer_max_length
        try:
            with self._pipelines.placement.denoising(pipeline.scheduler):
                latents: torch.Tensor = pipeline(**arguments).images
        except _DenoisedError:
            latents = last.pop()
        finally:
            # They tidy up only where they end themselves.
            pipeline.maybe_free_model_hooks()
        return latents

    def _in_their_place(self, prompts: dict[str, Any]) -> dict[str, Any]:
        """Bring what was encoded to where it is computed with, should it have been left elsewhere."""
        device = self._pipelines.loaded._execution_device  # noqa: SLF001  see pyproject
        astray = [
            name
            for name, prompt in prompts.items()
            if isinstance(prompt, torch.Tensor) and prompt.device.type != device.type
        ]
        if astray:
            log.warning("prompts.put_back", arguments=astray)
        return {name: prompt.to(device) if name in astray else prompt for name, prompt in prompts.items()}

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Let what draws from the libraries' own randomness be the same each time, and leave that as it was.

        The inpaint ControlNet's pipeline, the LCM scheduler and the layered model's describing take no generator.
        """
        device = self._pipelines.loaded._execution_device  # noqa: SLF001  see pyproject
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _restore(self) -> None:
        """Take back what a picture leaves behind."""
        self._pipelines.loaded.vae.clear_cache()


def _refuse_other_passes(passes: int, plan: _Plan) -> None:
    """Raise UnexpectedFailure where the guidance that was asked for was not done, or some that was not."""
    expected = plan.steps * (1 if plan.request.negative_prompt is None else 2)
    if passes != expected:
        raise UnexpectedFailure(
            f"The model was called {passes} times instead of {expected}: steps or guidance are not as asked.",
            "Report it with the versions of diffusers and of this program.",
        )


@contextmanager
def _in_float32(vae: Any) -> Iterator[None]:
    """Let the VAE compute in float32 for a while. Back and forth is exact: every smaller float is a float32."""
    before = vae.dtype
    if before == torch.float32:
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(before)
