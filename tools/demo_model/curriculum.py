"""What the transformer learns when: one size first, then the other shapes of picture, large ones last.

Large pictures cost most and teach least, for they look like small ones; but without any the model repeats its
object. What is thin or small needs more practice than what is round and wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .world import THIN_SHAPES, Layout, Scene

PictureSize = tuple[int, int]
"""Width and height in pixels, multiples of 16."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Shares of the batches by size, and of the samples by layout, until `until` of the time is used."""

    until: float
    sizes: Mapping[PictureSize, float]
    layouts: Mapping[Layout, float]


_START_SIZES: Final[Mapping[PictureSize, float]] = {(128, 128): 0.8, (192, 192): 0.2}
_MAIN_SIZES: Final[Mapping[PictureSize, float]] = {
    (128, 128): 0.560,
    (192, 192): 0.120,
    (256, 144): 0.090,
    (144, 256): 0.090,
    (256, 256): 0.068,
    **dict.fromkeys(((176, 96), (96, 176), (144, 112), (112, 144), (160, 112), (112, 160)), 0.008),
    **dict.fromkeys(((224, 160), (160, 224), (240, 160), (160, 240)), 0.006),
}
_LARGE_SIZES: Final[Mapping[PictureSize, float]] = {
    **{size: share * 0.92 for size, share in _MAIN_SIZES.items()},
    **dict.fromkeys(((336, 192), (192, 336), (288, 224), (224, 288), (304, 208), (208, 304)), 0.004),
    (384, 384): 0.012,
    (512, 512): 0.016,
    **dict.fromkeys(((512, 288), (288, 512)), 0.006),
    **dict.fromkeys(((512, 384), (384, 512), (480, 320), (320, 480)), 0.004),
}
_START_LAYOUTS: Final[Mapping[Layout, float]] = {
    "single": 0.50,
    "placed": 0.10,
    "above": 0.13,
    "left": 0.13,
    "inside": 0.07,
    "count": 0.07,
}
_MAIN_LAYOUTS: Final[Mapping[Layout, float]] = {
    "single": 0.42,
    "placed": 0.10,
    "above": 0.15,
    "left": 0.15,
    "inside": 0.08,
    "count": 0.10,
}

_REFINING_SIZES: Final[Mapping[PictureSize, float]] = {
    (128, 128): 0.230,
    (192, 192): 0.080,
    (256, 144): 0.250,
    (144, 256): 0.215,
    (256, 256): 0.165,
    **dict.fromkeys(((176, 96), (96, 176), (144, 112), (112, 144), (160, 112), (112, 160)), 0.003),
    **dict.fromkeys(((224, 160), (160, 224), (240, 160), (160, 240), (288, 224), (224, 288)), 0.004),
    (384, 384): 0.004,
    (512, 512): 0.006,
    **dict.fromkeys(((512, 288), (288, 512)), 0.004),
}
_REFINING_LAYOUTS: Final[Mapping[Layout, float]] = {
    "single": 0.64,
    "placed": 0.07,
    "above": 0.09,
    "left": 0.08,
    "inside": 0.07,
    "count": 0.05,
}

FROM_NOTHING: Final = (
    Stage(0.15, _START_SIZES, _START_LAYOUTS),
    Stage(0.50, _MAIN_SIZES, _MAIN_LAYOUTS),
    Stage(1.00, _LARGE_SIZES, _MAIN_LAYOUTS),
)
REFINING: Final = (Stage(1.00, _REFINING_SIZES, _REFINING_LAYOUTS),)
"""For weights that know the world already: every size at once, more of the sizes that the scores are about."""
SCENES: Final[Mapping[PictureSize, int]] = {
    (128, 128): 24_000,
    (192, 192): 8_000,
    (256, 144): 12_000,
    (144, 256): 12_000,
    (256, 256): 8_000,
    **dict.fromkeys(((176, 96), (96, 176)), 1_000),
    **dict.fromkeys(((144, 112), (112, 144), (160, 112), (112, 160)), 700),
    **dict.fromkeys(((224, 160), (160, 224), (240, 160), (160, 240)), 500),
    **dict.fromkeys(((336, 192), (192, 336), (288, 224), (224, 288), (304, 208), (208, 304)), 300),
    (384, 384): 300,
    (512, 512): 300,
    **dict.fromkeys(((512, 288), (288, 512)), 200),
    **dict.fromkeys(((512, 384), (384, 512), (480, 320), (320, 480)), 150),
}
"""How many scenes of each size are drawn and encoded."""
SCENE_SHARES: Final[Mapping[Layout, float]] = {
    "single": 0.40,
    "placed": 0.12,
    "above": 0.14,
    "left": 0.14,
    "inside": 0.10,
    "count": 0.10,
}
_KEPT_SMALL: Final = 1.0
_KEPT_CROSS: Final = 1.0
_KEPT_THIN: Final = 0.6
_KEPT_WIDE: Final = 0.3


def kept(scene: Scene) -> float:
    """Return how likely a drawn scene becomes a training picture: more so with something thin or small in it.

    Of single shapes a third is small then, and of the others six in ten are star, cross or ring.
    """
    if any(thing.size == "small" for thing in scene.things):
        return _KEPT_SMALL
    if any(thing.shape == "cross" for thing in scene.things):
        return _KEPT_CROSS
    return _KEPT_THIN if any(thing.shape in THIN_SHAPES for thing in scene.things) else _KEPT_WIDE


def stage_at(stages: Sequence[Stage], progress: float) -> Stage:
    """Return the stage for the share of the time budget that is used, from 0 to 1."""
    return next((stage for stage in stages if progress < stage.until), stages[-1])
