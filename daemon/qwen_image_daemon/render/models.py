"""What diffusers does for each family, as data: pipelines by task, and what each of them does not do. No torch.

Read in the source of diffusers 0.42; a test loads a checkpoint of each family and compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.jobs.tasks import Task

Way = Literal[
    "text-to-image",
    "image-to-image",
    "inpaint",
    "edit",
    "masked edit",
    "layered",
    "controlnet",
    "masked controlnet",
]
"""A task, told apart by whether it has a mask where that takes another pipeline."""

SizeFrom = Literal["request", "reference"]
PromptReading = Literal["alone", "with pictures"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline class, and what it makes of its arguments."""

    name: str
    """Its class in diffusers."""
    pictures: tuple[str, ...] = ()
    """Its arguments that take pictures."""
    size_from: SizeFrom = "request"
    """What decides the size of the result: width and height as asked, or the shape of the only picture, brought to
    about `area` pixels, whatever is asked."""
    area: int | None = None
    """Pixels of the result where the reference decides its shape; None where that is for the caller to say."""
    has_strength: bool = False
    scales_noise: bool = False
    """It mixes noise into a picture, which only some schedulers can."""
    most_references: int = 1
    takes_embeddings: bool = True
    """It takes prompts that are encoded already. 2.1 refuses them beside pictures."""
    gives_latents: bool = True
    """It can end before the decoding. Layered has the option, and fails with it (UnboundLocalError)."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One family, as diffusers has it."""

    checkpoints: tuple[str, ...]
    """The makers' checkpoints, by their names on the hub."""
    index_classes: tuple[str, ...]
    """What a checkpoint's model_index.json may call its pipeline: all of them have the same components."""
    text_encoder: str
    """Its class in transformers."""
    pipelines: Mapping[Way, Pipeline]
    prompt_reading: PromptReading = "alone"
    """Whether the text encoder sees an edit's pictures beside its prompt."""
    cut_after: int | None = 1024
    """Prompts are cut after so many tokens, the closing words of the template included; None: never."""
    draws_alpha: bool = False
    needs_torchvision: bool = False
    """Its processor of pictures does."""
    licence: str = "Apache 2.0"
    notes: tuple[str, ...] = field(default=())
    """What it cannot do, or does otherwise than one may think."""

    @property
    def needs_head(self) -> bool:
        """The text encoder writes words, too: only the layered model describes pictures."""
        return "layered" in self.pipelines


_TEXT_TO_IMAGE = Pipeline("QwenImagePipeline")
_IMAGE_TO_IMAGE = Pipeline("QwenImageImg2ImgPipeline", ("image",), has_strength=True, scales_noise=True)
_INPAINT = Pipeline("QwenImageInpaintPipeline", ("image", "mask_image"), has_strength=True, scales_noise=True)
_MILLION = 1024 * 1024

_QWEN_IMAGE = ModelFacts(
    checkpoints=("Qwen/Qwen-Image", "Qwen/Qwen-Image-2512"),
    index_classes=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
    text_encoder="Qwen2_5_VLForConditionalGeneration",
    pipelines=MappingProxyType(
        {
            "text-to-image": _TEXT_TO_IMAGE,
            "image-to-image": _IMAGE_TO_IMAGE,
            "inpaint": _INPAINT,
            "controlnet": Pipeline("QwenImageControlNetPipeline", ("control_image",)),
            "masked controlnet": Pipeline("QwenImageControlNetInpaintPipeline", ("control_image", "control_mask")),
        }
    ),
    notes=(
        "Without a negative prompt guidance is off, whatever true_cfg_scale says: a single space switches it on.",
        "Inpainting gives the unmasked part back only nearly; preserve_unmasked takes it from the source.",
    ),
)

_EDIT = ModelFacts(
    checkpoints=("Qwen/Qwen-Image-Edit",),
    index_classes=("QwenImageEditPipeline", "QwenImageEditInpaintPipeline"),
    text_encoder="Qwen2_5_VLForConditionalGeneration",
    pipelines=MappingProxyType(
        {
            "edit": Pipeline("QwenImageEditPipeline", ("image",)),
            "masked edit": Pipeline(
                "QwenImageEditInpaintPipeline",
                ("image", "mask_image"),
                size_from="reference",
                area=_MILLION,
                has_strength=True,
                scales_noise=True,
            ),
        }
    ),
    prompt_reading="with pictures",
    cut_after=None,
    needs_torchvision=True,
    notes=(
        "The picture is read at about a million pixels, whatever size is drawn.",
        "An edit with a mask is drawn at about a million pixels in its picture's shape, whatever is asked.",
    ),
)

_EDIT_PLUS = ModelFacts(
    checkpoints=("Qwen/Qwen-Image-Edit-2509", "Qwen/Qwen-Image-Edit-2511"),
    index_classes=("QwenImageEditPlusPipeline",),
    text_encoder="Qwen2_5_VLForConditionalGeneration",
    pipelines=MappingProxyType({"edit": Pipeline("QwenImageEditPlusPipeline", ("image",), most_references=10)}),
    prompt_reading="with pictures",
    cut_after=None,
    needs_torchvision=True,
    notes=("Each picture is read at about a million pixels, whatever size is drawn.",),
)

_LAYERED = ModelFacts(
    checkpoints=("Qwen/Qwen-Image-Layered",),
    index_classes=("QwenImageLayeredPipeline",),
    text_encoder="Qwen2_5_VLForConditionalGeneration",
    pipelines=MappingProxyType(
        {"layered": Pipeline("QwenImageLayeredPipeline", ("image",), size_from="reference", gives_latents=False)}
    ),
    draws_alpha=True,
    needs_torchvision=True,
    notes=("The layers have about 640² or 1024² pixels in the picture's shape; no other size can be drawn.",),
)

_QWEN_IMAGE_21 = ModelFacts(
    checkpoints=("Qwen/Qwen-Image-2.1",),
    index_classes=("QwenImage21Pipeline",),
    text_encoder="Qwen3VLForConditionalGeneration",
    pipelines=MappingProxyType(
        {
            "text-to-image": Pipeline("QwenImage21Pipeline"),
            "edit": Pipeline("QwenImage21Pipeline", ("image",), most_references=10, takes_embeddings=False),
        }
    ),
    prompt_reading="with pictures",
    cut_after=None,
    draws_alpha=True,
    needs_torchvision=True,
    licence="reported as non-commercial; not verified",
    notes=("Each picture is read at about a million pixels, whatever size is drawn.",),
)

_QWEN_IMAGE_21_TURBO = ModelFacts(
    checkpoints=("Qwen/Qwen-Image-2.1-Turbo",),
    index_classes=_QWEN_IMAGE_21.index_classes,
    text_encoder=_QWEN_IMAGE_21.text_encoder,
    pipelines=_QWEN_IMAGE_21.pipelines,
    prompt_reading=_QWEN_IMAGE_21.prompt_reading,
    cut_after=None,
    draws_alpha=True,
    needs_torchvision=True,
    licence=_QWEN_IMAGE_21.licence,
    notes=(*_QWEN_IMAGE_21.notes, "The checkpoint fixes its noise levels, and with them the number of steps."),
)

_DEMO = ModelFacts(
    checkpoints=(),
    index_classes=("QwenImagePipeline",),
    text_encoder="Qwen2_5_VLForConditionalGeneration",
    pipelines=MappingProxyType(
        {"text-to-image": _TEXT_TO_IMAGE, "image-to-image": _IMAGE_TO_IMAGE, "inpaint": _INPAINT}
    ),
)

MODELS: Mapping[FamilyName, ModelFacts] = MappingProxyType(
    {
        "qwen-image": _QWEN_IMAGE,
        "qwen-image-edit": _EDIT,
        "qwen-image-edit-plus": _EDIT_PLUS,
        "qwen-image-layered": _LAYERED,
        "qwen-image-2.1": _QWEN_IMAGE_21,
        "qwen-image-2.1-turbo": _QWEN_IMAGE_21_TURBO,
        "demo": _DEMO,
    }
)


def way_of(task: Task, *, masked: bool) -> Way:
    """Give how a task is drawn."""
    match task:
        case "edit":
            return "masked edit" if masked else "edit"
        case "controlnet":
            return "masked controlnet" if masked else "controlnet"
        case _:
            return task
