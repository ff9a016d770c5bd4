"""A request's prompts as arguments of its pipeline: encoded beforehand wherever the pipeline takes them so."""

from typing import Any

import structlog
import torch

from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.models import MODELS, Pipeline
from qwen_image_daemon.render.randomness import seeded
from qwen_image_daemon.render.renderer import RenderRequest
from qwen_image_daemon.render.task_pipelines import TaskPipelines

log = structlog.get_logger()


class PromptArguments:
    """Encodes prompts, and describes the picture where a layered request has no words."""

    def __init__(self, prompts: PromptEncoder, pipelines: TaskPipelines) -> None:
        self._prompts = prompts
        self._pipelines = pipelines

    def encoded(self, request: RenderRequest, facts: Pipeline) -> tuple[dict[str, Any], str | None]:
        """Give the prompts as arguments of the pipeline, and the caption where the model wrote one."""
        if not facts.takes_embeddings:
            # Beside pictures 2.1 encodes them itself, while it draws.
            return {"prompt": request.prompt, "negative_prompt": request.negative_prompt}, None
        prompt, caption = request.prompt, None
        if request.task == "layered" and not prompt.strip():
            prompt = caption = self._caption(request)
        with_pictures = MODELS[self._pipelines.family.name].prompt_reading == "with pictures"
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
        with seeded(0, self._pipelines.device):
            return self._prompts.caption(request.source, request.resolution)


def in_their_place(prompts: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Bring what was encoded to where it is computed with, should it have been left elsewhere."""
    astray = [
        name
        for name, prompt in prompts.items()
        if isinstance(prompt, torch.Tensor) and prompt.device.type != device.type
    ]
    if astray:
        log.warning("prompts.put_back", arguments=astray)
    return {name: prompt.to(device) if name in astray else prompt for name, prompt in prompts.items()}
