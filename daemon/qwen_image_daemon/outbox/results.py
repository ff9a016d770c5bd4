"""`result.json`: all about one job's end, for programs. Written last; with it a result folder is complete."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.renderer import Arrangement, CleanUp, MemoryInfo, ModelInfo
from qwen_image_daemon.spool.records import (
    BatchPlace,
    ErrorReport,
    FileRecord,
    ImageRecord,
    JobRecord,
    Outcome,
    OutcomeStatus,
    ProblemRecord,
    Record,
    Requested,
)

RESULT = "result.json"


class Timings(Record):
    """Seconds of wall time. Those of the stages are sums over all pictures of the job."""

    queued: float
    """From the arrival to the first attempt, or to the refusal."""
    load: float = 0.0
    """Waiting for the model to be loaded."""
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    save: float = 0.0
    total: float
    """From the arrival to the end."""

    @classmethod
    def of(cls, record: JobRecord, outcome: Outcome) -> "Timings":
        """Add up what was measured."""
        began = outcome.started_at or outcome.finished_at
        return cls(
            queued=_seconds(record.received_at, began),
            load=outcome.load_seconds,
            encode=_sum(image.seconds.encode for image in outcome.images),
            denoise=_sum(image.seconds.denoise for image in outcome.images),
            decode=_sum(image.seconds.decode for image in outcome.images),
            save=_sum(image.save_seconds for image in outcome.images),
            total=_seconds(record.received_at, outcome.finished_at),
        )


class ImageResult(Record):
    """One picture of the result."""

    file: FileRecord
    seed: int
    """Drawing one picture with this seed and the effective parameters gives this picture again."""
    steps: int
    """Denoising steps that were run."""
    layers: tuple[FileRecord, ...] = ()
    """Of a layered job: the layers as files of their own, the lowest first; `file` has all, one over the other."""
    caption: str | None = None
    """The prompt that the model found itself, where a layered job left it to it."""
    arrangement: Arrangement | None = None
    """Where the model's weights were while it was drawn, and whether that changed it."""


class JobResult(Record):
    """What was asked, what was done, what came out."""

    model_config = ConfigDict(title="qwen-image-daemon result")

    version: Literal[1] = 1
    id: str
    name: str
    status: OutcomeStatus
    """succeeded; failed: it was tried and could not be done; refused: the job file is wrong; cancelled: somebody
    asked for its end; duplicate: the same job, by its own id, was sent before, and was not run again."""
    tags: tuple[str, ...] = ()
    """The sender's own words, out of the job file."""
    job_file: str | None
    """The job file as it was dropped, in this folder; None where it was too large to be carried along."""
    batch: BatchPlace | None
    """Which job it is of which file, where the file asked for many; None for a job by itself."""
    requested: Requested
    """What the job file asks for. None for a refused file."""
    effective: EffectiveParameters | None
    """What was done, every open choice filled in. None for a refused file."""
    adjustments: tuple[str, ...]
    """What was done otherwise than a reader of the job may expect, in sentences."""
    problems: tuple[ProblemRecord, ...]
    """Everything that is wrong with a refused file."""
    error: ErrorReport | None
    """Why a job failed."""
    earlier: str | None
    """Of a duplicate: the id of the job that was sent before, under whose id its result lies."""
    cancelled_by: str | None
    """Who asked for the end of a cancelled job."""
    images: tuple[ImageResult, ...]
    files: tuple[FileRecord, ...]
    """Every other file of this folder, so that a copy of it can be checked."""
    received_at: datetime
    started_at: datetime | None
    finished_at: datetime
    attempts: int
    timings: Timings
    model: ModelInfo | None
    """What drew the pictures: pipeline, device, precision, software versions."""
    memory_before: MemoryInfo | None
    memory_after: MemoryInfo | None
    clean_up_before: CleanUp | None = None
    """How memory was cleared before the first picture of the last attempt. None where nothing was drawn."""
    clean_up_after: CleanUp | None = None
    """How memory was cleared when the job was over. None where nothing was drawn, and for cancelled jobs."""
    daemon_version: str = Field(description="Version of qwen-image-daemon that gave out this result.")


def image_results(images: Iterable[ImageRecord], names: dict[str, str]) -> tuple[ImageResult, ...]:
    """Describe the pictures under the names that they have in the result folder."""
    return tuple(
        ImageResult(
            file=_renamed(image.file, names),
            seed=image.seed,
            steps=image.steps,
            layers=tuple(_renamed(layer, names) for layer in image.layers),
            caption=image.caption,
            arrangement=image.arrangement,
        )
        for image in images
    )


def _renamed(file: FileRecord, names: dict[str, str]) -> FileRecord:
    return file.model_copy(update={"path": names[file.path]})


def _sum(seconds: Iterable[float]) -> float:
    return round(sum(seconds), 4)


def _seconds(start: datetime, end: datetime) -> float:
    # The host's clock may be set back in between.
    return max(0.0, round((end - start).total_seconds(), 4))
