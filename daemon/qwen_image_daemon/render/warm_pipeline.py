"""Drawing one picture with a loaded model, and leaving no trace of it. Knows no settings but the gate's limits."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
import torch
from PIL import Image

from qwen_image_daemon.render.caller_progress import CallerProgress
from qwen_image_daemon.render.checked_requests import CheckedRequest, checked_request
from qwen_image_daemon.render.denoising import denoised
from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.loras import Loras
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.picture_gate import refuse_no_picture, refuse_unchanged
from qwen_image_daemon.render.plans import Plan
from qwen_image_daemon.render.position_caches import forget_positions
from qwen_image_daemon.render.prompt_arguments import PromptArguments
from qwen_image_daemon.render.randomness import seeded
from qwen_image_daemon.render.renderer import Arrangement, BadPicture, Rendering, RenderRequest, StageSeconds
from qwen_image_daemon.render.schedule import steps_that_run
from qwen_image_daemon.render.task_pipelines import TaskPipelines
from qwen_image_daemon.render.vae_ladder import VaeLadder, VaeWay
from qwen_image_daemon.settings import RenderSettings

log = structlog.get_logger()


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
        self._arguments = PromptArguments(prompts, pipelines)
        self._family = pipelines.family
        self._limits = limits

    def draw(self, request: RenderRequest, caller: CallerProgress) -> Rendering:
        """Draw one picture. One that is none is drawn once more, on the safe path.

        Raises RenderErrors, what the caller's progress raises, and whatever the libraries raise.
        """
        checked = checked_request(request, self._pipelines, self._loras, self._prompts)
        try:
            return self._drawn(checked, caller, nullcontext())
        except BadPicture as error:
            log.warning("picture.bad", reason=str(error), again="decoded in float32")
        note = "the picture was drawn a second time, and decoded in float32: the first one was none"
        again = self._drawn(checked, caller, _in_float32(self._pipelines.loaded.vae))
        return replace(again, adjustments=(*again.adjustments, note))

    def arrange(self, plan: Plan, device: torch.device, staying: int) -> None:
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
    def arranged(self) -> tuple[Plan | None, int]:
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

    def _drawn(
        self, checked: CheckedRequest, caller: CallerProgress, decoding: AbstractContextManager[None]
    ) -> Rendering:
        request = checked.request
        passes: list[None] = []
        transformer = self._pipelines.loaded.transformer
        counting = transformer.register_forward_pre_hook(lambda *_: passes.append(None))
        try:
            with counting, torch.inference_mode(), seeded(request.seed, self._pipelines.device):
                # What is made in inference mode could not be arranged otherwise afterwards.
                with torch.inference_mode(mode=False):
                    self._loras.put_on(checked.loras, request.loras)
                self._pipelines.placement.settle()
                caller.report("encode", 0, checked.steps)
                started = time.perf_counter()
                prompts, caption = self._arguments.encoded(request, checked.facts)
                encoded = time.perf_counter()
                begin_denoising = partial(caller.report, "denoise", 0, checked.steps)
                begin_denoising()
                with self._vae.encoding(request, begin_denoising) as way_in:
                    latents = denoised(self._pipelines, checked, prompts, caller)
                denoising_ended = time.perf_counter()
                checked.refuse_other_passes(len(passes))
                with decoding:
                    drawn = self._vae.decoded(
                        latents,
                        checked.size,
                        request,
                        lambda: caller.report("decode", checked.steps, checked.steps),
                    )
                image = self._looked_at(request, drawn.pictures)
                seconds = StageSeconds(
                    encode=encoded - started,
                    denoise=denoising_ended - encoded,
                    decode=time.perf_counter() - denoising_ended,
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
            steps=checked.steps,
            layers=drawn.pictures if request.layers is not None else (),
            caption=caption,
            passes=len(passes),
            adjustments=checked.adjustments,
            arrangement=self._arrangement(way_in, drawn.way),
        )

    def _arrangement(self, way_in: VaeWay, way_out: VaeWay) -> Arrangement | None:
        placement = self._pipelines.placement
        plan = placement.plan
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
            arrangement = arrangement.less_exact(plan.exactness, plan.told(placement.makers))
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

    def _restore(self) -> None:
        """Take back what a picture leaves behind."""
        self._pipelines.loaded.vae.clear_cache()


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
