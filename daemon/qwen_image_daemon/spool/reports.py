"""What the loops tell the service while they work: small files in `spool/state/`, replaced whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

import structlog
from pydantic import Field

from qwen_image_daemon.render.renderer import LoadStage, MemoryInfo, ModelInfo, Stage
from qwen_image_daemon.spool.records import Record

log = structlog.get_logger(__name__)

TAKE_IN_REPORT = "take-in.json"
RENDER_REPORT = "render.json"
GIVE_OUT_REPORT = "give-out.json"
RENDER_DEATH = "render.death.json"

Activity = Literal["starting", "loading", "idle", "rendering", "paused", "troubled"]


class CurrentJob(Record):
    """The job that is being rendered."""

    id: str
    name: str
    image: int
    """The picture being drawn, counted from 1."""
    images: int
    stage: Stage
    step: int
    """Finished denoising steps of this picture."""
    steps: int
    started_at: datetime
    eta_seconds: float | None = None
    """Estimated time to the end of the job: by its own pace once a step is done, before that by the pace of such
    pictures; None where none was drawn."""
    note: str | None = None
    """What is out of the ordinary: the CPU draws it as the last resort, and how long a picture takes there."""


class LoadingModel(Record):
    """A model, or a part of one, that is being loaded."""

    name: str
    """The settings' name of the model."""
    stage: LoadStage
    """fetch: what is missing comes from the hub. verify: files are held against their listed hashes. read: files
    with weights are read. arrange: the model comes onto its device, and a trial picture is drawn."""
    part: str | None = None
    """The component or file that it is at."""
    done_bytes: int = 0
    total_bytes: int = 0
    """Of this stage; 0 where there is nothing to count."""
    began_at: datetime

    def told(self) -> str:
        """Say it in words, without a full stop."""
        doing = {
            "fetch": f"fetching {self.name} from the hub",
            "verify": f"comparing the files of {self.name} with their hashes",
            "read": f"reading {self.name}",
            "arrange": f"arranging {self.name} and drawing a trial picture",
        }[self.stage]
        where = f": {self.part}" if self.part else ""
        if not self.total_bytes:
            return doing + where
        share = 100 * self.done_bytes // self.total_bytes
        return f"{doing}{where}, {_gigabytes(self.done_bytes)} of {_gigabytes(self.total_bytes)} GB ({share} %)"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f}"


class MemoryFloor(Record):
    """The least that jobs leave in use: of the first few, and of the last few. Where it rises, something leaks.

    Of jobs with one model in one arrangement, since the render process began.
    """

    model: str
    """The settings' name of the model."""
    arrangement: str | None
    """The plan by which it was arranged; None where there is none."""
    jobs: int
    host_first_bytes: int
    """Resident memory of the render process that it shares with no file, so without mapped weights."""
    host_bytes: int
    device_first_bytes: int | None = None
    """Held by tensors on the device. None where that is the host."""
    device_bytes: int | None = None

    @property
    def growth_bytes(self) -> int:
        """Give the growth on the host or on the device, whichever is larger."""
        on_device = (self.device_bytes or 0) - (self.device_first_bytes or 0)
        return max(self.host_bytes - self.host_first_bytes, on_device)


class RenderReport(Record):
    """The render loop at one moment."""

    activity: Activity
    current: CurrentJob | None = None
    model_name: str | None = None
    """The settings' name of the model that is loaded or being loaded."""
    model: ModelInfo | None = None
    loading: LoadingModel | None = None
    """How far the loading of a model is; None where none is loaded at present."""
    memory: MemoryInfo | None = None
    memory_floor: MemoryFloor | None = None
    note: str | None = None
    """What a person should know although nothing is wrong: who paused the daemon, why a job goes before others."""
    trouble: str | None = None
    """Why nothing can be rendered at present."""


class RenderDeath(Record):
    """How the last render process died, put down by the service for the next one."""

    how: str
    """Signal or exit code."""
    died_at: datetime
    silent_seconds: float | None = None
    """The service killed it because it gave no sign of life for so long; None where it died by itself."""
    last_report: RenderReport | None = None
    """What it said last."""


class TakeInReport(Record):
    """The take-in loop at its last look."""

    waiting: dict[str, str] = Field(default_factory=dict)
    """Job files that wait, with the reason."""
    trouble: str | None = None
    """Why nothing can be taken at present."""


class GiveOutReport(Record):
    """The give-out loop, where it cannot do its work."""

    trouble: str | None = None
    """Why nothing can be given out at present."""


@contextmanager
def unwritten_is_logged() -> Iterator[None]:
    """Let go of a report that cannot be written, and log it.

    The disk that is full may be the spool's own; who waits for it to be emptied must not end of it.
    """
    try:
        yield
    except OSError as error:
        log.warning("report.unwritten", reason=str(error))
