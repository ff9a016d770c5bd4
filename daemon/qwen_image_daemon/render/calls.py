"""A request as the arguments of the pipeline that draws it, but for prompts, generator and what is called back."""

from typing import Any

from PIL.Image import Image

from qwen_image_daemon.render.models import Pipeline
from qwen_image_daemon.render.renderer import Control, RenderRequest


def arguments_of(request: RenderRequest, pipeline: Pipeline) -> dict[str, Any]:
    """Give what the pipeline's call takes, for a request that was checked."""
    return {
        "true_cfg_scale": request.true_cfg_scale,
        "num_inference_steps": request.num_inference_steps,
        **({"strength": request.strength} if pipeline.has_strength else {}),
        # Those that take the size from a picture would ignore it, or do not know it.
        **({"width": request.width, "height": request.height} if pipeline.size_from == "request" else {}),
        **_pictures(request, pipeline),
    }


def _pictures(request: RenderRequest, pipeline: Pipeline) -> dict[str, Any]:
    if request.control is not None:
        return _control(request.control, request.mask)
    masked = {} if request.mask is None else {"mask_image": request.mask}
    match request.task:
        case "edit":
            several = pipeline.most_references > 1
            return {"image": list(request.references) if several else request.references[0], **masked}
        case "layered":
            return {"image": request.source, "layers": request.layers, "resolution": request.resolution}
        case _:
            return {} if request.source is None else {"image": request.source, **masked}


def _control(control: Control, mask: Image | None) -> dict[str, Any]:
    return {
        "control_image": control.image,
        **({} if mask is None else {"control_mask": mask}),
        "controlnet_conditioning_scale": control.scale,
        "control_guidance_start": control.start,
        "control_guidance_end": control.end,
    }
