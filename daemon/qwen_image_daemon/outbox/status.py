"""`status.json`: what the daemon is doing, for people, scripts and web pages over the folders. Times are UTC."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from qwen_image_daemon.render.renderer import MemoryInfo, ModelInfo
from qwen_image_daemon.spool.records import Record
from qwen_image_daemon.spool.reports import CurrentJob, LoadingModel, MemoryFloor

STATUS = "status.json"

DaemonState = Literal[
    "starting", "loading", "idle", "rendering", "paused", "troubled", "stopping", "stopped", "broken"
]
QueueStatus = Literal["queued", "rendering", "rendered"]


class QueueItem(Record):
    """One job that is not given out yet."""

    id: str
    name: str
    status: QueueStatus
    """queued; rendering; rendered: finished, and about to be given out."""
    priority: int
    images: int
    """Pictures asked for; 0 for a refused file."""
    received_at: datetime
    started_at: datetime | None = None
    """When its first attempt began; None where none did."""
    not_before: datetime | None = None
    """The moment before which it is not begun, as its author wrote it; None where it may begin at once."""
    batch: str | None = None
    """The name and id of the batch that it is one job of, as the folder of its results is called; None where it is
    by itself."""


class Counts(Record):
    """Jobs by where they are. The last five count what was given out since the spool was last cleared."""

    waiting: int = 0
    """Dropped, but not whole yet: still being written, or waiting for a picture."""
    queued: int = 0
    rendering: int = 0
    rendered: int = 0
    succeeded: int = 0
    failed: int = 0
    refused: int = 0
    cancelled: int = 0
    duplicate: int = 0


class DaemonMoment(Record):
    """The daemon at one moment: whose word this is, and whether it works."""

    version: Literal[1] = 1
    daemon_version: str
    host: str
    pid: int
    state: DaemonState
    """paused: somebody asked it to begin nothing; troubled: it waits for a fault of its surroundings to pass;
    broken: it gave up, and says why."""
    note: str | None = None
    """What to know although nothing is wrong: who paused it, and how it goes on."""
    trouble: tuple[str, ...] = ()
    """What is wrong at present, in sentences."""
    started_at: datetime
    updated_at: datetime
    """When this was last found to be so; an old time means that the daemon is not running."""


class QueueResponse(DaemonMoment):
    """What a front end that shows the queue needs. Every status is one."""

    current: CurrentJob | None = None
    """The job that is being rendered, with step and estimated end."""
    queue: tuple[QueueItem, ...] = ()
    """The next jobs in the order in which they will be taken, at most 200."""
    waiting: dict[str, str] = Field(default_factory=dict)
    """Job files in the inbox that wait, with the reason."""
    counts: Counts


class MemoryResponse(DaemonMoment):
    """What a front end that shows the memory needs. Every status is one."""

    model: ModelInfo | None = None
    """The model that is loaded."""
    loading: LoadingModel | None = None
    """A model that is being fetched, checked or loaded, and how far that is."""
    memory: MemoryInfo | None = None
    """Memory of the render process and its device, as last reported."""
    memory_floor: MemoryFloor | None = None
    """What the last jobs left in use of it, at least."""


class DaemonStatus(MemoryResponse, QueueResponse):
    """All about the daemon at one moment: both the queue's and the memory's answer."""

    model_config = ConfigDict(title="qwen-image-daemon status")
