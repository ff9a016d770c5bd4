#!/usr/bin/env python3
"""Draw what the examples use beside the harbour: its mask, its edges, one with a hole, and a lighthouse.

    python tools/make_example_masks.py jobs_example

They are the project's own, and the same on every run.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

HOLE = (300, 420, 660, 600)
"""The part of the harbour that is redrawn: left, top, right and bottom in pixels."""
EDGE_FROM = 12
"""From which difference of grey on something is an edge."""


def main() -> None:
    """Draw all pictures into the folder on the command line, beside its harbour.jpg."""
    folder = Path(sys.argv[1])
    with Image.open(folder / "harbour.jpg") as opened:
        harbour = opened.convert("RGB")
    mask = _mask(harbour.size)
    mask.convert("1").save(folder / "harbour-mask.png", optimize=True)
    _erased(harbour, mask).save(folder / "harbour-erased.png", optimize=True)
    _edges(harbour).save(folder / "harbour-edges.png", optimize=True)
    _lighthouse().save(folder / "lighthouse.png", optimize=True)
    for name in ("harbour-mask", "harbour-erased", "harbour-edges", "lighthouse"):
        print(f"{name}.png: {(folder / f'{name}.png').stat().st_size:,} bytes")


def _mask(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(HOLE, fill=255)
    return mask


def _erased(harbour: Image.Image, mask: Image.Image) -> Image.Image:
    """Give a third of the size, in few colours: an example must be small."""
    size = (harbour.width // 3, harbour.height // 3)
    small = harbour.resize(size).quantize(48, dither=Image.Dither.NONE).convert("RGB")
    small.putalpha(mask.resize(size).point(lambda value: 255 - value))
    return small


def _edges(harbour: Image.Image) -> Image.Image:
    grey = harbour.convert("L").filter(ImageFilter.GaussianBlur(3))
    return grey.filter(ImageFilter.FIND_EDGES).point(lambda value: 255 if value >= EDGE_FROM else 0).convert("1")


def _lighthouse() -> Image.Image:
    picture = Image.new("RGB", (360, 540), "#b8d4e8")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 430, 360, 540), fill="#6b7f5a")
    for stripe, top in enumerate(range(150, 450, 60)):
        inset = (450 - top) // 12
        draw.rectangle((130 + inset, top, 230 - inset, top + 60), fill="#c8402f" if stripe % 2 else "#f4f1ea")
    draw.rectangle((148, 105, 212, 150), fill="#ffe9a0", outline="#333333", width=4)
    draw.polygon([(140, 105), (220, 105), (180, 65)], fill="#333333")
    return picture


if __name__ == "__main__":
    main()
