"""The seam between the daemon and a model. Imports no torch.

What can go wrong, as one tree; `remedy` says what the render loop does about it:

RenderError
├── RequestRefused      permanent     this model cannot draw this request
├── TookTooLong         permanent     the job's own limit of time is over
├── BadPicture          retry         the model gave NaN, or no picture at all
├── OutOfMemory         retry         memory ran out on the device
│   └── HostOutOfMemory retry         memory ran out on the host
├── Misplaced           retry         parts of the model were on different devices
├── MixedPrecisions     retry         parts of the model computed in different precisions
├── UnexpectedFailure   retry         anything that no rule knows
├── ModelUnavailable    surroundings  the checkpoint is not there, not whole, or does not fit together
└── DeviceLost          replace       the accelerator's context is gone: only a new process helps

RenderStopped is no error: it is how a caller leaves a render at a step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, Protocol, Self, get_args

from PIL.Image import Image
from pydantic import AfterValidator, BaseModel, ConfigDict

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.jobs.models import LoraUse, SchedulerUse
from qwen_image_daemon.jobs.tasks import Task

Exactness = Literal["exact", "float-drift", "lossy"]
EXACTNESSES: Final[tuple[Exactness, ...]] = get_args(Exactness)
"""In this order: a picture is as exact as the least exact of all that was done for it."""
Remedy = Literal["permanent", "retry", "surroundings", "replace"]
Stage = Literal["encode", "denoise", "decode"]
LoadStage = Literal["fetch", "verify", "read", "arrange"]


class RenderError(Exception):
    """A request could not be drawn. `str()` is the fault, `fix` the cure, each one sentence for a person."""

    remedy: ClassVar[Remedy]

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


class RequestRefused(RenderError):
    """This model cannot draw this request as it was asked."""

    remedy: ClassVar[Remedy] = "permanent"


class TookTooLong(RenderError):
    """The time that the job gave itself is over. Raised by its caller's progress callback, at a step."""

    remedy: ClassVar[Remedy] = "permanent"


class BadPicture(RenderError):
    """What the model gave is not a picture (NaN or infinite values)."""

    remedy: ClassVar[Remedy] = "retry"


class OutOfMemory(RenderError):
    """Memory ran out: on the device, where it is not a HostOutOfMemory."""

    remedy: ClassVar[Remedy] = "retry"


class HostOutOfMemory(OutOfMemory):
    """Memory ran out on the host."""


class Misplaced(RenderError):
    """Parts of the model, or of what it computes with, were on different devices."""

    remedy: ClassVar[Remedy] = "retry"


class MixedPrecisions(RenderError):
    """Parts of the model, or of what it computes with, were in different floating point formats."""

    remedy: ClassVar[Remedy] = "retry"


class UnexpectedFailure(RenderError):
    """Something failed that no rule knows."""

    remedy: ClassVar[Remedy] = "retry"


class ModelUnavailable(RenderError):
    """The checkpoint is missing, broken, or unfit for this machine."""

    remedy: ClassVar[Remedy] = "surroundings"


class DeviceLost(RenderError):
    """The accelerator's context is gone; only a new process can go on."""

    remedy: ClassVar[Remedy] = "replace"


class RenderStopped(Exception):
    """Raised by a progress callback to leave the render at this step. Passes through the renderer unchanged."""


def _to_tenths_of_milliseconds(seconds: float) -> float:
    return round(seconds, 4)


Seconds = Annotated[float, AfterValidator(_to_tenths_of_milliseconds)]


class MemoryInfo(BaseModel):
    """Memory at one moment, in bytes. The device's figures are the host's where the device is the CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str
    """Name of the device, for example `cuda:0` or `cpu`."""
    allocated_bytes: int
    """Held by tensors. On the CPU: the resident memory of the process."""
    reserved_bytes: int
    """Held by the allocator. On the CPU: the resident memory of the process."""
    free_bytes: int
    """Free on the device, for all processes."""
    total_bytes: int
    """Size of the device's memory."""
    process_rss_bytes: int
    """Resident memory of the render process."""
    peak_bytes: int | None = None
    """The most that tensors held on the device since the last report; on the CPU the most that the process ever
    held. None where it is not known."""
    standing_by_bytes: int = 0
    """Of what tensors hold on the device: copies of the transformers of models that stand by. They go as soon as
    the model at work needs the room."""
    idle_heap_bytes: int | None = None
    """Free within the process's heap, where the C library keeps it for later. Some of it may have been handed back
    to the system already, which nobody counts. None where it is not known: only glibc tells."""


CleaningStep = Literal["garbage collected", "device caches emptied", "heap trimmed"]


class CleanUp(BaseModel):
    """One clearing of memory before or after a job: what was found, what was done about it, what that cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    done: tuple[CleaningStep, ...]
    """In this order."""
    reason: str
    """Why that was done and no more, in sentences without their full stops."""
    seconds: Seconds
    """What it cost, with waiting for the device and measuring."""
    found: MemoryInfo
    """Memory before. Its peak is that of what was drawn since the last clean-up."""
    left: MemoryInfo
    """Memory afterwards, with the same peak."""
    arrangement: str | None = None
    """The plan by which the model lies in this memory. None where there is no model, or none of it on a device."""


@dataclass(frozen=True, slots=True)
class Control:
    """A picture that leads the drawing through a ControlNet, from one part of the steps to another, 0.0 to 1.0."""

    image: Image
    """RGB, (width, height) of the request. With a mask: the picture of which a part is redrawn."""
    controlnet: str
    """Its name in the settings."""
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One picture to draw. Sizes in pixels; every field is what will be done, nothing is left open.

    `negative_prompt` is None exactly if classifier-free guidance is off (`true_cfg_scale` 1.0). The prompt is
    empty only for layered, where the model then describes the picture itself. Which pictures go with which task:

    image-to-image  source (RGB, (width, height)), strength
    inpaint         source, mask (L, the same size, white is redrawn), strength
    edit            references (RGB or RGBA, any size, in order); with a mask (of its size): one, and strength
    layered         source (RGBA, any size), layers, resolution; width and height follow from these
    controlnet      control; with a mask: for an inpaint ControlNet
    """

    task: Task
    prompt: str
    negative_prompt: str | None
    true_cfg_scale: float
    num_inference_steps: int
    width: int
    height: int
    seed: int
    source: Image | None = None
    strength: float | None = None
    mask: Image | None = None
    references: tuple[Image, ...] = ()
    control: Control | None = None
    layers: int | None = None
    resolution: int | None = None
    loras: tuple[LoraUse, ...] = ()
    scheduler: SchedulerUse | None = None
    """None: the checkpoint's own."""
    prompt_as_written: str | None = None
    """The prompt without the words of its style; None where there are none."""
    strict: bool = True
    """What the model would do otherwise than asked is refused. False: it is done, and told in `adjustments`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one picture is. `step` counts finished denoising steps, 0 to `steps`."""

    stage: Stage
    step: int
    steps: int
    expected_seconds: float | None = None
    """How long the whole picture takes, as far as that can be said before."""
    note: str | None = None
    """What a person should know of how it is drawn: that the CPU does it, and how long that takes."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How far the loading of a model is. Bytes are 0 where there are none to count.

    fetch    what is missing comes from the hub
    verify   files are held against the hashes that are listed for them
    read     files with weights are read, one component after the other
    arrange  the model comes onto its device, and a trial picture is drawn
    """

    stage: LoadStage
    done_bytes: int = 0
    total_bytes: int = 0
    part: str | None = None
    """The component or file that it is at, where it is at one."""


class StageSeconds(BaseModel):
    """Seconds of wall time spent on one picture, by stage. `encode` is 0 where the embeddings were at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encode: Seconds
    denoise: Seconds
    decode: Seconds


class Arrangement(BaseModel):
    """Where the model's weights were while a picture was drawn, and what that means for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    plan: str
    """Name of the arrangement; `qwen-image-daemon plan` explains them."""
    exactness: Exactness
    """exact: the picture of an unlimited card, to the bit. float-drift: computed on another device than asked for,
    or in another order, whose rounding differs. lossy: with weights in fewer bits, or encoded or decoded in
    tiles."""
    levers: tuple[str, ...] = ()
    """What made it not exact, one sentence each without its full stop; none where it is exact."""
    encoding: str = "whole"
    """How the pictures that it is drawn from were encoded by the VAE, in the words of `decoding`."""
    decoding: str = "whole"
    """How it was decoded: whole; alone: with nothing else on the device; sliced: one layer after the other;
    tiles-512, tiles-256, tiles-128: in tiles of so many pixels; cpu: on the CPU."""
    steps_down: tuple[str, ...] = ()
    """What was done because memory ran out, one after the other."""

    def less_exact(self, exactness: Exactness, lever: str) -> Self:
        """Say that something else was done for the picture, which leaves it no more exact than this."""
        least = max((self.exactness, exactness), key=EXACTNESSES.index)
        return self.model_copy(update={"exactness": least, "levers": (*self.levers, lever)})


@dataclass(frozen=True, slots=True)
class Rendering:
    """A drawn picture of exactly the size asked for."""

    image: Image
    """RGB; RGBA from models that draw transparency. Of a layered request: all layers, one over the other."""
    seconds: StageSeconds
    steps: int
    """Denoising steps that were run: `steps_that_run` of the request."""
    layers: tuple[Image, ...] = ()
    """Of a layered request: RGBA, the lowest first."""
    caption: str | None = None
    """The prompt that the model found itself, where the request left it to it."""
    passes: int = 0
    """How often the transformer was called: twice a step with guidance, else once. 0 without a model."""
    adjustments: tuple[str, ...] = ()
    """What was done otherwise than asked or than usual, in sentences without their full stops."""
    arrangement: Arrangement | None = None
    """None where no model was needed."""


class ModelInfo(BaseModel):
    """What is loaded, for the record in each result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    family: FamilyName = "qwen-image"
    """Architecture of the model. Results from before there were several have none, and are of this one."""
    licence: str | None = None
    """The makers' licence, as far as it is known."""
    pipeline: str
    """Class of the pipeline, for example `QwenImagePipeline`."""
    source: str
    """Folder or hub name that the checkpoint was loaded from."""
    revision: str | None
    """The hub revision asked for, if any."""
    commit: str | None = None
    """The hub's commit that was loaded; None for folders."""
    verified: str | None = None
    """What was held against listed hashes, and against which; None where no list was there."""
    device: str
    precision: str
    """The floating point format of the weights, for example `bfloat16`."""
    notes: tuple[str, ...] = ()
    """What is not as it was first asked for, and why (for example a fall-back to another precision)."""
    versions: dict[str, str]
    """Versions of the libraries that drew the picture."""
    load_seconds: Seconds


class Renderer(Protocol):
    """A model that is loaded once, by entering it, and then draws request after request."""

    def __enter__(self) -> Self:
        """Load the model. Raises ModelUnavailable, OutOfMemory or DeviceLost."""
        ...

    def __exit__(self, *exc_info: object) -> None:
        """Let go of the model and of the memory it held."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded. Only between entering and leaving."""
        ...

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Draw one picture, calling `progress` at each stage and step.

        Raises a RenderError; what `progress` raises passes through. Afterwards the next call works as if
        nothing had happened.
        """
        ...

    def stand_by(self) -> None:
        """Let go of the device, but not of what host memory holds: the next `render` takes it again.

        What is kept on the device all the same goes whenever another renderer needs the room. Until then another
        renderer may have parts in common with this one, and draw with them.
        """
        ...

    def clean_up(self) -> CleanUp:
        """Clear memory between two jobs, as far as it pays, and report it. Raises DeviceLost."""
        ...
