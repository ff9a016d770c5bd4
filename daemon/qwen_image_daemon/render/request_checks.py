"""What every renderer refuses, whatever draws the picture. Imports no torch.

Jobs are validated long before; these checks keep a fault on the way from becoming another picture than the one
that was asked for, because the pipelines round, stretch and ignore without a word.
"""

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.render.renderer import RenderRequest, RequestRefused


def refuse_unfit(request: RenderRequest, family: Family) -> None:
    """Raise RequestRefused where a model of the family could not draw exactly what is requested."""
    _refuse_size(request, family)
    _refuse_guidance(request)
    _refuse_source(request)


def _refuse_size(request: RenderRequest, family: Family) -> None:
    for name, side in (("width", request.width), ("height", request.height)):
        if side < family.multiple or side % family.multiple:
            raise RequestRefused(
                f"The {name} of {side} pixels is not a multiple of {family.multiple}.",
                f"Use a {name} of {family.nearest_side(side)}.",
            )


def _refuse_guidance(request: RenderRequest) -> None:
    if request.num_inference_steps < 1:
        raise RequestRefused(
            f"{request.num_inference_steps} inference steps draw nothing.", "Use at least one step."
        )
    guided = request.true_cfg_scale > 1.0
    if guided != (request.negative_prompt is not None):
        raise RequestRefused(
            f"A true CFG scale of {request.true_cfg_scale} and "
            f"{'no negative prompt' if guided else 'a negative prompt'} do not go together.",
            "Give a negative prompt exactly where the true CFG scale is above 1.",
        )


def _refuse_source(request: RenderRequest) -> None:
    if request.task == "text-to-image":
        if request.source is not None or request.strength is not None:
            raise RequestRefused("Text-to-image takes neither source nor strength.", "Ask for image-to-image.")
        return
    if request.source is None or request.strength is None:
        raise RequestRefused("Image-to-image needs a source and a strength.", "Give both.")
    if not 0.0 < request.strength <= 1.0:
        raise RequestRefused(f"A strength of {request.strength} is not in (0, 1].", "Use for example 0.6.")
    if request.source.mode != "RGB" or request.source.size != (request.width, request.height):
        width, height = request.source.size
        raise RequestRefused(
            f"The source is {request.source.mode} of {width}×{height} pixels, "
            f"not RGB of {request.width}×{request.height}.",
            "Convert and scale the source before it is rendered.",
        )
