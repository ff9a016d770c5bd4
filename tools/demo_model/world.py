"""The world of the demo model: flat coloured shapes on a flat background.

Knows what a scene is, how one is drawn and which scenes training must never see. Knows nothing of captions or
models.
"""

# Lots are drawn for pictures here, not for secrets, and shapes are made of numbers.
# ruff: noqa: S311, PLR2004

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Colour = tuple[int, int, int]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]
Size = Literal["small", "medium", "large"]
Layout = Literal["single", "placed", "above", "left", "inside", "count"]

COLOURS: Final[Mapping[str, Colour]] = {
    "red": (220, 30, 30),
    "orange": (255, 140, 0),
    "yellow": (255, 225, 25),
    "green": (40, 160, 60),
    "cyan": (0, 200, 225),
    "blue": (30, 70, 220),
    "purple": (130, 40, 170),
    "pink": (255, 130, 190),
    "brown": (120, 70, 30),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
THIN_SHAPES: Final = frozenset({"star", "cross", "ring"})
"""Shapes of thin parts: much outline for little area, hard to draw and hard to compare."""
CONTAINERS: Final = ("circle", "square", "diamond", "heart")
"""Shapes wide enough that another one can be read inside them."""

LAYOUTS: Final[tuple[Layout, ...]] = ("single", "placed", "above", "left", "inside", "count")
PAIR_LAYOUTS: Final[frozenset[Layout]] = frozenset({"above", "left", "inside"})

Place = tuple[int, int]
"""Column and row of a 3 x 3 grid, counted from the top left; (1, 1) is the centre."""
PLACES: Final[tuple[Place, ...]] = tuple(
    (column, row) for row in range(3) for column in range(3) if (column, row) != (1, 1)
)

_RADII: Final[Mapping[Size, tuple[float, float]]] = {
    "small": (0.165, 0.19),
    "medium": (0.23, 0.30),
    "large": (0.36, 0.42),
}
_TRIANGLE: Final = ((0.0, -0.92), (1.0, 0.80), (-1.0, 0.80))
_STAR: Final = tuple(
    (
        math.sin(corner * math.pi / 5) * (1.08, 0.50)[corner % 2],
        -math.cos(corner * math.pi / 5) * (1.08, 0.50)[corner % 2] + 0.07,
    )
    for corner in range(10)
)
_SUBPIXELS: Final = 3
_COLOUR_JITTER: Final = 7
_HELD_OUT_ONE_IN: Final = 10


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape; `x` and `y` are fractions of width and height, `radius` is a fraction of the shorter side."""

    shape: str
    colour: str
    size: Size
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows.

    In the layouts "above" and "left" the first thing is above, or left of, the second; in "inside" the second is
    inside the first. `place` is set for the layout "placed" only.
    """

    background: str
    things: tuple[Thing, ...]
    layout: Layout
    place: Place | None
    seed: int


# ------------------------------------------------------------------------------------------------ geometry


def _inside_polygon(x: FloatArray, y: FloatArray, corners: Sequence[tuple[float, float]]) -> BoolArray:
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def covers(shape: str, x: FloatArray, y: FloatArray) -> BoolArray:
    """Tell which points lie on the shape; coordinates in units of its radius, y downwards, broadcast together."""
    match shape:
        case "circle":
            mask = x * x + y * y < 1
        case "square":
            mask = np.maximum(np.abs(x), np.abs(y)) < 0.88
        case "triangle":
            mask = _inside_polygon(x, y, _TRIANGLE)
        case "star":
            mask = _inside_polygon(x, y, _STAR)
        case "heart":
            u, v = x * 1.18, 0.12 - y * 1.18
            mask = (u * u + v * v - 1) ** 3 - u * u * v**3 < 0
        case "diamond":
            mask = np.abs(x) * 1.15 + np.abs(y) < 1.08
        case "cross":
            a, b = np.abs(x), np.abs(y)
            mask = ((a < 0.38) & (b < 0.96)) | ((b < 0.38) & (a < 0.96))
        case "ring":
            squared = x * x + y * y
            mask = (squared < 1) & (squared > 0.50**2)
        case _:
            msg = f"no such shape: {shape}"
            raise ValueError(msg)
    return np.asarray(mask, dtype=np.bool_)


@cache
def area(shape: str) -> float:
    """Return the shape's area in squares of its radius, to a hundredth."""
    across = (np.arange(520, dtype=np.float64) + 0.5) / 200 - 1.3
    points = np.broadcast_to(covers(shape, across[None, :], across[:, None]), (across.size, across.size))
    return float(points.sum()) / 200**2


def draw(
    picture: FloatArray, shape: str, colour: Sequence[float], centre: tuple[float, float], radius: float
) -> None:
    """Draw an antialiased shape into `picture` (height, width, 3) in place; centre and radius in pixels."""
    x, y = centre
    height, width = picture.shape[:2]
    reach = radius * 1.25 + 2
    left, right = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    if right <= left or bottom <= top:
        return
    columns = ((np.arange((right - left) * _SUBPIXELS) + 0.5) / _SUBPIXELS + left - x) / radius
    rows = ((np.arange((bottom - top) * _SUBPIXELS) + 0.5) / _SUBPIXELS + top - y) / radius
    fine = covers(shape, columns[None, :], rows[:, None])
    fine = np.broadcast_to(fine, (rows.size, columns.size))
    coverage = fine.reshape(bottom - top, _SUBPIXELS, right - left, _SUBPIXELS).mean((1, 3))[..., None]
    window = picture[top:bottom, left:right]
    window[:] = window * (1 - coverage) + np.asarray(colour, dtype=np.float64) * coverage


def jittered(name: str, rng: random.Random) -> tuple[int, ...]:
    """Return the named colour, moved a little in each channel, so that a model sees a range of every colour."""
    return tuple(min(255, max(0, level + rng.randint(-_COLOUR_JITTER, _COLOUR_JITTER))) for level in COLOURS[name])


def render(scene: Scene, width: int, height: int) -> ByteArray:
    """Draw the scene as (height, width, 3) bytes. The same scene and size give the same picture."""
    rng = random.Random(scene.seed)
    picture = np.empty((height, width, 3), dtype=np.float64)
    picture[:] = jittered(scene.background, rng)
    shorter = min(width, height)
    for thing in scene.things:
        centre = (thing.x * width, thing.y * height)
        draw(picture, thing.shape, jittered(thing.colour, rng), centre, thing.radius * shorter)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ what is held out


def _chosen(*words: str) -> bool:
    digest = hashlib.sha256("|".join(words).encode()).digest()
    return int.from_bytes(digest[:4], "big") % _HELD_OUT_ONE_IN == 0


def held_out_single(shape: str, colour: str, background: str) -> bool:
    """Tell whether training never sees this shape in this colour on this background, in any layout."""
    return _chosen(shape, colour, background)


def held_out_pair(first: Thing, second: Thing) -> bool:
    """Tell whether training never sees these two (shape, colour) combinations in one picture, in any order."""
    return _chosen(*sorted((f"{first.colour} {first.shape}", f"{second.colour} {second.shape}")))


def in_training(scene: Scene) -> bool:
    """Tell whether nothing in the scene is held out."""
    if any(held_out_single(thing.shape, thing.colour, scene.background) for thing in scene.things):
        return False
    return scene.layout not in PAIR_LAYOUTS or not held_out_pair(scene.things[0], scene.things[1])


def in_evaluation(scene: Scene) -> bool:
    """Tell whether the scene is held out as a whole: its one shape, or its combination of two."""
    if scene.layout in PAIR_LAYOUTS:
        return held_out_pair(scene.things[0], scene.things[1])
    return all(held_out_single(thing.shape, thing.colour, scene.background) for thing in scene.things)


# ------------------------------------------------------------------------------------------------ drawing lots


def _near(rng: random.Random, middle: float, spread: float) -> float:
    return middle + rng.uniform(-spread, spread)


def _single(rng: random.Random, shape: str, colour: str) -> tuple[Thing, ...]:
    size: Size = rng.choices(("small", "medium", "large"), (0.16, 0.62, 0.22))[0]
    spread = 0.03 if size == "large" else 0.06
    return (
        Thing(shape, colour, size, _near(rng, 0.5, spread), _near(rng, 0.5, spread), rng.uniform(*_RADII[size])),
    )


def _placed(rng: random.Random, shape: str, colour: str, place: Place) -> tuple[Thing, ...]:
    x, y = (_near(rng, (0.23, 0.5, 0.77)[step], 0.02) for step in place)
    return (Thing(shape, colour, "medium", x, y, rng.uniform(0.15, 0.19)),)


def _counted(rng: random.Random, shape: str, colour: str) -> tuple[Thing, ...]:
    spots = rng.choice((((0.27, 0.5), (0.73, 0.5)), ((0.5, 0.27), (0.27, 0.73), (0.73, 0.73))))
    radius = rng.uniform(0.155, 0.185)
    return tuple(
        Thing(shape, colour, "medium", _near(rng, x, 0.015), _near(rng, y, 0.015), radius) for x, y in spots
    )


def _pair(
    rng: random.Random, layout: Layout, first: tuple[str, str], second: tuple[str, str]
) -> tuple[Thing, ...]:
    if layout == "inside":
        x, y, radius = _near(rng, 0.5, 0.04), _near(rng, 0.5, 0.04), rng.uniform(0.37, 0.42)
        outer = Thing(*first, "large", x, y, radius)
        # A heart is widest above its middle.
        lift = 0.05 * radius if first[0] == "heart" else 0.0
        return outer, Thing(*second, "small", x, y - lift, radius * rng.uniform(0.42, 0.48))
    things = []
    for (shape, colour), along in ((first, 0.27), (second, 0.73)):
        across, position = _near(rng, 0.5, 0.05), _near(rng, along, 0.025)
        x, y = (position, across) if layout == "left" else (across, position)
        things.append(Thing(shape, colour, "medium", x, y, rng.uniform(0.16, 0.20)))
    return tuple(things)


def _draw_lots(rng: random.Random, layout: Layout) -> Scene:
    background = "white" if rng.random() < 0.2 else rng.choice(tuple(COLOURS))
    colours = [name for name in COLOURS if name != background]
    first = (rng.choice(CONTAINERS if layout == "inside" else SHAPES), rng.choice(colours))
    second = (rng.choice(SHAPES), rng.choice(colours))
    place: Place | None = None
    match layout:
        case "single":
            things = _single(rng, *first)
        case "placed":
            place = rng.choice(PLACES)
            things = _placed(rng, *first, place)
        case "count":
            things = _counted(rng, *first)
        case "above" | "left" | "inside":
            while second == first or (layout == "inside" and second[1] == first[1]):
                second = (rng.choice(SHAPES), rng.choice(colours))
            things = _pair(rng, layout, first, second)
    return Scene(background, things, layout, place, rng.randrange(1 << 30))


def _always(_: Scene) -> float:
    return 1.0


def training_scene(rng: random.Random, layout: Layout, kept: Callable[[Scene], float] = _always) -> Scene:
    """Draw a scene of this layout in which nothing is held out; `kept` gives the probability of taking it."""
    while not (in_training(scene := _draw_lots(rng, layout)) and rng.random() < kept(scene)):
        pass
    return scene


def evaluation_scene(rng: random.Random, layout: Layout) -> Scene:
    """Draw a scene of this layout that training cannot have seen."""
    while not in_evaluation(scene := _draw_lots(rng, layout)):
        pass
    return scene
