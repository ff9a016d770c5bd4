"""What can be found out of a request before time is spent on it."""

from dataclasses import dataclass

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.differences import (
    drawn_size,
    pipeline_of,
    settled,
    size_differences,
    steps_differences,
)
from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.loras import CheckedLora, Loras, lora_differences
from qwen_image_daemon.render.models import Pipeline
from qwen_image_daemon.render.renderer import RenderRequest, UnexpectedFailure
from qwen_image_daemon.render.request_checks import refuse_unfit
from qwen_image_daemon.render.schedule import steps_that_run
from qwen_image_daemon.render.schedulers import refuse_scheduler
from qwen_image_daemon.render.task_pipelines import TaskPipelines


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that was checked, with what the checks found out."""

    request: RenderRequest
    facts: Pipeline
    steps: int
    size: Size
    """In which the pipeline draws."""
    loras: tuple[CheckedLora, ...]
    adjustments: tuple[str, ...]

    def refuse_other_passes(self, passes: int) -> None:
        """Raise UnexpectedFailure where the guidance that was asked for was not done, or some that was not."""
        expected = self.steps * (1 if self.request.negative_prompt is None else 2)
        if passes != expected:
            raise UnexpectedFailure(
                f"The model was called {passes} times instead of {expected}: steps or guidance are not as asked.",
                "Report it with the versions of diffusers and of this program.",
            )


def checked_request(
    request: RenderRequest, pipelines: TaskPipelines, loras: Loras, prompts: PromptEncoder
) -> CheckedRequest:
    """Check all that can be checked before time is spent. Raises RequestRefused."""
    family = pipelines.family
    refuse_unfit(request, family)
    facts = pipeline_of(request, family)
    refuse_scheduler(request.scheduler, facts)
    checked_loras = loras.checked(request.loras)
    # The catalogue's number stands for the checkpoint's, whatever that is.
    prescribed = None if request.num_inference_steps == family.fixed_steps else pipelines.fixed_steps
    differences = (
        *size_differences(request, family),
        *steps_differences(request, prescribed),
        *prompts.differences(request),
        *lora_differences(checked_loras),
    )
    return CheckedRequest(
        request=request,
        facts=facts,
        steps=steps_that_run(request, pipelines.fixed_steps),
        size=drawn_size(request, family),
        loras=checked_loras,
        adjustments=settled(differences, strict=request.strict),
    )
