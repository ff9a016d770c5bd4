"""Source pictures: upright, RGB, and brought to the size of the result without being stretched."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from qwen_image_daemon.jobs.families import Size

FORMATS = ("PNG", "JPEG", "WEBP")


def fitted(source: Size, target: Size) -> Size:
    """Give the largest size of the source's shape that fits into `target`."""
    scale = min(target.width / source.width, target.height / source.height)
    return Size(
        min(target.width, max(1, round(source.width * scale))),
        min(target.height, max(1, round(source.height * scale))),
    )


def load_source(path: Path, target: Size) -> tuple[Image.Image, tuple[str, ...]]:
    """Read a picture as the pipelines want it: RGB, `target` in size. Says in sentences what was done to it.

    The shape is kept; what is missing is filled by repeating the outermost pixels. Transparent parts become white.
    """
    with Image.open(path, formats=FORMATS) as opened:
        upright = to_rgb(ImageOps.exif_transpose(opened))
    source = Size(*upright.size)
    if source == target:
        return upright, ()
    inner = fitted(source, target)
    scaled = upright.resize((inner.width, inner.height), Image.Resampling.LANCZOS)
    if inner == target:
        return scaled, (f"{path.name}, {source}, was scaled to {target}",)
    return _padded(scaled, target), (f"{path.name}, {source}, was scaled to {inner} and padded to {target}",)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB. 16-bit grey keeps its levels: Pillow's own conversion clips them."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")
    return image.convert("RGB")


def _padded(image: Image.Image, target: Size) -> Image.Image:
    spare_x, spare_y = target.width - image.width, target.height - image.height
    margins = ((spare_y // 2, spare_y - spare_y // 2), (spare_x // 2, spare_x - spare_x // 2), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), margins, mode="edge"))
