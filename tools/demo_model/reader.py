"""Reads a picture of the demo model's world back: background, and each object's shape, colour and place.

Needs NumPy and Pillow only. It looks at pixels and knows nothing of prompts, so it can't be talked into an
answer: a region is an object if it differs from the background, its colour is the nearest of the twelve by
CIELAB distance, and its shape is the outline that it overlaps best, with the overlap (`fit`) reported beside the
name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageFilter

from .world import COLOURS, SHAPES, BoolArray, ByteArray, FloatArray, covers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LONGEST_SIDE: Final = 256
"""Larger pictures are reduced to this before they are read."""
_DIFFERS: Final = 22.0
"""CIELAB distance to the background from which a pixel belongs to an object."""
_SMALLEST_AREA: Final = 0.004
"""Regions that cover less of the picture are specks, not objects."""
_SHARE_OF_A_PART: Final = 0.05
_MOST_COLOURS: Final = 3
_WITHIN: Final = 0.9
_TEMPLATE: Final = 48
_REACH: Final = 2.4
"""Side of the square in which outlines are compared, in square roots of their area."""


@dataclass(frozen=True, slots=True)
class Object:
    """One object. `x`, `y`, `width` and `height` of its bounding box and `area` are fractions of the picture.

    `fit` is the overlap (intersection over union) with the ideal outline of `shape`; `colour_distance` is the
    CIELAB distance from the named colour.
    """

    shape: str
    colour: str
    x: float
    y: float
    width: float
    height: float
    area: float
    fit: float
    colour_distance: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows; `objects` with the largest first."""

    background: str
    objects: tuple[Object, ...]


def read(image: Image.Image) -> Reading:
    """Read a picture of any size and mode."""
    picture = image.convert("RGB")
    if max(picture.size) > _LONGEST_SIDE:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(picture)
    lab = _lab(pixels)
    backdrop = _border_colour(pixels)
    foreground = _opened(np.linalg.norm(lab - _lab(backdrop), axis=-1) > _DIFFERS)
    nearest = np.linalg.norm(lab[..., None, :] - _palette(), axis=-1).argmin(-1)
    background = _colour_name(backdrop)[0]
    # What differs from the background and would still be called by its colour is the tinted hole of a small ring.
    foreground &= ~_opened(foreground & (nearest == list(COLOURS).index(background)))
    objects = [
        _object(pixels, part, outline)
        for region in _regions(foreground)
        if region.mean() >= _SMALLEST_AREA
        for part, outline in _parts(region, nearest)
    ]
    objects.sort(key=lambda found: -found.area)
    return Reading(background=background, objects=tuple(objects))


# ------------------------------------------------------------------------------------------ colours


def _lab(rgb: ByteArray | FloatArray) -> FloatArray:
    """Convert sRGB levels (0 to 255, last dimension 3) to CIELAB with the white point D65."""
    level = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)  # noqa: PLR2004 (sRGB)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)  # noqa: PLR2004 (CIELAB)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


@cache
def _palette() -> FloatArray:
    return _lab(np.array(list(COLOURS.values()), dtype=np.float64))


def _colour_name(rgb: FloatArray) -> tuple[str, float]:
    distances = np.linalg.norm(_palette() - _lab(rgb), axis=-1)
    return tuple(COLOURS)[int(distances.argmin())], float(distances.min())


def _border_colour(pixels: ByteArray) -> FloatArray:
    band = max(2, min(pixels.shape[:2]) // 32)
    edges = (pixels[:band], pixels[-band:], pixels[:, :band], pixels[:, -band:])
    return np.asarray(np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0), dtype=np.float64)


# ------------------------------------------------------------------------------------------ regions


def _filtered(mask: BoolArray, *filters: ImageFilter.RankFilter) -> BoolArray:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    for one in filters:
        image = image.filter(one)
    return np.asarray(np.asarray(image) > 0, dtype=np.bool_)


def _opened(mask: BoolArray) -> BoolArray:
    return _filtered(mask, ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3))


def _eroded(mask: BoolArray, pixels: int) -> BoolArray:
    return _filtered(mask, ImageFilter.MinFilter(2 * pixels + 1))


def _runs(row: BoolArray) -> Iterator[tuple[int, int]]:
    steps = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
    return zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True)


def _regions(mask: BoolArray) -> list[BoolArray]:
    """Split a mask into its connected regions (neighbours share an edge)."""
    parent: list[int] = []

    def root(label: int) -> int:
        while parent[label] != label:
            label = parent[label]
        return label

    found: list[tuple[int, int, int, int]] = []
    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        here: list[tuple[int, int, int]] = []
        for start, stop in _runs(row):
            label = len(parent)
            parent.append(label)
            for other_start, other_stop, other in above:
                if other_start < stop and start < other_stop:
                    parent[root(other)] = root(label)
            here.append((start, stop, label))
            found.append((y, start, stop, label))
        above = here
    regions: dict[int, BoolArray] = {}
    for y, start, stop, label in found:
        region = regions.setdefault(root(label), np.zeros(mask.shape, dtype=np.bool_))
        region[y, start:stop] = True
    return list(regions.values())


def _largest(mask: BoolArray) -> BoolArray:
    return max(_regions(mask), key=lambda region: int(region.sum()), default=mask)


def _without_holes(mask: BoolArray) -> BoolArray:
    filled = mask.copy()
    for gap in _regions(~mask):
        if not (gap[0].any() or gap[-1].any() or gap[:, 0].any() or gap[:, -1].any()):
            filled |= gap
    return filled


def _parts(
    region: BoolArray, nearest: np.ndarray[tuple[int, ...], np.dtype[np.intp]]
) -> list[tuple[BoolArray, BoolArray]]:
    """Split a region by colour, for one object may lie in another. Returns pairs of pixels and outline."""
    core = _eroded(region, 2)
    counts = np.bincount(nearest[core if core.any() else region], minlength=len(COLOURS))
    enough = max(_SHARE_OF_A_PART * counts.sum(), _SMALLEST_AREA * region.size)
    colours = [int(colour) for colour in counts.argsort()[::-1][:_MOST_COLOURS] if counts[colour] >= enough]
    parts = [_largest(_opened(region & (nearest == colour))) for colour in colours]
    # What is thin is the blend of two colours along an edge, not an object.
    parts = [part for part in parts if part.mean() >= _SMALLEST_AREA and _eroded(part, 2).sum() > 0.2 * part.sum()]
    if len(parts) <= 1:
        return [(region, region)]
    pairs = []
    for part in parts:
        filled = _without_holes(part)
        holds = any((other & filled).sum() > _WITHIN * other.sum() for other in parts if other is not part)
        pairs.append((part, filled if holds else part))
    return pairs


# ------------------------------------------------------------------------------------------ shapes


def _bounds(mask: BoolArray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _centred(mask: BoolArray) -> BoolArray:
    """Sample the mask on a square grid around its centre of mass, scaled by its area; the aspect stays.

    Mass and area hardly change when the tips of a small star are lost to blur; a bounding box does.
    """
    rows, columns = np.nonzero(mask)
    grid = ((np.arange(_TEMPLATE) + 0.5) / _TEMPLATE - 0.5) * _REACH * rows.size**0.5
    x = np.floor(grid + columns.mean() + 0.5).astype(int)
    y = np.floor(grid + rows.mean() + 0.5).astype(int)
    inside = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))[None, :]
    sampled = mask[np.clip(y, 0, mask.shape[0] - 1)][:, np.clip(x, 0, mask.shape[1] - 1)]
    return np.asarray(sampled & inside, dtype=np.bool_)


@cache
def _outlines() -> Mapping[str, BoolArray]:
    grid = (np.arange(240) + 0.5) / 240 * 2.6 - 1.3
    square = (grid.size, grid.size)
    return {
        shape: _centred(np.broadcast_to(covers(shape, grid[None, :], grid[:, None]), square)) for shape in SHAPES
    }


def _shape_name(outline: BoolArray) -> tuple[str, float]:
    seen = _centred(outline)
    fits = {shape: float((seen & ideal).sum() / (seen | ideal).sum()) for shape, ideal in _outlines().items()}
    best = max(fits, key=lambda shape: fits[shape])
    return best, fits[best]


def _object(pixels: ByteArray, part: BoolArray, outline: BoolArray) -> Object:
    core = _eroded(part, 2)
    colour, distance = _colour_name(
        np.asarray(np.median(pixels[core if core.any() else part], axis=0), dtype=np.float64)
    )
    shape, fit = _shape_name(outline)
    height, width = part.shape
    left, top, right, bottom = _bounds(outline)
    return Object(
        shape=shape,
        colour=colour,
        x=(left + right) / 2 / width,
        y=(top + bottom) / 2 / height,
        width=(right - left) / width,
        height=(bottom - top) / height,
        area=float(outline.mean()),
        fit=fit,
        colour_distance=distance,
    )
