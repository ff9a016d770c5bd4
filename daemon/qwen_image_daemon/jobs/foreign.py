"""Settings of one task in a job of another: who has them, and what to write instead."""

from collections.abc import Mapping
from types import MappingProxyType

from qwen_image_daemon.jobs.models import MODELS
from qwen_image_daemon.jobs.tasks import Task

Sentences = tuple[str, str]
"""The fault and the cure."""

_ONE_PICTURE: Sentences = (
    "it redraws one picture.",
    'Use image, and a job for each picture; or set task to "edit" to make one of several.',
)
_LAYERS_HAVE_A_SIZE: Sentences = (
    "the model gives layers in the picture's own shape.",
    "Take it out; resolution (640 or 1024) says how large they are.",
)
_NO_RESOLUTION: Sentences = (
    "it is for layered jobs, which take a picture apart.",
    "Use width and height, or aspect_ratio.",
)

_SPECIAL: Mapping[tuple[str, Task], Sentences] = MappingProxyType(
    {
        ("image", "text-to-image"): (
            "a text-to-image job draws from words alone.",
            'Set task to "image-to-image" to redraw the picture, or take image out.',
        ),
        ("size", "text-to-image"): (
            "it is for jobs that name an image.",
            "Use width and height, or aspect_ratio.",
        ),
        ("strength", "text-to-image"): (
            "it says how much of a source picture is redrawn, and this job redraws none.",
            "Name the picture with image, for an image-to-image job, or take strength out.",
        ),
        ("fit", "text-to-image"): (
            "it says how a picture is brought to the result's shape, and this job reads none.",
            "Name the picture with image, or take fit out.",
        ),
        ("mask", "image-to-image"): (
            "an image-to-image job redraws the whole picture.",
            'Set task to "inpaint" to redraw what the mask shows, or take mask out.',
        ),
        ("mask", "text-to-image"): (
            "it says which part of a picture is redrawn, and this job redraws none.",
            'Name the picture with image and set task to "inpaint", or take mask out.',
        ),
        ("strength", "edit"): (
            "an edit has none: the prompt says how much is changed.",
            'Take it out, or set task to "image-to-image".',
        ),
        ("strength", "controlnet"): (
            "a ControlNet job has none: control_scale says how closely the control picture is followed.",
            "Take it out, or use control_scale.",
        ),
        ("image", "controlnet"): (
            "a ControlNet job reads control_image; with a mask, that is the picture of which a part is redrawn.",
            "Name the picture with control_image, or take image out.",
        ),
        ("images", "image-to-image"): _ONE_PICTURE,
        ("images", "inpaint"): _ONE_PICTURE,
        ("images", "layered"): _ONE_PICTURE,
        ("aspect_ratio", "layered"): _LAYERS_HAVE_A_SIZE,
        ("width", "layered"): _LAYERS_HAVE_A_SIZE,
        ("height", "layered"): _LAYERS_HAVE_A_SIZE,
        ("size", "layered"): _LAYERS_HAVE_A_SIZE,
        ("fit", "layered"): _LAYERS_HAVE_A_SIZE,
        ("resolution", "text-to-image"): _NO_RESOLUTION,
        ("resolution", "image-to-image"): _NO_RESOLUTION,
        ("resolution", "inpaint"): _NO_RESOLUTION,
        ("resolution", "edit"): _NO_RESOLUTION,
        ("resolution", "controlnet"): _NO_RESOLUTION,
    }
)
"""Where more can be said than whose setting it is."""


def foreign(setting: str, task: Task) -> Sentences | None:
    """Give fault and cure of a setting that only jobs of other tasks have; None for all others."""
    owners = [owner for owner, model in MODELS.items() if setting in model.model_fields]
    if not owners or task in owners:
        return None
    if (setting, task) in _SPECIAL:
        return _SPECIAL[setting, task]
    *most, last = owners
    quoted = " or ".join(f'"{owner}"' for owner in owners)
    return (
        f"it is for {', '.join(most)}{' and ' if most else ''}{last} jobs, and this one is {task}.",
        f"Take it out, or set task to {quoted}.",
    )
