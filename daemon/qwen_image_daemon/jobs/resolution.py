"""From what was asked to what will be done: every open choice filled in, nothing that was asked changed."""

from typing import Annotated, Any

from pydantic import Field

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.departures import Wishes, departures, distilled_by, work_of
from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.models import (
    AnyJob,
    ControlNetJob,
    EditJob,
    Fit,
    ImageToImageJob,
    InpaintJob,
    LayeredJob,
    LoraUse,
    Output,
    Resolution,
    SchedulerUse,
    SourcedJob,
    StrictModel,
    TextToImageJob,
)
from qwen_image_daemon.jobs.source_sizes import layered_size, nearest_sizes, scaled_size
from qwen_image_daemon.jobs.styles import in_style, untouched
from qwen_image_daemon.jobs.tasks import Task

MASKED_EDIT_RESOLUTION = 1024
"""QwenImageEditInpaintPipeline draws about as many pixels as a square of this side has, whatever it is asked
for."""
SINGLE_SPACE = " "
"""The negative prompt that the makers give where there is none: CFG is silently off without one."""


class EffectiveParameters(StrictModel):
    """What the renderer is really asked for. Image k is drawn from seed + k."""

    task: Task
    model: str
    prompt: str
    """What is drawn: the prompt that was asked for, in the words of its style. Empty exactly for a layered job
    that leaves it to the model to describe the picture."""
    original_prompt: str | None = None
    """The prompt as it was written, where a style's words were written around it."""
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
    """The source of image-to-image, inpaint and layered."""
    images: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The references of an edit, in order; the first decides the size."""
    mask: str | None = None
    """White is redrawn."""
    mask_from_alpha: bool = False
    """The mask is the source's own transparency: what is transparent is redrawn."""
    control_image: str | None = None
    controlnet: str | None = None
    """Its name in the settings."""
    control_scale: float | None = None
    control_start: float | None = None
    control_end: float | None = None
    strength: float | None = None
    """How much is redrawn: for image-to-image, inpaint, and edits with a mask (1.0)."""
    fit: Fit = "pad"
    """How pictures of another shape are brought to width and height."""
    back_to_source: bool = False
    """What was drawn in width and height is brought back to the exact size of the first picture. Only edits."""
    preserve_unmasked: bool = False
    """What is not masked is taken from the source. Never true without a mask."""
    layers: int | None = None
    resolution: Resolution | None = None
    loras: Annotated[tuple[LoraUse, ...], Field(strict=False)] = ()
    scheduler: SchedulerUse | None = None
    """None: the model's own."""
    strict: bool = True
    """What cannot be drawn exactly so is an error; else it is an adjustment."""
    output: Output = Output()
    adjustments: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """What was filled in otherwise than asked, in sentences. Always empty where `strict` is true."""


def resolve(spec: AnyJob, catalogue: Catalogue, *, seed: int, source: Size | None = None) -> EffectiveParameters:
    """Fill in the choices that a job leaves open.

    `seed` is used only where the job gives none; `source`, the upright size of the first picture that the job
    reads, only where the size depends on it: where the job gives none, then the recommended size whose shape is
    nearest to the source's is taken, or the source's own size or shape where the job wants that. Raises
    ValueError where it does, or where the job is a layered one, and `source` is not given. Raises KeyError for
    a model, LoRA or style that the catalogue does not know; a job that was read with the same catalogue never
    names one. Raises OSError where the LoRA folder cannot be listed.
    """
    model = catalogue.model_of(spec)
    family = catalogue.families[model]
    loras = catalogue.loras() if spec.loras else {}
    wishes = Wishes.of(spec)
    work = work_of(wishes, family, loras)
    distilled = distilled_by(wishes, family, loras) is not None
    negative = spec.negative_prompt if spec.negative_prompt is not None else SINGLE_SPACE
    size = _size(spec, family, source)
    asked = spec.prompt or ""
    prompt = asked if spec.style is None or not asked else in_style(asked, catalogue.styles[spec.style])
    styled = prompt != asked
    return EffectiveParameters(
        task=spec.task,
        model=model,
        prompt=prompt,
        original_prompt=asked if styled else None,
        style=spec.style if styled else None,
        negative_prompt=negative if work.true_cfg_scale > 1.0 else None,
        true_cfg_scale=work.true_cfg_scale,
        num_inference_steps=work.num_inference_steps,
        width=size.width,
        height=size.height,
        seed=spec.seed if spec.seed is not None else seed,
        num_images=spec.num_images,
        loras=spec.loras,
        scheduler=spec.scheduler or (SchedulerUse(name="lightning") if distilled else None),
        strict=spec.strict,
        output=spec.output,
        adjustments=tuple(departure.done for departure in departures(wishes, family, loras)),
        **_of_task(spec, catalogue, family),
    )


def _of_task(spec: AnyJob, catalogue: Catalogue, family: Family) -> dict[str, Any]:
    """Give the parameters that only some tasks have."""
    match spec:
        case TextToImageJob():
            return {}
        case ImageToImageJob():
            return {"image": spec.image, "strength": spec.strength, "fit": spec.fit}
        case InpaintJob():
            return {
                "image": spec.image,
                "mask": spec.mask,
                "mask_from_alpha": spec.mask is None,
                "strength": spec.strength,
                "preserve_unmasked": spec.preserve_unmasked,
                "fit": spec.fit,
            }
        case EditJob():
            return {
                "images": spec.images if spec.image is None else (spec.image,),
                "mask": spec.mask,
                "strength": None if spec.mask is None else 1.0,
                "preserve_unmasked": spec.preserve_unmasked and spec.mask is not None,
                "fit": spec.fit,
                "back_to_source": spec.size == "source",
            }
        case LayeredJob():
            return {"image": spec.image, "layers": spec.layers, "resolution": spec.resolution}
        case ControlNetJob():
            fitting = catalogue.controlnets_for(family, "union" if spec.mask is None else "inpaint")
            return {
                "control_image": spec.control_image,
                "controlnet": spec.controlnet or fitting[0],
                "control_scale": spec.control_scale,
                "control_start": spec.control_start,
                "control_end": spec.control_end,
                "mask": spec.mask,
                "preserve_unmasked": spec.preserve_unmasked and spec.mask is not None,
                "fit": spec.fit,
            }


def _size(spec: AnyJob, family: Family, source: Size | None) -> Size:
    if isinstance(spec, LayeredJob) or is_masked_edit(spec):
        # Here the pipelines decide.
        resolution = spec.resolution if isinstance(spec, LayeredJob) else MASKED_EDIT_RESOLUTION
        return layered_size(_known(source), resolution)
    if isinstance(spec, SourcedJob) and spec.size == "source":
        return _known(source) if wants_source_size(spec) else nearest_sizes(_known(source), family)[0]
    if isinstance(spec, SourcedJob) and spec.fit == "scale":
        return scaled_size(_known(source), family)
    if spec.width is not None and spec.height is not None:
        return Size(spec.width, spec.height)
    if spec.aspect_ratio is None and source is not None:
        return family.nearest_shape(source)
    return family.sizes[spec.aspect_ratio or "1:1"]


def _known(source: Size | None) -> Size:
    if source is None:
        raise ValueError("the source's size decides, and is not known")
    return source


def wants_source_size(spec: AnyJob) -> bool:
    """Say whether a job is to be drawn in its source's own size. Edits are drawn near it, and brought back."""
    return isinstance(spec, SourcedJob) and not isinstance(spec, EditJob) and spec.size == "source"


def takes_the_sources_shape(spec: AnyJob) -> bool:
    """Say whether the result of a job has its source's shape, whatever that is."""
    if isinstance(spec, LayeredJob) or is_masked_edit(spec):
        return True
    if isinstance(spec, EditJob) and spec.size == "source":
        return True
    return isinstance(spec, SourcedJob) and spec.fit == "scale"


def is_masked_edit(spec: AnyJob) -> bool:
    """Say whether a job is an edit that is kept to a mask. Its pipeline chooses the size."""
    return isinstance(spec, EditJob) and spec.mask is not None


def adjustments_of(spec: AnyJob, effective: EffectiveParameters) -> tuple[str, ...]:
    """Say in sentences which wish of a job could not be followed to the letter."""
    style = () if spec.style is None or effective.style is not None else (untouched(spec.style),)
    return (*style, *effective.adjustments)
