"""What the pictures that a job reads, and the size that it asks for, must be to each other."""

from collections.abc import Iterator

from qwen_image_daemon.jobs.job_settings import Settings
from qwen_image_daemon.jobs.paths import fault_of_image_path
from qwen_image_daemon.jobs.problems import Fault


def sides_come_in_pairs(settings: Settings) -> Iterator[Fault]:
    """Want width and height together or not at all, and never beside an aspect ratio."""
    width, height = settings.get("width"), settings.get("height")
    if settings.get("aspect_ratio") is not None and (width is not None or height is not None):
        yield Fault(
            ("aspect_ratio",),
            "aspect_ratio and width or height exclude each other.",
            "Keep aspect_ratio alone, or width and height without it.",
        )
    elif (width is None) != (height is None) and not settings.refused & {("width",), ("height",)}:
        given, lacking = ("width", "height") if height is None else ("height", "width")
        yield Fault(
            (given,),
            f"{given} is given without {lacking}.",
            f"Add {lacking}, or use aspect_ratio instead of both.",
        )


def the_sources_size_stands_alone(settings: Settings) -> Iterator[Fault]:
    """Want the source's size or another one, not both."""
    others = [key for key in ("aspect_ratio", "width", "height") if settings.get(key) is not None]
    if settings.get("size") is not None and others:
        yield Fault(
            ("size",),
            f"size and {' and '.join(others)} exclude each other.",
            f"Keep size alone, or {' and '.join(others)} without it.",
        )


def pictures_have_plain_paths(settings: Settings) -> Iterator[Fault]:
    """Let a job read nothing but what lies below its own folder."""
    for place, path in settings.pictures():
        if (fault := fault_of_image_path(path)) is not None:
            yield Fault(place, *fault)


def an_edit_reads_pictures(settings: Settings) -> Iterator[Fault]:
    """Want one picture under image, or all under images."""
    if settings.task != "edit" or settings.refused & {("image",), ("images",)}:
        return
    image, images = settings.get("image"), settings.get("images")
    if image is not None and images is not None:
        yield Fault(
            ("images",),
            "image and images exclude each other.",
            "Write all pictures into images, in the order in which the prompt counts them.",
        )
    elif image is None and images is None and not any(path[0] == "images" for path in settings.refused):
        yield Fault(
            ("image",),
            "an edit needs a picture.",
            "Put it beside the job file and set image to its name; for several, set images to a list of names.",
        )


def a_shape_is_asked_for_once(settings: Settings) -> Iterator[Fault]:
    """Refuse a size where the result takes the source's shape: one of the two could not be had."""
    others = [key for key in ("aspect_ratio", "width", "height", "size") if settings.get(key) is not None]
    if settings.get("fit") == "scale" and others:
        yield Fault(
            ("fit",),
            f'"scale" gives the result the picture\'s own shape, and {" and ".join(others)} asks for another.',
            f'Use "pad" or "crop", or take {" and ".join(others)} out.',
        )


def a_masked_edit_leaves_its_size_open(settings: Settings) -> Iterator[Fault]:
    """Refuse a size for edits with a mask: QwenImageEditInpaintPipeline overrides it without a word."""
    if settings.task != "edit" or not settings.get("mask"):
        return
    for key in ("aspect_ratio", "width", "height"):
        if settings.get(key) is not None:
            yield Fault(
                (key,),
                "an edit with a mask has the picture's own shape, at about 1024×1024 pixels.",
                'Take it out, or edit without a mask. For the picture\'s own size write size = "source".',
            )


def the_control_lasts(settings: Settings) -> Iterator[Fault]:
    """Refuse a control that ends before it begins."""
    if settings.task != "controlnet" or settings.refused & {("control_start",), ("control_end",)}:
        return
    start, end = settings.get("control_start", 0.0), settings.get("control_end", 1.0)
    if start >= end:
        yield Fault(
            ("control_start",) if "control_start" in settings.fine else ("control_end",),
            f"the control picture would count from {start} to {end} of the steps: not at all.",
            "Let control_end be above control_start.",
        )


def a_mask_is_there_to_preserve(settings: Settings) -> Iterator[Fault]:
    """Refuse to give up what is not masked where nothing is masked; to preserve it is the default."""
    unmasked = settings.task in {"edit", "controlnet"} and not settings.get("mask")
    if unmasked and settings.get("preserve_unmasked") is False and ("mask",) not in settings.refused:
        yield Fault(("preserve_unmasked",), "it has no effect without a mask.", "Name a mask, or take it out.")
