"""What a family of models can draw: tasks, sizes, limits and defaults, as data. Knows no checkpoint and no torch.

Where a number comes from stands beside it: the makers' model cards (at https://huggingface.co/Qwen), the source of
diffusers 0.42, or our own choice where nobody has published one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from types import MappingProxyType
from typing import Final, Literal, get_args

from qwen_image_daemon.jobs.tasks import Task

AspectRatio = Literal["1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3"]
ASPECT_RATIOS: tuple[AspectRatio, ...] = get_args(AspectRatio)

FamilyName = Literal[
    "qwen-image",
    "qwen-image-edit",
    "qwen-image-edit-plus",
    "qwen-image-layered",
    "qwen-image-2.1",
    "qwen-image-2.1-turbo",
    "demo",
]

PresetName = Literal["draft", "fast", "balanced", "high", "ultra"]

DistilledSteps = Literal[4, 8]
"""How many steps the Lightning LoRAs are distilled for."""

MAX_REFERENCES: Final = 10
"""How many pictures one edit may read. QwenImage21Pipeline was made for up to ten; no other takes more."""


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
    """The abilities, limits and recommendations that all models of one architecture share.

    Sides are in pixels and are multiples of `multiple`: the VAE's factor times the patch size. The pipelines round
    other sizes down without a word.
    """

    name: FamilyName
    tasks: frozenset[Task]
    task_of_one_image: Task
    """What a job that names one image, and nothing else that tells, is taken for."""
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
    """How many tokens of a prompt the text encoder is given, with those of the template that follow it."""
    max_references: int = 1
    """How many pictures one edit may read."""
    edits_with_mask: bool = False
    """An edit may be kept to a mask."""
    distilled: Mapping[DistilledSteps, Preset] = field(default_factory=lambda: MappingProxyType({}))
    """What a LoRA that is distilled for so many steps makes of every preset. Empty where there are none."""
    fixed_steps: int | None = None
    """The steps that the checkpoint itself prescribes: another number would be ignored without a word."""
    commercial_use: bool = True
    """False where the makers' licence is said to forbid commercial use."""

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


_GUIDED_PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        "draft": Preset(num_inference_steps=12, true_cfg_scale=4.0),
        "fast": Preset(num_inference_steps=20, true_cfg_scale=4.0),
        "balanced": Preset(num_inference_steps=30, true_cfg_scale=4.0),
        "high": Preset(num_inference_steps=50, true_cfg_scale=4.0),
        "ultra": Preset(num_inference_steps=75, true_cfg_scale=4.0),
    }
)
"""For the 1.x models. Their cards (Qwen-Image, Qwen-Image-2512, Qwen-Image-Edit, Qwen-Image-Layered) recommend 50
steps and true_cfg_scale 4.0: that is high, and the default. The others are our own: fewer steps cost detail and
lettering; guidance stays, for without it (1.0) prompts are followed loosely."""

_LIGHTNING: Mapping[DistilledSteps, Preset] = MappingProxyType(
    {
        4: Preset(num_inference_steps=4, true_cfg_scale=1.0),
        8: Preset(num_inference_steps=8, true_cfg_scale=1.0),
    }
)
"""4 or 8 steps, true_cfg_scale 1.0: https://github.com/ModelTC/Qwen-Image-Lightning."""

QWEN_IMAGE = Family(
    name="qwen-image",
    tasks=frozenset({"text-to-image", "image-to-image", "inpaint", "controlnet"}),
    task_of_one_image="image-to-image",
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
    # VAE factor 8 times patch size 2.
    multiple=16,
    min_side=64,
    max_side=3072,
    max_pixels=2048 * 2048,
    presets=_GUIDED_PRESETS,
    default_preset="high",
    # One step with shift_terminal=0.02 divides by zero and gives a black picture without an exception.
    min_steps=2,
    # max_sequence_length of the pipelines goes up to 1024; those for edits cut nothing, and keep our limit.
    max_prompt_tokens=1024,
    distilled=_LIGHTNING,
)

QWEN_IMAGE_EDIT = replace(
    QWEN_IMAGE,
    name="qwen-image-edit",
    tasks=frozenset({"edit"}),
    task_of_one_image="edit",
    edits_with_mask=True,
)

QWEN_IMAGE_EDIT_PLUS = replace(
    QWEN_IMAGE_EDIT,
    name="qwen-image-edit-plus",
    # The cards of Qwen-Image-Edit-2509 and 2511 recommend 40 steps and true_cfg_scale 4.0. Theirs is high.
    presets=MappingProxyType(
        {
            "draft": Preset(num_inference_steps=10, true_cfg_scale=4.0),
            "fast": Preset(num_inference_steps=16, true_cfg_scale=4.0),
            "balanced": Preset(num_inference_steps=28, true_cfg_scale=4.0),
            "high": Preset(num_inference_steps=40, true_cfg_scale=4.0),
            "ultra": Preset(num_inference_steps=60, true_cfg_scale=4.0),
        }
    ),
    # The pipeline sets no limit; the card of 2509 says that one to three pictures come out best.
    max_references=MAX_REFERENCES,
    edits_with_mask=False,
)

QWEN_IMAGE_LAYERED = replace(
    QWEN_IMAGE,
    name="qwen-image-layered",
    tasks=frozenset({"layered"}),
    task_of_one_image="layered",
    # QwenImageLayeredPipeline chooses the size itself: about 640² or 1024² pixels in the source's shape, in
    # multiples of 32 (`calculate_dimensions` in its source). These are what it chooses for 640.
    sizes=MappingProxyType(
        {
            "1:1": Size(640, 640),
            "16:9": Size(864, 480),
            "9:16": Size(480, 864),
            "4:3": Size(736, 544),
            "3:4": Size(544, 736),
            "3:2": Size(768, 512),
            "2:3": Size(512, 768),
        }
    ),
    multiple=32,
    distilled=MappingProxyType({}),
)

QWEN_IMAGE_21 = Family(
    name="qwen-image-2.1",
    tasks=frozenset({"text-to-image", "edit"}),
    task_of_one_image="edit",
    # The makers' table for 2K (model card of Qwen/Qwen-Image-2.1, as quoted by programs that use it).
    sizes=MappingProxyType(
        {
            "1:1": Size(2048, 2048),
            "16:9": Size(2752, 1536),
            "9:16": Size(1536, 2752),
            "4:3": Size(2400, 1792),
            "3:4": Size(1792, 2400),
            "3:2": Size(2528, 1696),
            "2:3": Size(1696, 2528),
        }
    ),
    # VAE factor 16; the transformer sees groups of 2×2 latents.
    multiple=32,
    min_side=64,
    max_side=3072,
    # The largest of the table.
    max_pixels=2400 * 1792,
    # QwenImage21Pipeline: 40 steps and true_cfg_scale 1.0 by default; "meant to be sampled without guidance".
    # That is high, the others are our own.
    presets=MappingProxyType(
        {
            "draft": Preset(num_inference_steps=10, true_cfg_scale=1.0),
            "fast": Preset(num_inference_steps=16, true_cfg_scale=1.0),
            "balanced": Preset(num_inference_steps=28, true_cfg_scale=1.0),
            "high": Preset(num_inference_steps=40, true_cfg_scale=1.0),
            "ultra": Preset(num_inference_steps=60, true_cfg_scale=1.0),
        }
    ),
    default_preset="high",
    min_steps=2,
    # The pipeline cuts nothing; our own limit, the same as for the other models.
    max_prompt_tokens=1024,
    max_references=MAX_REFERENCES,
    commercial_use=False,
)

_TURBO = Preset(num_inference_steps=8, true_cfg_scale=1.0)

QWEN_IMAGE_21_TURBO = replace(
    QWEN_IMAGE_21,
    name="qwen-image-2.1-turbo",
    # The checkpoint fixes its noise levels (`sample_sigmas` of its model_index.json), and with them the steps:
    # eight (the default of QwenImage21TurboAutoBlocks in diffusers).
    presets=MappingProxyType(dict.fromkeys(get_args(PresetName), _TURBO)),
    fixed_steps=8,
)

DEMO = Family(
    name="demo",
    tasks=frozenset({"text-to-image", "image-to-image", "inpaint"}),
    task_of_one_image="image-to-image",
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

FAMILIES: Mapping[FamilyName, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            QWEN_IMAGE,
            QWEN_IMAGE_EDIT,
            QWEN_IMAGE_EDIT_PLUS,
            QWEN_IMAGE_LAYERED,
            QWEN_IMAGE_21,
            QWEN_IMAGE_21_TURBO,
            DEMO,
        )
    }
)
