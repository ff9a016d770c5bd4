"""The call of diffusers' pipeline, from encoded prompts to the latents after the last step."""

from typing import Any

import torch

from qwen_image_daemon.render.caller_progress import CallerProgress
from qwen_image_daemon.render.calls import arguments_of
from qwen_image_daemon.render.checked_requests import CheckedRequest
from qwen_image_daemon.render.decoding import refuse_not_finite
from qwen_image_daemon.render.models import way_of
from qwen_image_daemon.render.prompt_arguments import in_their_place
from qwen_image_daemon.render.schedulers import scheduler_for
from qwen_image_daemon.render.task_pipelines import TaskPipelines


class _DenoisedError(Exception):
    """Raised to leave a pipeline that cannot end before the decoding."""


def denoised(
    pipelines: TaskPipelines, checked: CheckedRequest, prompts: dict[str, Any], caller: CallerProgress
) -> torch.Tensor:
    """Give the packed latents (1, tokens, channels) after the last step; `prompts` are arguments of the pipeline.

    Raises BadPicture at the first step whose latents are no numbers, what the caller's progress raises, and
    whatever the libraries raise.
    """
    request = checked.request
    last: list[torch.Tensor] = []

    def on_step_end(_: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Waits for the device, so that a step that is reported is finished, and ends a ruined picture early.
        refuse_not_finite(tensors["latents"], f"Step {step + 1} of the picture")
        caller.report("denoise", step + 1, checked.steps)
        if step + 1 == checked.steps and not checked.facts.gives_latents:
            last.append(tensors["latents"])
            raise _DenoisedError
        return tensors  # the pipelines take back what they handed out

    pipeline = pipelines.pipeline(
        way_of(request.task, masked=request.mask is not None),
        request.control.controlnet if request.control is not None else None,
        scheduler_for(pipelines.scheduler, request.scheduler),
    )
    arguments: dict[str, Any] = {
        **arguments_of(request, checked.facts),
        **in_their_place(prompts, pipelines.device),
        # The CPU's generator draws the same noise for every device.
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": "latent",
        "callback_on_step_end": on_step_end,
    }
    if hasattr(pipeline, "tokenizer_max_length"):
        # Embeddings are cut to 512 otherwise.
        arguments["max_sequence_length"] = pipeline.tokenizer_max_length
    try:
        with pipelines.placement.denoising(pipeline.scheduler):
            latents: torch.Tensor = pipeline(**arguments).images
    except _DenoisedError:
        latents = last.pop()
    finally:
        # They tidy up only where they end themselves.
        pipeline.maybe_free_model_hooks()
    return latents
