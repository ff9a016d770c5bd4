"""Pictures that a job reads, as they were meant to be seen: upright, in sRGB, RGB or RGBA."""

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageOps

FORMATS: Final = ("PNG", "JPEG", "WEBP")


def read_picture(path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """Read a picture upright, as RGB, or as RGBA where it has transparency. Says in sentences what went wrong.

    A colour profile is translated into sRGB; one that is broken is left alone, and told. Raises OSError.
    """
    with Image.open(path, formats=FORMATS) as opened:
        profile = opened.info.get("icc_profile")
        upright = ImageOps.exif_transpose(opened)
    if not profile:
        return to_colours(upright), ()
    try:
        return _in_srgb(upright, profile), ()
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        note = f"the colour profile of {path.name} cannot be used ({error}): its colours were taken as sRGB"
        return to_colours(upright), (note,)


def to_colours(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB or RGBA. Grey of 16 bits keeps its levels: Pillow would clip them."""
    if image.mode.startswith("I"):
        levels = (np.asarray(image, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(levels).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Give a picture without transparency: what was transparent is white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Translate colours. Raises PyCMSError, OSError or ValueError for a profile that is broken or does not fit."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if ImageCms.getProfileDescription(opened).startswith("sRGB"):
        # Through the tables and back would move levels by one.
        return to_colours(image)
    space = opened.profile.xcolor_space.strip()
    coloured = to_colours(image)
    if space == "RGB":
        held = coloured
    elif space == "CMYK" and image.mode == "CMYK":
        held = image
    elif space == "GRAY" and image.mode in {"1", "L", "LA"}:
        held = image.convert("L")
    else:
        raise ValueError(f"it is for {space}, the picture is {image.mode}")
    translated = ImageCms.profileToProfile(
        held.convert("RGB") if held.mode == "RGBA" else held,
        opened,
        ImageCms.createProfile("sRGB"),
        outputMode="RGB",
    )
    if translated is None:
        raise ValueError("nothing came out")
    if coloured.mode == "RGBA":
        translated.putalpha(coloured.getchannel("A"))
    return translated
