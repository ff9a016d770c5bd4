"""What a family of models can draw: sizes, limits and defaults, as data. Knows no checkpoint and no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import Literal, get_args

AspectRatio = Literal["1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3"]
ASPECT_RATIOS: tuple[AspectRatio, ...] = get_args(AspectRatio)

FamilyName = Literal["qwen-image", "demo"]

PresetName = Literal["draft", "fast", "balanced", "high", "ultra"]


@dataclass(frozen=True, slots=True)
class Preset:
    """How much work goes into one picture."""

    num_inference_steps: int
    true_cfg_scale: float


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of a picture in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


@dataclass(frozen=True, slots=True)
class Family:
    """The limits and recommendations that all models of one architecture share.

    Sides are in pixels and are multiples of `multiple`: VAE factor 8 times patch size 2. The pipelines round
    other sizes down without a word.
    """

    name: FamilyName
    sizes: Mapping[AspectRatio, Size]
    multiple: int
    min_side: int
    max_side: int
    max_pixels: int
    presets: Mapping[PresetName, Preset]
    default_preset: PresetName
    """What is taken where a job names neither a preset nor steps and scale."""
    min_steps: int
    max_prompt_tokens: int

    @property
    def recommended(self) -> Preset:
        """The preset for jobs that leave it open."""
        return self.presets[self.default_preset]

    def nearest_side(self, side: int) -> int:
        """Give the allowed side length closest to `side`."""
        rounded = round(side / self.multiple) * self.multiple
        return min(max(rounded, self.min_side), self.max_side)

    def nearest_shape(self, size: Size) -> Size:
        """Give the recommended size whose ratio of sides is closest to that of `size`, on a logarithmic scale."""
        wanted = log(size.width / size.height)
        return min(self.sizes.values(), key=lambda known: abs(log(known.width / known.height) - wanted))


QWEN_IMAGE = Family(
    name="qwen-image",
    # The makers' table (model card of Qwen/Qwen-Image; the 1472×1140 of early cards is not a multiple of 16).
    sizes=MappingProxyType(
        {
            "1:1": Size(1328, 1328),
            "16:9": Size(1664, 928),
            "9:16": Size(928, 1664),
            "4:3": Size(1472, 1104),
            "3:4": Size(1104, 1472),
            "3:2": Size(1584, 1056),
            "2:3": Size(1056, 1584),
        }
    ),
    multiple=16,
    min_side=64,
    max_side=3072,
    max_pixels=2048 * 2048,
    # The model card recommends 50 steps and true_cfg_scale 4.0: that is high, and the default. Fewer steps cost
    # detail and lettering; guidance stays, for without it (1.0) prompts are followed loosely.
    presets=MappingProxyType(
        {
            "draft": Preset(num_inference_steps=12, true_cfg_scale=4.0),
            "fast": Preset(num_inference_steps=20, true_cfg_scale=4.0),
            "balanced": Preset(num_inference_steps=30, true_cfg_scale=4.0),
            "high": Preset(num_inference_steps=50, true_cfg_scale=4.0),
            "ultra": Preset(num_inference_steps=75, true_cfg_scale=4.0),
        }
    ),
    default_preset="high",
    # One step with shift_terminal=0.02 divides by zero and gives a black picture without an exception.
    min_steps=2,
    # max_sequence_length of the pipelines goes up to 1024.
    max_prompt_tokens=1024,
)

DEMO = Family(
    name="demo",
    # Exact ratios in multiples of 16 around the sizes that the small checkpoints are made for.
    sizes=MappingProxyType(
        {
            "1:1": Size(128, 128),
            "16:9": Size(256, 144),
            "9:16": Size(144, 256),
            "4:3": Size(192, 144),
            "3:4": Size(144, 192),
            "3:2": Size(192, 128),
            "2:3": Size(128, 192),
        }
    ),
    multiple=16,
    min_side=64,
    max_side=512,
    max_pixels=512 * 512,
    # Measured on the demo model (its model card): 20 steps are enough, and guidance 4.0 is worth its time.
    presets=MappingProxyType(
        {
            "draft": Preset(num_inference_steps=6, true_cfg_scale=4.0),
            "fast": Preset(num_inference_steps=12, true_cfg_scale=4.0),
            "balanced": Preset(num_inference_steps=20, true_cfg_scale=4.0),
            "high": Preset(num_inference_steps=30, true_cfg_scale=4.0),
            "ultra": Preset(num_inference_steps=50, true_cfg_scale=4.0),
        }
    ),
    default_preset="balanced",
    min_steps=2,
    max_prompt_tokens=1024,
)

FAMILIES: Mapping[FamilyName, Family] = MappingProxyType({"qwen-image": QWEN_IMAGE, "demo": DEMO})
