"""Compares what a picture shows with the scene that its prompt described."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .world import THIN_SHAPES, area

if TYPE_CHECKING:
    from .reader import Object, Reading
    from .world import Place, Scene

FIT_WANTED: Final = 0.7
FIT_WANTED_OF_THIN: Final = 0.6
"""An object counts as its shape from this overlap with the ideal outline on.

Overlap is lost along the outline, and thin shapes have more of it: a wobble that leaves a square 0.7 leaves a
cross 0.63, and a ring or a star 0.56. 0.7 for all called rings wrong that nobody would call anything else.
"""
RADII: Final = {"small": (0.0, 0.21), "medium": (0.0, 1.0), "large": (0.33, 1.0)}
"""What counts as the size, as a radius in shorter sides of the picture: half-way to the next size of the world.
A prompt doesn't say "medium"."""
_THIRDS: Final = ((0.0, 0.4), (0.3, 0.7), (0.6, 1.0))
_APART: Final = 0.08


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which parts of a scene a picture got right; `arrangement` is relation, place or size."""

    background: bool
    count: bool
    colours: bool
    shapes: bool
    objects: bool
    arrangement: bool

    @property
    def right(self) -> bool:
        """Everything is as described: background, number, colour with shape, arrangement."""
        return self.background and self.count and self.objects and self.arrangement


def judge(scene: Scene, reading: Reading, width: int, height: int) -> Verdict:
    """Compare; `width` and `height` are the picture's, in pixels."""
    wanted = [(thing.colour, thing.shape) for thing in scene.things]
    found = [(seen.colour, seen.shape if _clear(seen) else "unclear") for seen in reading.objects]
    objects = sorted(wanted) == sorted(found)
    return Verdict(
        background=reading.background == scene.background,
        count=len(found) == len(wanted),
        colours=sorted(colour for colour, _ in wanted) == sorted(colour for colour, _ in found),
        shapes=sorted(shape for _, shape in wanted) == sorted(shape for _, shape in found),
        objects=objects,
        arrangement=objects
        and _arranged(scene, [reading.objects[found.index(one)] for one in wanted], width, height),
    )


def _clear(seen: Object) -> bool:
    return seen.fit >= (FIT_WANTED_OF_THIN if seen.shape in THIN_SHAPES else FIT_WANTED)


def _arranged(scene: Scene, seen: list[Object], width: int, height: int) -> bool:
    """Tell whether the objects, in the scene's order, stand as described."""
    first, last = seen[0], seen[-1]
    across, down = last.x - first.x, last.y - first.y
    match scene.layout:
        case "single":
            low, high = RADII[scene.things[0].size]
            return low <= (first.area * width * height / area(first.shape)) ** 0.5 / min(width, height) <= high
        case "placed":
            return scene.place is not None and _at(scene.place, first)
        case "above":
            return down > _APART and down > abs(across)
        case "left":
            return across > _APART and across > abs(down)
        case "inside":
            return (
                abs(across) + last.width / 2 <= first.width / 2
                and abs(down) + last.height / 2 <= first.height / 2
                and last.area < first.area
            )
        case "count":
            return True


def _at(place: Place, seen: Object) -> bool:
    return all(
        _THIRDS[step][0] <= where <= _THIRDS[step][1] for step, where in zip(place, (seen.x, seen.y), strict=True)
    )
