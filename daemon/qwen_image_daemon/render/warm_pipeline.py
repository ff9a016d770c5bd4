"""Drawing one picture with a loaded pipeline, and leaving no trace of it. Knows no settings and no checkpoint."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import QwenImageImg2ImgPipeline

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.render.decoding import decoded, refuse_not_finite
from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.renderer import Progress, Rendering, RenderRequest, Stage, StageSeconds
from qwen_image_daemon.render.request_checks import refuse_unfit
from qwen_image_daemon.render.schedule import steps_that_run


class CallerProgress:
    """Hands progress to the caller and knows whether an exception is the caller's own.

    `is_callers_own` turns true while the caller's function runs and stays so where it raises.
    """

    def __init__(self, progress: Callable[[Progress], None]) -> None:
        self._progress = progress
        self._with_caller = False

    def report(self, stage: Stage, step: int, steps: int) -> None:
        """Call the caller's function."""
        self._with_caller = True
        self._progress(Progress(stage, step, steps))
        self._with_caller = False

    def is_callers_own(self) -> bool:
        """Say whether the exception that is under way came out of the caller's function."""
        return self._with_caller


class WarmPipeline:
    """A loaded text-to-image pipeline and the image-to-image one that shares everything with it."""

    def __init__(self, pipeline: Any, family: Family) -> None:
        self._pipeline = pipeline
        # Not from_pipe: that casts the shared modules to float32 in place.
        self._image_to_image: Any = QwenImageImg2ImgPipeline(**pipeline.components)
        self._image_to_image.set_progress_bar_config(disable=True)
        self._family = family
        self._prompts = PromptEncoder(pipeline, family.max_prompt_tokens)

    def draw(self, request: RenderRequest, caller: CallerProgress) -> Rendering:
        """Draw one picture.

        Raises RenderErrors, what the caller's progress raises, and whatever the libraries raise.
        """
        refuse_unfit(request, self._family)
        self._prompts.refuse_long("prompt", request.prompt)
        if request.negative_prompt is not None:
            self._prompts.refuse_long("negative prompt", request.negative_prompt)
        steps = steps_that_run(request)
        try:
            with torch.inference_mode():
                caller.report("encode", 0, steps)
                started = time.perf_counter()
                embeddings = self._embeddings(request)
                encoded = time.perf_counter()
                caller.report("denoise", 0, steps)
                latents = self._denoised(request, embeddings, caller, steps)
                denoised = time.perf_counter()
                caller.report("decode", steps, steps)
                image = decoded(self._pipeline, latents, request.width, request.height)
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
        return Rendering(image, seconds, steps)

    def forget_sizes(self) -> None:
        """Drop what grows with every size that is drawn. The last few prompts stay: they are few, and small."""
        _forget_positions(self._pipeline.transformer)

    def forget(self) -> None:
        """Drop everything that is kept to save time, but not the model."""
        self._prompts.forget()
        self.forget_sizes()

    def _embeddings(self, request: RenderRequest) -> dict[str, torch.Tensor]:
        prompt = self._prompts.encoded(request.prompt)
        arguments = {"prompt_embeds": prompt.tokens, "prompt_embeds_mask": prompt.mask}
        if request.negative_prompt is not None:
            negative = self._prompts.encoded(request.negative_prompt)
            arguments["negative_prompt_embeds"] = negative.tokens
            arguments["negative_prompt_embeds_mask"] = negative.mask
        return arguments

    def _denoised(
        self,
        request: RenderRequest,
        embeddings: dict[str, torch.Tensor],
        caller: CallerProgress,
        steps: int,
    ) -> torch.Tensor:
        """Give the packed latents (1, tokens, channels) after the last step."""

        def on_step_end(_: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            # Waits for the device, so that a step that is reported is finished, and ends a ruined picture early.
            refuse_not_finite(tensors["latents"], f"Step {step + 1} of the picture")
            caller.report("denoise", step + 1, steps)
            return tensors  # the pipelines take back what they handed out

        arguments: dict[str, Any] = {
            **embeddings,
            "true_cfg_scale": request.true_cfg_scale,
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            # The CPU's generator draws the same noise for every device.
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "max_sequence_length": self._pipeline.tokenizer_max_length,  # embeddings are cut to 512 otherwise
            "output_type": "latent",
            "callback_on_step_end": on_step_end,
        }
        if request.source is None:
            drawn = self._pipeline(**arguments)
        else:
            drawn = self._image_to_image(**arguments, image=request.source, strength=request.strength)
        latents: torch.Tensor = drawn.images
        return latents

    def _restore(self) -> None:
        """Take back what a picture leaves behind: the pipelines tidy up only where they end themselves."""
        self._pipeline.vae.clear_cache()
        self._pipeline.maybe_free_model_hooks()
        self._image_to_image.maybe_free_model_hooks()


def _forget_positions(transformer: Any) -> None:
    """Empty the position embedding's caches, which keep 3.5 MB for every picture size.

    They are functools caches of the class, keyed by the instance, and keep it alive after the model is dropped.
    """
    positions = type(transformer.pos_embed)
    for method in ("_compute_video_freqs", "_get_device_freqs"):
        kept = inspect.getclosurevars(getattr(positions, method)).nonlocals.get("cached")
        if kept is not None:
            kept.cache_clear()
