"""What every renderer refuses, whatever draws the picture. Imports no torch.

Jobs are validated long before; these checks keep a fault on the way from becoming another picture than the one
that was asked for, because the pipelines round, stretch and ignore without a word.
"""

from PIL.Image import Image

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.render.models import MODELS, way_of
from qwen_image_daemon.render.renderer import RenderRequest, RequestRefused
from qwen_image_daemon.render.schedule import steps_that_run

WHITE = 128
"""From this level on a mask's pixel is redrawn: where the pipelines' mask processors draw the line."""


def refuse_unfit(request: RenderRequest, family: Family) -> None:
    """Raise RequestRefused where a model of the family could not draw exactly what is requested."""
    _refuse_task(request, family)
    _refuse_size(request, family)
    _refuse_guidance(request)
    match request.task:
        case "text-to-image":
            _refuse_pictures(request, "Text-to-image", needs=())
        case "image-to-image":
            _refuse_pictures(request, "Image-to-image", needs=("source", "strength"))
        case "inpaint":
            _refuse_pictures(request, "Inpainting", needs=("source", "mask", "strength"))
        case "edit":
            _refuse_references(request, family)
        case "layered":
            _refuse_layers(request)
        case "controlnet":
            _refuse_control(request)


def _refuse_task(request: RenderRequest, family: Family) -> None:
    way = way_of(request.task, masked=request.mask is not None)
    if request.task not in family.tasks or way not in MODELS[family.name].pipelines:
        can = ", ".join(sorted(family.tasks))
        raise RequestRefused(
            f"A model of the family {family.name} cannot do {way}.",
            f"Choose another model; this one can do: {can}.",
        )


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


def _refuse_pictures(request: RenderRequest, who: str, needs: tuple[str, ...]) -> None:
    """Raise where the request has other pictures than it needs, or one that does not fit."""
    given = {
        "source": request.source,
        "strength": request.strength,
        "mask": request.mask,
        "references": request.references or None,
        "control": request.control,
        "layers": request.layers,
    }
    missing = [name for name in needs if given[name] is None]
    if missing:
        wanted = [f"a {name}" for name in needs]
        raise RequestRefused(f"{who} needs {' and '.join(wanted)}.", f"Give the {' and the '.join(missing)}, too.")
    spare = [name for name, value in given.items() if value is not None and name not in needs]
    if spare:
        raise RequestRefused(f"{who} takes no {' and no '.join(spare)}.", "Leave it out, or ask for another task.")
    if request.strength is not None and not 0.0 < request.strength <= 1.0:
        raise RequestRefused(f"A strength of {request.strength} is not in (0, 1].", "Use for example 0.6.")
    size = (request.width, request.height)
    if request.source is not None and request.task != "layered":
        _refuse_picture("source", request.source, ("RGB",), size)
    if request.mask is not None:
        masked = request.references[0] if request.task == "edit" else None
        _refuse_mask(request.mask, size if masked is None else masked.size)


def _refuse_references(request: RenderRequest, family: Family) -> None:
    masked = request.mask is not None
    _refuse_pictures(request, "An edit", ("references", "mask", "strength") if masked else ("references",))
    most = 1 if masked else family.max_references
    if len(request.references) > most:
        raise RequestRefused(
            f"An edit{' with a mask' if masked else ''} reads {most} picture{'s' * (most > 1)} at most, "
            f"not {len(request.references)}.",
            "Name fewer pictures, or choose a model that reads several.",
        )
    modes = ("RGB", "RGBA") if MODELS[family.name].draws_alpha else ("RGB",)
    for reference in request.references:
        _refuse_picture("reference", reference, modes, reference.size)


def _refuse_layers(request: RenderRequest) -> None:
    _refuse_pictures(request, "Taking a picture apart", ("source", "layers"))
    if request.source is not None:
        _refuse_picture("source", request.source, ("RGBA",), request.source.size)
    if request.resolution not in {640, 1024}:
        # The pipeline asserts it.
        raise RequestRefused(f"A resolution of {request.resolution} is not known.", "Use 640 or 1024.")


def _refuse_control(request: RenderRequest) -> None:
    masked = request.mask is not None
    _refuse_pictures(request, "A ControlNet", ("control", "mask") if masked else ("control",))
    control = request.control
    if control is None:
        return
    _refuse_picture("control picture", control.image, ("RGB",), (request.width, request.height))
    if not 0.0 <= control.start < control.end <= 1.0:
        raise RequestRefused(
            f"A control picture that counts from {control.start} to {control.end} of the steps never counts.",
            "Use a control_start below control_end, both from 0.0 to 1.0.",
        )
    if not _counts_in_a_step(control.start, control.end, steps_that_run(request)):
        raise RequestRefused(
            f"No step of {request.num_inference_steps} lies wholly between {control.start} and {control.end}: "
            "the control picture would have no effect.",
            "Widen control_start and control_end, or use more steps.",
        )


def _counts_in_a_step(start: float, end: float, steps: int) -> bool:
    """Say whether the pipelines' own condition for a ControlNet's say holds in any step."""
    return any(step / steps >= start and (step + 1) / steps <= end for step in range(steps))


def _refuse_mask(mask: Image, size: tuple[int, int]) -> None:
    _refuse_picture("mask", mask, ("L",), size)
    if not any(mask.histogram()[WHITE:]):
        raise RequestRefused(
            "The mask is black all over: nothing would be redrawn.",
            "Paint white what is to be redrawn; a mask of the picture's transparency needs a transparent part.",
        )


def _refuse_picture(name: str, picture: Image, modes: tuple[str, ...], size: tuple[int, int]) -> None:
    if picture.mode not in modes or picture.size != size:
        width, height = picture.size
        raise RequestRefused(
            f"The {name} is {picture.mode} of {width}×{height} pixels, "
            f"not {' or '.join(modes)} of {size[0]}×{size[1]}.",
            f"Convert and scale the {name} before it is rendered.",
        )
