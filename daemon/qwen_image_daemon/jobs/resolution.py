"""From what was asked to what will be done: every open choice filled in, nothing that was asked changed."""

from typing import Annotated

from pydantic import Field

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.models import ImageToImageJob, Output, StrictModel, Task, TextToImageJob
from qwen_image_daemon.jobs.styles import in_style, untouched

SINGLE_SPACE = " "
"""The negative prompt that the makers give where there is none: CFG is silently off without one."""


class EffectiveParameters(StrictModel):
    """What the renderer is really asked for. Image k is drawn from seed + k."""

    task: Task
    model: str
    prompt: str
    """What is drawn: the prompt that was asked for, in the words of its style."""
    style: str | None = None
    """The style whose words were written around the prompt; None where there are none."""
    negative_prompt: str | None
    """None exactly if classifier-free guidance is off."""
    true_cfg_scale: float
    num_inference_steps: int
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    seed: int
    num_images: Annotated[int, Field(ge=1)]
    image: str | None = None
    strength: float | None = None
    output: Output = Output()


def resolve(
    spec: TextToImageJob | ImageToImageJob, catalogue: Catalogue, *, seed: int, source: Size | None = None
) -> EffectiveParameters:
    """Fill in the choices that a job leaves open.

    `seed` is used only where the job gives none; `source`, the upright size of the picture that the job reads,
    only where it gives no size: then the recommended size whose shape is nearest to the source's is taken, or the
    source's own where the job wants that. Raises ValueError where it does and `source` is not given.
    Raises KeyError for a model or a style that the catalogue does not know; a job that was read with the same
    catalogue never names one.
    """
    family = catalogue.family_of(spec.model)
    preset = family.recommended if spec.preset is None else family.presets[spec.preset]
    scale = spec.true_cfg_scale if spec.true_cfg_scale is not None else preset.true_cfg_scale
    negative = spec.negative_prompt if spec.negative_prompt is not None else SINGLE_SPACE
    size = _size(spec, family, source)
    prompt = spec.prompt if spec.style is None else in_style(spec.prompt, catalogue.styles[spec.style])
    image, strength = (spec.image, spec.strength) if isinstance(spec, ImageToImageJob) else (None, None)
    return EffectiveParameters(
        task=spec.task,
        model=spec.model or catalogue.default,
        prompt=prompt,
        style=spec.style if prompt != spec.prompt else None,
        negative_prompt=negative if scale > 1.0 else None,
        true_cfg_scale=scale,
        num_inference_steps=spec.num_inference_steps or preset.num_inference_steps,
        width=size.width,
        height=size.height,
        seed=spec.seed if spec.seed is not None else seed,
        num_images=spec.num_images,
        image=image,
        strength=strength,
        output=spec.output,
    )


def _size(spec: TextToImageJob | ImageToImageJob, family: Family, source: Size | None) -> Size:
    if wants_source_size(spec):
        if source is None:
            raise ValueError("the source's size is wanted, and not known")
        return source
    if spec.width is not None and spec.height is not None:
        return Size(spec.width, spec.height)
    if spec.aspect_ratio is None and source is not None:
        return family.nearest_shape(source)
    return family.sizes[spec.aspect_ratio or "1:1"]


def wants_source_size(spec: TextToImageJob | ImageToImageJob) -> bool:
    """Say whether a job is to be drawn in its source's own size."""
    return isinstance(spec, ImageToImageJob) and spec.size == "source"


def adjustments_of(spec: TextToImageJob | ImageToImageJob, effective: EffectiveParameters) -> tuple[str, ...]:
    """Say in sentences which wish of a job could not be followed to the letter."""
    return (untouched(spec.style),) if spec.style is not None and effective.style is None else ()
