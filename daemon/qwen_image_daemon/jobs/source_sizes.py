"""Drawing in a source's size or shape: whether a family can, and which sizes near it can be drawn."""

from math import ceil, floor, log, sqrt
from typing import Final

from qwen_image_daemon.jobs.families import Family, Size

SUGGESTED: Final = 2
MAX_ELONGATION: Final = 8
"""How many times as long as wide a picture may be whose shape the result takes. Our own: at 1328² pixels it leaves
470 for the short side; the makers' own sizes go to 1.8."""
_LAYERED_MULTIPLE: Final = 32


def fault_of_source_size(size: Size, family: Family) -> tuple[str, str] | None:
    """Give fault and cure of an upright source's size; None where a model of the family draws exactly that."""
    what = _fault(size, family)
    if what is None:
        return None
    sizes = " or ".join(str(near) for near in nearest_sizes(size, family))
    return (
        f"the picture has {size} pixels, and {what}.",
        f"Scale or crop the picture to {sizes}, or leave size out: it is then fitted into a recommended size.",
    )


def fault_of_shape(size: Size) -> tuple[str, str] | None:
    """Give fault and cure of a picture whose shape no drawable size has; None where one has it."""
    long, short = max(size.width, size.height), min(size.width, size.height)
    if long <= MAX_ELONGATION * short:
        return None
    return (
        f"the picture has {size} pixels: one side is more than {MAX_ELONGATION} times the other.",
        "Crop the picture.",
    )


def fault_of_mask_size(mask: Size, source: Size) -> tuple[str, str] | None:
    """Give fault and cure of a mask that does not lie upon its picture; None where it does, at any scale."""
    # Whoever scales a picture rounds its sides: by a pixel of the smaller of the two.
    if abs(mask.width * source.height - source.width * mask.height) <= max(
        mask.width, mask.height, source.width, source.height
    ):
        return None
    return (
        f"the mask has {mask} pixels, and the picture {source}: it would not lie upon it.",
        "Paint the mask over the picture itself, and save it in the same size.",
    )


def scaled_size(source: Size, family: Family) -> Size:
    """Give the size of a source's shape, on the family's grid, with about as many pixels as its 1:1 size.

    The nearest of those around the exact shape, so that margins of less than a step of the grid are left to fill.
    """
    scale = sqrt(_pixels(family.sizes["1:1"]) / _pixels(source))
    width, height = (max(1, round(side * scale)) for side in (source.width, source.height))
    return nearest_sizes(Size(width, height), family)[0]


def layered_size(source: Size, resolution: int) -> Size:
    """Give the size of the layers, as diffusers' QwenImageLayeredPipeline computes it (`calculate_dimensions`)."""
    ratio = source.width / source.height
    exact = sqrt(resolution * resolution * ratio)
    width, height = (round(side / _LAYERED_MULTIPLE) * _LAYERED_MULTIPLE for side in (exact, exact / ratio))
    return Size(width, height)


def nearest_sizes(size: Size, family: Family) -> tuple[Size, ...]:
    """Give one or two sizes that can be drawn, of about the same shape as `size`, the nearest first."""
    shrunk = min(1.0, family.max_side / max(size.width, size.height), sqrt(family.max_pixels / _pixels(size)))
    scale = max(shrunk, family.min_side / min(size.width, size.height))
    # 30 × (64 / 30) may come out a hair beside 64.
    wide, high = (round(side * scale, 6) for side in (size.width, size.height))
    near = [Size(width, height) for width in _sides(wide, family) for height in _sides(high, family)]
    drawable = [other for other in near if _fault(other, family) is None]

    def distance(other: Size) -> float:
        return abs(log(other.width / wide)) + abs(log(other.height / high))

    return tuple(sorted(drawable, key=distance)[:SUGGESTED])


def _fault(size: Size, family: Family) -> str | None:
    """Say why a size cannot be drawn."""
    if min(size.width, size.height) < family.min_side:
        return f"the model draws no side below {family.min_side}"
    if max(size.width, size.height) > family.max_side:
        return f"the model draws no side above {family.max_side}"
    if _pixels(size) > family.max_pixels:
        return f"the model draws no more than {family.max_pixels:,} in all"
    if size.width % family.multiple or size.height % family.multiple:
        return f"the model draws multiples of {family.multiple} only"
    return None


def _sides(side: float, family: Family) -> list[int]:
    steps = side / family.multiple
    around = {floor(steps) * family.multiple, ceil(steps) * family.multiple}
    return sorted({min(max(at, family.min_side), family.max_side) for at in around})


def _pixels(size: Size) -> int:
    return size.width * size.height
