"""No silent downgrade: what a model would do otherwise than a request asks, found before any time is spent on it.

Strict requests are refused then; for others it is done, and the result says so. No torch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.source_sizes import layered_size
from qwen_image_daemon.render.models import MODELS, Pipeline, way_of
from qwen_image_daemon.render.renderer import RenderRequest, RequestRefused


@dataclass(frozen=True, slots=True)
class Difference:
    """One wish that is not followed to the letter."""

    what: str
    """The fault, for a strict request: a sentence."""
    fix: str
    """The cure, a sentence."""
    done: str
    """What is done instead, for the result: a sentence without its full stop."""


def settled(differences: Iterable[Difference], *, strict: bool) -> tuple[str, ...]:
    """Give what the result is to tell. Raises RequestRefused if there is any, and the request strict."""
    found = tuple(differences)
    if found and strict:
        raise RequestRefused(
            " ".join(difference.what for difference in found),
            " ".join((*(difference.fix for difference in found), "Or set strict = false to have it done so.")),
        )
    return tuple(difference.done for difference in found)


def size_differences(request: RenderRequest, family: Family) -> Iterator[Difference]:
    """Give what becomes of the size where a picture decides it."""
    size = drawn_size(request, family)
    if size != Size(request.width, request.height):
        yield Difference(
            f"This kind of picture is drawn in the shape of the one that it is made of, here {size}, "
            f"not {request.width}×{request.height}.",
            f"Ask for {size}, or for no size.",
            f"the picture was drawn at {size} and scaled to {request.width}×{request.height}",
        )


def steps_differences(request: RenderRequest, fixed: int | None) -> Iterator[Difference]:
    """Give what becomes of the steps where a checkpoint fixes their number."""
    if fixed is not None and fixed != request.num_inference_steps:
        yield Difference(
            f"The checkpoint prescribes {fixed} steps, and would ignore {request.num_inference_steps}.",
            f"Ask for {fixed} steps.",
            f"num_inference_steps {request.num_inference_steps} had no effect: the checkpoint prescribes {fixed}",
        )


def drawn_size(request: RenderRequest, family: Family) -> Size:
    """Give the size in which the pipeline will draw, which is not always the one that it is asked for."""
    pipeline = pipeline_of(request, family)
    asked = Size(request.width, request.height)
    if pipeline.size_from == "request":
        return asked
    picture = request.source if request.task == "layered" else request.references[0]
    side = request.resolution if pipeline.area is None else round(pipeline.area**0.5)
    # Both pipelines have the same function `calculate_dimensions` for it.
    return asked if picture is None or side is None else layered_size(Size(*picture.size), side)


def pipeline_of(request: RenderRequest, family: Family) -> Pipeline:
    """Give the pipeline that draws the request. Raises KeyError where the family has none for it."""
    return MODELS[family.name].pipelines[way_of(request.task, masked=request.mask is not None)]
