"""Masks: read from a file or from a picture's transparency, and what they keep put back into the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from qwen_image_daemon.render.request_checks import WHITE
from qwen_image_daemon.render.sources import on_white, read_picture

_PIXELS_PER_EDGE: Final = 256
"""The soft edge is one pixel wide for so many of the picture's shorter side: 5 at 1328."""


def read_mask(path: Path) -> Image.Image:
    """Read a mask by its brightness: white is redrawn. L. Raises OSError."""
    picture, _ = read_picture(path)
    return on_white(picture).convert("L")


def mask_of_transparency(picture: Image.Image) -> Image.Image:
    """Give the mask in which a picture's transparent parts are white."""
    if picture.mode != "RGBA":
        return Image.new("L", picture.size, 0)
    return picture.getchannel("A").point(lambda level: 255 - level)


@dataclass(frozen=True, slots=True)
class Untouched:
    """What of a source is to be in the result, to the pixel: all that its mask does not redraw."""

    source: Image.Image
    mask: Image.Image

    def put_into(self, drawn: Image.Image) -> Image.Image:
        """Give the drawn picture with the source outside of the mask. The two blend inside its edge only."""
        redrawn = self.mask.point(lambda level: 255 if level >= WHITE else 0)
        return Image.composite(drawn.convert("RGB"), self.source, _softened(redrawn))


def _softened(mask: Image.Image) -> Image.Image:
    """Let the edge of a mask of black and white rise slowly, inside the white alone. Thin parts stay whole."""
    radius = max(1, round(min(mask.size) / _PIXELS_PER_EDGE))
    blurred = np.asarray(mask.filter(ImageFilter.BoxBlur(radius)), dtype=np.int16)
    # On a straight edge the blur is half, a radius inside it is whole.
    rising = Image.fromarray((2 * blurred - 255).clip(0, 255).astype(np.uint8))
    window = 2 * (2 * radius) + 1
    is_wide = np.asarray(rising.filter(ImageFilter.MaxFilter(window))) == 255  # noqa: PLR2004  white
    white = np.asarray(mask)
    return Image.fromarray(np.where(is_wide, np.minimum(np.asarray(rising), white), white))
