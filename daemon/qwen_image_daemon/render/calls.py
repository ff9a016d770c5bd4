"""A request as the arguments of the pipeline that draws it, but for prompts, generator and what is called back."""

from typing import Any

from qwen_image_daemon.render.models import Pipeline
from qwen_image_daemon.render.renderer import Control, RenderRequest


def arguments_of(request: RenderRequest, pipeline: Pipeline) -> dict[str, Any]:
    """Give what the pipeline's call takes. Raises ValueError for a request that no check has seen."""
    return {
        "true_cfg_scale": request.true_cfg_scale,
        "num_inference_steps": request.num_inference_steps,
        **({"strength": request.strength} if pipeline.has_strength else {}),
        # Those that take the size from a picture would ignore it, or do not know it.
        **({"width": request.width, "height": request.height} if pipeline.size_from == "request" else {}),
        **_pictures(request, pipeline),
    }


def _pictures(request: RenderRequest, pipeline: Pipeline) -> dict[str, Any]:
    match request.task:
        case "text-to-image":
            return {}
        case "image-to-image":
            return {"image": request.source}
        case "inpaint":
            return {"image": request.source, "mask_image": request.mask}
        case "edit" if request.mask is not None:
            return {"image": request.references[0], "mask_image": request.mask}
        case "edit":
            several = pipeline.most_references > 1
            return {"image": list(request.references) if several else request.references[0]}
        case "layered":
            return {"image": request.source, "layers": request.layers, "resolution": request.resolution}
        case "controlnet":
            return _control(request, request.control)


def _control(request: RenderRequest, control: Control | None) -> dict[str, Any]:
    if control is None:
        raise ValueError("a ControlNet without a control picture")
    return {
        "control_image": control.image,
        **({} if request.mask is None else {"control_mask": request.mask}),
        "controlnet_conditioning_scale": control.scale,
        "control_guidance_start": control.start,
        "control_guidance_end": control.end,
    }
