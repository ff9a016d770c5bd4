"""What a person may ask for, as strict models. Text in, values out; no disk, no clock, no torch."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from qwen_image_daemon.jobs.families import FAMILIES, AspectRatio, PresetName
from qwen_image_daemon.jobs.styles import MAX_STYLE_NAME_CHARACTERS, STYLES

MAX_PROMPT_CHARACTERS = 10_000
MAX_IMAGES = 1_000
MAX_STEPS = 200
MAX_SEED = 2**63 - 1
"""torch takes 64-bit seeds; TOML promises 64-bit signed integers. Image k uses seed + k."""
MAX_TAGS = 32
MAX_TIMEOUT_SECONDS = 7 * 24 * 3600

Task = Literal["text-to-image", "image-to-image"]
OutputFormat = Literal["png", "webp", "jpeg"]


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


class GenerationParameters(StrictModel):
    """What every kind of job can ask for."""

    name: Annotated[str, Field(min_length=1, max_length=120)] | None = None
    """What to call the job in lists and in the result folder's name. The file's name where it is left out."""
    model: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    """A model's name out of the daemon's settings. The daemon's default model where it is left out."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    """What the picture shows."""
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)] | None = None
    """What the picture must not show. A single space, the makers' recommendation, where it is left out."""
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
    the time. The model's recommendation (4.0) where it is left out."""
    num_inference_steps: Steps | None = None
    """Denoising steps, 2 to 200. The model's recommendation (50) where it is left out."""
    aspect_ratio: AspectRatio | None = None
    """The picture's shape, in the size that the makers recommend for it. 1:1 where no size is given."""
    width: Side | None = None
    """Width in pixels, a multiple of 16; together with height, instead of aspect_ratio."""
    height: Side | None = None
    """Height in pixels, a multiple of 16; together with width, instead of aspect_ratio."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Image k is drawn from seed + k, counted from 0. Drawn by lot, and recorded, where it is left out."""
    num_images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    """How many pictures to draw, each from its own seed."""
    id: Annotated[str, Field(min_length=1, max_length=120)] | None = None
    """A sender's own key, so that a job that is sent twice is done once: the same id with the same files is
    answered with the earlier result, with other files it is refused. A job that failed may be sent again."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Jobs of higher priority are taken first; equal ones in the order of their arrival."""
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


class TextToImageJob(GenerationParameters):
    """Draw pictures from words alone."""

    task: Literal["text-to-image"] = "text-to-image"
    """What is to be done."""


class ImageToImageJob(GenerationParameters):
    """Redraw a picture, led by words."""

    task: Literal["image-to-image"] = "image-to-image"
    """What is to be done."""
    image: Annotated[str, Field(min_length=1, max_length=1_000)]
    """The source picture: a path relative to the job file, in its folder or below. PNG, JPEG or WEBP."""
    size: Literal["source"] | None = None
    """"source" draws in the source's own size, after its EXIF rotation, and refuses one that the model cannot draw
    exactly; instead of aspect_ratio, width and height. Where no size at all is given, the recommended size whose
    shape is nearest to the source's is taken."""
    strength: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 0.6
    """How much of the source is redrawn: near 0 keeps it, 1.0 ignores it. ceil(steps × strength) steps run."""


AnyJob = TextToImageJob | ImageToImageJob

JobSpec = Annotated[AnyJob, Field(discriminator="task")]
"""Any job a person can write."""

JOB_SPEC: TypeAdapter[AnyJob] = TypeAdapter(JobSpec)


def source_images(spec: TextToImageJob | ImageToImageJob) -> tuple[str, ...]:
    """Give the relative paths of all pictures that the job reads."""
    match spec:
        case ImageToImageJob():
            return (spec.image,)
        case TextToImageJob():
            return ()


def with_task(document: dict[str, Any]) -> dict[str, Any]:
    """State the task where the document leaves it out: image-to-image where it names an image."""
    if "task" in document:
        return document
    return {**document, "task": "image-to-image" if "image" in document else "text-to-image"}
