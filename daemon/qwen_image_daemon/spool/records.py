"""What the spool writes down about a job, as versioned models. Every time is UTC."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from qwen_image_daemon.jobs.batches import Origin
from qwen_image_daemon.jobs.models import AnyJob, JobSpec
from qwen_image_daemon.jobs.problems import Problem
from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.renderer import (
    Arrangement,
    CleanUp,
    MemoryInfo,
    ModelInfo,
    RenderError,
    StageSeconds,
)
from qwen_image_daemon.spool.identity import slug

OutcomeStatus = Literal["succeeded", "failed", "refused", "cancelled", "duplicate"]


class Record(BaseModel):
    """A frozen value that is written as JSON and read back strictly."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def to_bytes(self) -> bytes:
        """Give the JSON text of the record, for a file of its own."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def _as_written(job: AnyJob | None) -> dict[str, Any] | None:
    # Only what the author wrote: the choices that were left open stand in the effective parameters.
    return None if job is None else job.model_dump(mode="json", exclude_unset=True) | {"task": job.task}


Requested = Annotated[JobSpec | None, PlainSerializer(_as_written)]
"""What a job file asks for, in the author's own choices; None for a refused file."""


class FileRecord(Record):
    """One file as it was when it was copied or written."""

    path: str
    """Relative, with forward slashes."""
    size_bytes: int
    sha256: str


class BatchPlace(Record):
    """Of which batch a job is one, and which."""

    id: str
    """The batch's own id: all its jobs have the same."""
    name: str
    """What the file calls all of it together, or its own name."""
    key: str | None = None
    """The sender's own id of the whole file."""
    files: tuple[FileRecord, ...] = ()
    """The file that was dropped, and the prompt list that it names. They lie beside the results of the batch."""
    origin: Origin | None = None
    """What the file makes of this job; None for the report on those that were left out."""


class JobRecord(Record):
    """`job.json`: a drop that was taken, with what was asked and what will be done."""

    version: Literal[1] = 1
    id: str
    name: str
    """The name that the job gives itself, or its file's."""
    sequence: int
    """Order of arrival."""
    received_at: datetime
    source: FileRecord
    """What was dropped, relative to the inbox: the job file, or a recipe's picture."""
    folder: str = ""
    """The folder of the inbox into which it was dropped. The outbox mirrors it."""
    inputs: tuple[FileRecord, ...] = ()
    """The pictures that the job reads, relative to the job file."""
    batch: BatchPlace | None = None
    """Where it is one job of a file with many."""
    requested: Requested = None
    """What was asked, as it was written. None exactly if the drop was refused."""
    effective: EffectiveParameters | None = None
    """What will be done, with every open choice filled in. None exactly if the drop was refused."""

    def to_do(self) -> EffectiveParameters:
        """Give what is to be rendered. Raises ValueError for a refused drop, which never gets into the queue."""
        if self.effective is None:
            raise ValueError(f"{self.id} was refused: there is nothing to render")
        return self.effective

    @property
    def group(self) -> str | None:
        """Give the name of the folder that holds all results of its batch; None for a job by itself."""
        return None if self.batch is None else f"{slug(self.batch.name)}-{self.batch.id}"

    @property
    def priority(self) -> int:
        """Jobs of higher priority are taken first."""
        return self.requested.priority if self.requested is not None else 0

    @property
    def not_before(self) -> datetime | None:
        """The moment before which the job is not begun."""
        return self.requested.not_before if self.requested is not None else None

    @property
    def timeout_seconds(self) -> float | None:
        """How long one attempt may draw."""
        return self.requested.timeout_seconds if self.requested is not None else None


class ImageRecord(Record):
    """One finished picture. Its record is written after the picture: with it the picture is complete."""

    file: FileRecord
    seed: int
    steps: int
    """Denoising steps that were run."""
    layers: tuple[FileRecord, ...] = ()
    """Of a picture that was taken apart: its layers, the lowest first."""
    caption: str | None = None
    """The prompt that the model found itself, where the job left it to it."""
    adjustments: tuple[str, ...] = ()
    """What was done otherwise than asked, in sentences."""
    seconds: StageSeconds
    save_seconds: float
    arrangement: Arrangement | None = None
    """Where the model's weights were; None where no model was needed."""


class AttemptMark(Record):
    """`attempt.N`: written before the accelerator is touched. Its name says later how the attempt ended."""

    began_at: datetime
    finished_images: int
    """Pictures that were finished by then: so each mark also tells how far the attempt before it got."""


class ErrorReport(Record):
    """Why a job failed, in words for a person."""

    kind: str
    """Class of the error, for programs."""
    what: str
    fix: str
    details: tuple[str, ...] = ()
    """What else is known, in lines: how the process died, memory, the end of the job's log."""

    @classmethod
    def of(cls, error: RenderError) -> "ErrorReport":
        """Put an error of the renderer down."""
        return cls(kind=type(error).__name__, what=str(error), fix=error.fix)

    @classmethod
    def of_unreadable(cls, what: str) -> "ErrorReport":
        """Say that the spool's own files of a job are broken."""
        fix = "Drop the job again; its file is in this folder or in the inbox's .taken folder."
        return cls(kind="UnreadableEntry", what=what, fix=fix)


class ProblemRecord(Record):
    """One complaint about a job file."""

    where: str
    what: str
    fix: str

    @classmethod
    def of(cls, problem: Problem) -> "ProblemRecord":
        """Put a complaint down."""
        return cls(where=problem.where, what=problem.what, fix=problem.fix)


class Outcome(Record):
    """`outcome.json`: how a job ended. Written last; with it the job is finished."""

    version: Literal[1] = 1
    status: OutcomeStatus
    finished_at: datetime
    started_at: datetime | None = None
    """When its first attempt began; None where it never began."""
    attempts: Annotated[int, Field(ge=0)] = 0
    load_seconds: float = 0.0
    """Seconds that this job waited for the model to load."""
    images: tuple[ImageRecord, ...] = ()
    adjustments: tuple[str, ...] = ()
    """What was done otherwise than a reader of the job may expect, in sentences."""
    problems: tuple[ProblemRecord, ...] = ()
    error: ErrorReport | None = None
    earlier: str | None = None
    """Of a duplicate: the id of the job that was sent before."""
    cancelled_by: str | None = None
    """Who asked for the end of a cancelled job."""
    model: ModelInfo | None = None
    memory_before: MemoryInfo | None = None
    memory_after: MemoryInfo | None = None
    clean_up_before: CleanUp | None = None
    clean_up_after: CleanUp | None = None
    """Of failed jobs, too, where a model is loaded."""
