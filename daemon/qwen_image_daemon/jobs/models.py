"""What a person may ask for: one strict model for each task. Text in, values out; no disk, no clock, no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from qwen_image_daemon.jobs.families import FAMILIES, MAX_REFERENCES, AspectRatio, PresetName
from qwen_image_daemon.jobs.moments import moment_of
from qwen_image_daemon.jobs.problems import KeyPath
from qwen_image_daemon.jobs.styles import MAX_STYLE_NAME_CHARACTERS, STYLES
from qwen_image_daemon.jobs.tasks import Task

MAX_PROMPT_CHARACTERS = 10_000
MAX_IMAGES = 1_000
MAX_STEPS = 200
MAX_SEED = 2**63 - 1
"""torch takes 64-bit seeds; TOML promises 64-bit signed integers. Image k uses seed + k."""
MAX_TAGS = 32
MAX_ID_CHARACTERS = 120
MAX_TIMEOUT_SECONDS = 7 * 24 * 3600
MAX_LORAS = 8
MAX_LORA_WEIGHT = 4.0
MAX_LAYERS = 10

OutputFormat = Literal["png", "webp", "jpeg"]
Fit = Literal["pad", "crop", "scale"]
OnExists = Literal["draw", "skip", "refuse"]
SchedulerName = Literal["euler", "lightning", "unipc", "lcm"]
Resolution = Literal[640, 1024]


# The families differ in these limits, so that rules.py checks them; editors learn the widest ones from the schema.
Side = Annotated[
    int,
    Field(
        json_schema_extra={
            "minimum": min(family.min_side for family in FAMILIES.values()),
            "maximum": max(family.max_side for family in FAMILIES.values()),
            "multipleOf": math.gcd(*(family.multiple for family in FAMILIES.values())),
        }
    ),
]
Steps = Annotated[
    int,
    Field(le=MAX_STEPS, json_schema_extra={"minimum": min(family.min_steps for family in FAMILIES.values())}),
]


Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
PicturePath = Annotated[str, Field(min_length=1, max_length=1_000, examples=["harbour.jpg"])]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Tag = Annotated[str, Field(min_length=1, max_length=80)]


class StrictModel(BaseModel):
    """A frozen value that accepts neither unknown keys nor values of another type."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)


class Output(StrictModel):
    """How the pictures of a job are written."""

    format: OutputFormat = "png"
    """File format. png and webp are written without loss; jpeg is not."""
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """JPEG quality, 1 to 100 (95 where it is left out). Only for jpeg."""
    name: Annotated[str, Field(min_length=1, max_length=120, examples=["{date} {name} {seed}"])] | None = None
    """What the pictures are called, without suffix: words and {name}, {index} (from 1), {seed}, {date} (of
    arrival), {id}. "{name}-{index}" where it is left out."""


class LoraUse(StrictModel):
    """One LoRA that is laid over the model while a job is drawn."""

    name: Name
    """Its file's name in the daemon's LoRA folder, without .safetensors, or one of the settings' [loras.NAME]."""
    weight: Annotated[float, Field(ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT, allow_inf_nan=False)] = 1.0
    """How strongly it is laid over the model, -4.0 to 4.0, and not 0: that would do nothing. Below 0 it works the
    other way round."""


class SchedulerUse(StrictModel):
    """How noise is taken away, step by step."""

    name: SchedulerName
    """euler: the makers' own (flow matching, Euler steps), here with settings of one's own. lightning: the same as
    the Lightning LoRAs want it; taken by itself where such a LoRA is used. unipc: a multistep solver, for
    text-to-image only. lcm: for LCM-distilled LoRAs."""
    shift: Annotated[float, Field(gt=0.0, le=20.0, allow_inf_nan=False)] | None = None
    """How far the steps are moved towards high noise, above 0 to 20. The same for all sizes. Left out: as the
    model has it, which is more for larger pictures."""
    shift_terminal: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)] | None = None
    """The noise level that the last step ends at, above 0 and below 1 (0.02 for Qwen-Image 1.x). Left out: as the
    model has it."""
    sigmas: Literal["karras", "exponential"] | None = None
    """How the noise levels are spaced. Evenly, before the shift, where it is left out."""
    solver_order: Annotated[int, Field(ge=1, le=3)] | None = None
    """How many earlier steps unipc looks at, 1 to 3. 2 where it is left out. Only for unipc."""


def _named(value: object) -> object:
    """Let a name stand for a table that holds nothing else."""
    return {"name": value} if isinstance(value, str) else value


AnyLoraUse = Annotated[LoraUse, BeforeValidator(_named, json_schema_input_type=Name | LoraUse)]
AnySchedulerUse = Annotated[
    SchedulerUse, BeforeValidator(_named, json_schema_input_type=SchedulerName | SchedulerUse)
]
Moment = Annotated[AwareDatetime, BeforeValidator(moment_of)]


class GenerationParameters(StrictModel):
    """What every kind of job can ask for."""

    name: Annotated[str, Field(min_length=1, max_length=120)] | None = None
    """What to call the job in lists and in the result folder's name. The file's name where it is left out."""
    model: Name | None = None
    """A model's name out of the daemon's settings. Where it is left out: the daemon's default model if it can
    do the task, else the first in the settings that can."""
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] | None = None
    """What the picture must not show. A single space, the makers' recommendation, where it is left out. Has an
    effect only where true_cfg_scale is above 1.0."""
    style: (
        Annotated[
            str,
            Field(
                min_length=1, max_length=MAX_STYLE_NAME_CHARACTERS, json_schema_extra={"examples": list(STYLES)}
            ),
        ]
        | None
    ) = None
    """Words that are written around the prompt, in its language (English or Chinese): makers (their quality suffix
    alone), photo, cinematic, illustration, product, poster, or one of the daemon's settings. None where it is left
    out. The result holds the prompt as it was written and as it was drawn."""
    preset: PresetName | None = None
    """How much work goes into a picture: steps and true_cfg_scale as recommended for the model's family. What the
    job sets itself wins."""
    true_cfg_scale: Annotated[float, Field(ge=1.0, le=20.0, allow_inf_nan=False)] | None = None
    """How closely the prompt is followed, 1.0 to 20.0. 1.0 switches guidance and negative prompt off and halves
    the time. The model's recommendation where it is left out: 4.0, for Qwen-Image 2.1 and distilled LoRAs 1.0."""
    num_inference_steps: Steps | None = None
    """Denoising steps, 2 to 200. The model's recommendation where it is left out: 50, for Qwen-Image-Edit-2509,
    2511 and Qwen-Image 2.1 40."""
    loras: Annotated[
        tuple[AnyLoraUse, ...],
        Field(strict=False, max_length=MAX_LORAS, examples=[["watercolour", {"name": "faces", "weight": 0.8}]]),
    ] = ()
    """LoRAs out of the daemon's LoRA folder, at most 8, each a name or { name = "…", weight = 0.8 }. None where
    it is left out."""
    scheduler: AnySchedulerUse | None = None
    """How noise is taken away, step by step: a name, or a table with name and settings. The model's own where
    it is left out, or the one that a distilled LoRA wants."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Image k is drawn from seed + k, counted from 0. Drawn by lot, and recorded, where it is left out."""
    num_images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    """How many pictures to draw, each from its own seed."""
    strict: bool = True
    """true: what cannot be done exactly as asked is refused. false: it is done as nearly as can be, and the result
    says in `adjustments` what was done otherwise."""
    id: Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)] | None = None
    """A sender's own key, so that a job that is sent twice is done once: the same id with the same files is
    answered with the earlier result, with other files it is refused. A job that failed may be sent again."""
    on_exists: OnExists = "draw"
    """What to do where a job with the same job file and the same pictures, byte for byte, was done before: draw it
    again, skip it (the earlier result is the answer), or refuse it. A job that failed does not count."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Jobs of higher priority are taken first; equal ones in the order of their arrival."""
    not_before: Annotated[Moment, Field(json_schema_extra={"examples": ["2026-12-24T20:00:00+01:00"]})] | None = (
        None
    )
    """A moment, with its offset from UTC, before which the job is not begun; others go on. At once where it is
    left out."""
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False)] | None = None
    """How long one attempt at the pictures may take, in seconds: the job fails at its next step then, is not tried
    again, and keeps the pictures that are finished. Waiting and loading the model do not count; after a pause, a
    stop or a failure the time begins anew. No limit where it is left out."""
    tags: Annotated[tuple[Tag, ...], Field(strict=False, max_length=MAX_TAGS)] = ()
    """Words of the sender's own, at most 32, that are carried into the result. They change nothing else."""
    output: Output = Output()
    """How the pictures are written."""
    end: Literal[True] | None = None
    """A careful sender's mark, as the file's last line, that the file is whole. Changes nothing else."""


class SizedJob(GenerationParameters):
    """A job that draws to a prompt, in a size that it may choose."""

    prompt: Prompt
    """What the picture shows; for an edit, what is to be changed."""
    aspect_ratio: AspectRatio | None = None
    """The picture's shape, in the size that the makers recommend for it. 1:1 where no size is given, or the shape
    nearest to the source's."""
    width: Side | None = None
    """Width in pixels, a multiple of 16 (Qwen-Image 2.1: 32); together with height, instead of aspect_ratio."""
    height: Side | None = None
    """Height in pixels, a multiple of 16 (Qwen-Image 2.1: 32); together with width, instead of aspect_ratio."""


class SourcedJob(SizedJob):
    """A job that may take its size from a picture that it reads."""

    size: Literal["source"] | None = None
    """"source" draws in the source's own size, after its EXIF rotation, and refuses one that the model cannot draw
    exactly; instead of aspect_ratio, width and height. An edit is not refused: it is drawn at the nearest size
    that the model can draw, and brought back to the source's exact size. Where no size at all is given, the
    recommended size whose shape is nearest to the source's is taken. The source is image, the first of images, or
    control_image."""
    fit: Fit = "pad"
    """How a picture of another shape is brought to the result's, never by stretching. pad: all of it is kept, the
    margins are filled. crop: its middle is cut out. scale: the result takes the picture's shape instead, at about
    the number of pixels that is recommended; without aspect_ratio, width, height and size."""


class TextToImageJob(SizedJob):
    """Draw pictures from words alone."""

    task: Literal["text-to-image"] = "text-to-image"
    """What is to be done."""


class ImageToImageJob(SourcedJob):
    """Redraw a picture, led by words."""

    task: Literal["image-to-image"] = "image-to-image"
    """What is to be done."""
    image: PicturePath
    """The source picture: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP."""
    strength: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 0.6
    """How much of the source is redrawn: near 0 keeps it, 1.0 ignores it. ceil(steps × strength) steps run."""


class InpaintJob(SourcedJob):
    """Redraw a part of a picture, led by words."""

    task: Literal["inpaint"] = "inpaint"
    """What is to be done."""
    image: PicturePath
    """The source picture: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP."""
    mask: PicturePath | None = None
    """Where to redraw: a picture of the source's shape, white where it is redrawn and black where it is kept. Left
    out: the source's own transparency; what is transparent is redrawn."""
    strength: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 1.0
    """How much of the masked part is redrawn: near 0 keeps it, 1.0 ignores what was there. ceil(steps × strength)
    steps run."""
    preserve_unmasked: bool = True
    """true: what is not masked is taken from the source, to the pixel. false: as the model gives it, which is
    nearly the source."""


class EditJob(SourcedJob):
    """Change pictures as told, or make one of several."""

    task: Literal["edit"] = "edit"
    """What is to be done."""
    image: PicturePath | None = None
    """The picture to edit: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP. Instead of
    images."""
    images: (
        Annotated[tuple[PicturePath, ...], Field(strict=False, min_length=1, max_length=MAX_REFERENCES)] | None
    ) = None
    """The pictures to edit, at most 10 (Qwen-Image-Edit: one), in the order in which the prompt counts them ("the
    person of picture 1 …"). Instead of image."""
    mask: PicturePath | None = None
    """Where to edit, for one picture and Qwen-Image-Edit only: white where it is changed, black where it is kept.
    Everywhere where it is left out. With a mask the size is the model's choice: the picture's shape, at about
    1024×1024 pixels; without aspect_ratio, width and height. size = "source" brings the result back to the
    picture's own size."""
    preserve_unmasked: bool = True
    """true: what is not masked is taken from the source, to the pixel. false: as the model gives it. Only with
    mask."""


class LayeredJob(GenerationParameters):
    """Take a picture apart into layers with transparency."""

    task: Literal["layered"] = "layered"
    """What is to be done."""
    image: PicturePath
    """The picture to take apart: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP."""
    prompt: Prompt | None = None
    """What the picture shows, in all. The model describes it itself where it is left out; the result holds its
    words."""
    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = 4
    """Into how many layers, 1 to 10."""
    resolution: Resolution = 640
    """640 (recommended by the makers) or 1024: the layers have the picture's shape and about as many pixels as a
    square of this side."""


class ControlNetJob(SourcedJob):
    """Draw to a prompt along the lines, depths or poses of a control picture."""

    task: Literal["controlnet"] = "controlnet"
    """What is to be done."""
    control_image: PicturePath
    """The control picture (edges, depth map, pose, …), ready-made; with mask, the picture of which a part is
    redrawn. A path relative to the job file, in its folder or below. PNG, JPEG or WEBP."""
    controlnet: Name | None = None
    """A ControlNet's name out of the settings' [controlnets.NAME]. The only one for the model and purpose where it
    is left out."""
    control_scale: Annotated[float, Field(gt=0.0, le=2.0, allow_inf_nan=False)] = 1.0
    """How closely the control picture is followed, above 0 to 2.0."""
    control_start: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 0.0
    """From which part of the steps on the control picture counts, 0.0 (the first) to 1.0 (the last)."""
    control_end: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = 1.0
    """Up to which part of the steps the control picture counts, 0.0 to 1.0; above control_start."""
    mask: PicturePath | None = None
    """Where to redraw, for inpaint ControlNets, which need it: white where control_image is redrawn, black
    where it is kept."""
    preserve_unmasked: bool = True
    """true: what is not masked is taken from control_image, to the pixel. false: as the model gives it. Only with
    mask."""


AnyJob = TextToImageJob | ImageToImageJob | InpaintJob | EditJob | LayeredJob | ControlNetJob

JobSpec = Annotated[AnyJob, Field(discriminator="task")]
"""Any job a person can write."""

JOB_SPEC: TypeAdapter[AnyJob] = TypeAdapter(JobSpec)

JobModel = (
    type[TextToImageJob]
    | type[ImageToImageJob]
    | type[InpaintJob]
    | type[EditJob]
    | type[LayeredJob]
    | type[ControlNetJob]
)
MODELS: Mapping[Task, JobModel] = MappingProxyType(
    {
        "text-to-image": TextToImageJob,
        "image-to-image": ImageToImageJob,
        "inpaint": InpaintJob,
        "edit": EditJob,
        "layered": LayeredJob,
        "controlnet": ControlNetJob,
    }
)
"""The model of each task."""
TABLES: Mapping[str, type[Output] | type[LoraUse] | type[SchedulerUse]] = MappingProxyType(
    {"output": Output, "loras": LoraUse, "scheduler": SchedulerUse}
)
"""The settings of jobs that are tables, or lists of tables."""
SETTINGS: tuple[str, ...] = tuple(dict.fromkeys(name for model in MODELS.values() for name in model.model_fields))
"""The settings of all kinds of jobs."""

PictureRole = Literal["source", "reference", "mask", "control"]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A picture that a job reads: what for, the setting that names it, and its path relative to the job file."""

    role: PictureRole
    setting: KeyPath
    path: str


def source_images(spec: AnyJob) -> tuple[SourceImage, ...]:
    """Give all pictures that the job reads; first the one that its size may be taken from."""
    match spec:
        case TextToImageJob():
            return ()
        case ImageToImageJob() | LayeredJob():
            return (SourceImage("source", ("image",), spec.image),)
        case InpaintJob():
            return (SourceImage("source", ("image",), spec.image), *_mask(spec.mask))
        case EditJob():
            references = [
                SourceImage("reference", ("images", place), path) for place, path in enumerate(spec.images or ())
            ]
            alone = [SourceImage("reference", ("image",), spec.image)] if spec.image is not None else []
            return (*alone, *references, *_mask(spec.mask))
        case ControlNetJob():
            return (SourceImage("control", ("control_image",), spec.control_image), *_mask(spec.mask))


def _mask(path: str | None) -> tuple[SourceImage, ...]:
    return () if path is None else (SourceImage("mask", ("mask",), path),)


def source_paths(spec: AnyJob) -> tuple[str, ...]:
    """Give the paths of all pictures that the job reads, each once."""
    return tuple(dict.fromkeys(image.path for image in source_images(spec)))
