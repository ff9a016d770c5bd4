"""Bringing a picture to another size without stretching it: with margins, or cut. Its mask follows it."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import Fit


@dataclass(frozen=True, slots=True)
class Placement:
    """How a picture comes to lie upon a canvas: scaled, its middle upon the middle; what sticks out is cut."""

    source: Size
    scaled: Size
    canvas: Size

    @property
    def corner(self) -> tuple[int, int]:
        """Where its upper left corner lies on the canvas; below 0 where it is cut."""
        return (self.canvas.width - self.scaled.width) // 2, (self.canvas.height - self.scaled.height) // 2

    def note(self, name: str) -> tuple[str, ...]:
        """Say in a sentence what becomes of a picture of that name; nothing where it stays as it is."""
        if self.source == self.canvas:
            return ()
        scaling = "" if self.scaled == self.source else f"scaled to {self.scaled}"
        if self.scaled == self.canvas:
            what = scaling
        else:
            done = "padded" if _fits(self.scaled, self.canvas) else "cut"
            what = " and ".join(filter(None, (scaling, f"{done} to {self.canvas}")))
        return (f"{name}, {self.source}, was {what}",)


def placed_on(source: Size, canvas: Size, fit: Fit) -> Placement:
    """Say how a picture fills a canvas: wholly inside (pad, scale), or covering it (crop)."""
    ratios = (canvas.width / source.width, canvas.height / source.height)
    if fit == "crop":
        scale = max(ratios)
        scaled = Size(
            max(canvas.width, round(source.width * scale)), max(canvas.height, round(source.height * scale))
        )
    else:
        scale = min(ratios)
        scaled = Size(
            min(canvas.width, max(1, round(source.width * scale))),
            min(canvas.height, max(1, round(source.height * scale))),
        )
    return Placement(source, scaled, canvas)


def shaped_like(source: Size, shape: Size, fit: Fit) -> Placement:
    """Say how a picture gets another's shape and keeps its scale: with margins, or cut."""
    wide, high = source.width / shape.width, source.height / shape.height
    scale = min(wide, high) if fit == "crop" else max(wide, high)
    if fit == "crop":
        canvas = Size(max(1, int(shape.width * scale)), max(1, int(shape.height * scale)))
    else:
        canvas = Size(ceil(shape.width * scale - 1e-9), ceil(shape.height * scale - 1e-9))
    return Placement(source, source, canvas)


def placed(picture: Image.Image, placement: Placement) -> Image.Image:
    """Bring a picture onto its canvas. Margins repeat its outermost pixels."""
    scaled = _scaled(picture, placement)
    left, upper = placement.corner
    cut = scaled.crop(_inside(placement))
    if cut.size == (placement.canvas.width, placement.canvas.height):
        return cut
    spare_x, spare_y = placement.canvas.width - cut.width, placement.canvas.height - cut.height
    before_x, before_y = max(left, 0), max(upper, 0)
    margins = ((before_y, spare_y - before_y), (before_x, spare_x - before_x), (0, 0))
    return Image.fromarray(np.pad(np.asarray(cut), margins, mode="edge"))


def placed_mask(mask: Image.Image, placement: Placement) -> Image.Image:
    """Bring the mask of a picture, at any scale, to where its picture lies. Margins are black: they are kept."""
    # Sharper ways of scaling overshoot at edges.
    upon = mask.resize(_tuple(placement.scaled), Image.Resampling.BILINEAR)
    cut = upon.crop(_inside(placement))
    left, upper = placement.corner
    canvas = Image.new("L", _tuple(placement.canvas), 0)
    canvas.paste(cut, (max(left, 0), max(upper, 0)))
    return canvas


def taken_back(drawn: Image.Image, placement: Placement) -> Image.Image:
    """Give what lies where a padded picture was placed, in that picture's own size. `drawn` has any size."""
    canvas, source = placement.canvas, placement.source
    wide, high = drawn.width / canvas.width, drawn.height / canvas.height
    left, upper = placement.corner
    box = (left * wide, upper * high, (left + source.width) * wide, (upper + source.height) * high)
    if drawn.size == _tuple(source) == _tuple(canvas):
        return drawn
    return drawn.resize(_tuple(source), Image.Resampling.LANCZOS, box=box)


def _scaled(picture: Image.Image, placement: Placement) -> Image.Image:
    if placement.scaled == placement.source:
        return picture
    return picture.resize(_tuple(placement.scaled), Image.Resampling.LANCZOS)


def _inside(placement: Placement) -> tuple[int, int, int, int]:
    """Give the part of the scaled picture that lies on the canvas."""
    left, upper = (max(-edge, 0) for edge in placement.corner)
    width = min(placement.scaled.width - left, placement.canvas.width)
    height = min(placement.scaled.height - upper, placement.canvas.height)
    return left, upper, left + width, upper + height


def _fits(inner: Size, outer: Size) -> bool:
    return inner.width <= outer.width and inner.height <= outer.height


def _tuple(size: Size) -> tuple[int, int]:
    return size.width, size.height
