"""What the transformer learns when: one size first, then the other shapes of picture, large ones last.

Large pictures cost most and teach least, for they look like small ones; but without any the model repeats its
object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .world import Layout

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

STAGES: Final = (
    Stage(0.15, _START_SIZES, _START_LAYOUTS),
    Stage(0.50, _MAIN_SIZES, _MAIN_LAYOUTS),
    Stage(1.00, _LARGE_SIZES, _MAIN_LAYOUTS),
)
SCENES: Final[Mapping[PictureSize, int]] = {
    (128, 128): 24_000,
    (192, 192): 2_000,
    (256, 144): 2_000,
    (144, 256): 2_000,
    (256, 256): 1_000,
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


def stage_at(progress: float) -> Stage:
    """Return the stage for the share of the time budget that is used, from 0 to 1."""
    return next((stage for stage in STAGES if progress < stage.until), STAGES[-1])
