"""Single rooms over real folders, in the test's own process: what the tests of the three loops share."""

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from PIL import Image

from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.loop import prepare_inbox, take_in
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import DEMO
from qwen_image_daemon.jobs.models import AnyJob
from qwen_image_daemon.jobs.problems import Rejection
from qwen_image_daemon.jobs.reading import read_job
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.loop_control import LoopControl, Stopping
from qwen_image_daemon.outbox.loop import Outlet
from qwen_image_daemon.render.renderer import (
    CleanUp,
    MemoryInfo,
    ModelInfo,
    Progress,
    Rendering,
    RenderRequest,
    StageSeconds,
)
from qwen_image_daemon.render.schedule import steps_that_run
from qwen_image_daemon.settings import InboxSettings, OutboxSettings, SpoolSettings
from qwen_image_daemon.spool.entry import DROPPED, Entry
from qwen_image_daemon.spool.places import Place
from qwen_image_daemon.spool.records import FileRecord, JobRecord
from qwen_image_daemon.spool.spool import Spool

CATALOGUE = Catalogue(families={"demo": DEMO, "other": DEMO}, default="demo")
QUICK = InboxSettings(settle_seconds=0.03, rescan_seconds=0.05)
OURS = {".taken", ".qwen-image-daemon"}
SMALL = "width = 64\nheight = 64\nnum_inference_steps = 2\n"


def picture(size: tuple[int, int] = (96, 64), colour: str = "teal") -> bytes:
    """Give the bytes of a PNG."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def job_of(text: str) -> AnyJob:
    """Read a job that is right."""
    job = read_job(text.encode(), "job.toml", CATALOGUE)
    assert not isinstance(job, Rejection), str(job)
    return job


@dataclass
class Rooms:
    """Inbox, spool and outbox without a daemon."""

    root: Path
    settings: InboxSettings = QUICK
    inbox: Path = field(init=False)
    outbox: Path = field(init=False)
    spool: Spool = field(init=False)

    def __post_init__(self) -> None:
        """Make the folders."""
        self.inbox, self.outbox = self.root / "inbox", self.root / "outbox"
        self.spool = Spool(self.root / "spool")
        self.spool.prepare()
        Place("inbox", self.inbox, self.spool).enter()
        prepare_inbox(self.inbox)

    def drop(self, name: str, content: str | bytes) -> Path:
        """Put a file into the inbox."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def take_in(self) -> None:
        """Run the take-in loop until nothing is left that it can take."""
        take_in(self.intake, LoopControl(drain=True))

    @property
    def intake(self) -> Intake:
        """Say what the take-in loop works on."""
        return Intake(self.inbox, self.spool, CATALOGUE, self.settings, SpoolSettings())

    @property
    def outlet(self) -> Outlet:
        """Say what the give-out loop works on."""
        return Outlet(self.spool, self.outbox, OutboxSettings(), SpoolSettings())

    def queued(self) -> list[JobRecord]:
        """Read the queue, in the order of arrival."""
        records = (entry.record() for entry in self.spool.entries(self.spool.queue))
        return sorted(records, key=lambda record: record.sequence)

    def rendered(self) -> list[Entry]:
        """List what is to be given out."""
        return self.spool.entries(self.spool.rendered)

    def left_in_inbox(self) -> set[str]:
        """List all files of the inbox but our marker and those that were taken."""
        files = (path.relative_to(self.inbox) for path in self.inbox.rglob("*") if not path.is_dir())
        return {path.as_posix() for path in files if path.parts[0] not in OURS}

    def taken(self) -> list[str]:
        """List the job files that are kept in `.taken`, without their ids."""
        return sorted(path.name[27:] for path in (self.inbox / ".taken").iterdir())

    def admit(self, name: str, text: str = 'prompt = "x"\n' + SMALL, *, sequence: int = 1) -> Entry:
        """Put a job into the queue as the take-in does."""
        entry = self.spool.begin(datetime.now(UTC))
        content = text.encode()
        (entry.folder / DROPPED / f"{name}.toml").write_bytes(content)
        job = job_of(text)
        record = JobRecord(
            id=entry.id,
            name=name,
            sequence=sequence,
            received_at=datetime.now(UTC),
            source=FileRecord(path=f"{name}.toml", size_bytes=len(content), sha256=""),
            requested=job,
            effective=resolve(job, CATALOGUE, seed=1),
        )
        return self.spool.let_in(self.spool.commit(entry, record))


INFO = ModelInfo(
    family="demo",
    pipeline="Test",
    source="none",
    revision=None,
    device="none",
    precision="none",
    versions={},
    load_seconds=0.0,
)
MEMORY = MemoryInfo(
    device="none", allocated_bytes=1, reserved_bytes=2, free_bytes=3, total_bytes=4, process_rss_bytes=5
)
CLEAN_UP = CleanUp(done=("garbage collected",), reason="tested", seconds=0.5, found=MEMORY, left=MEMORY)


class Drawer:
    """A renderer that paints flat pictures and, before each, does what the test says."""

    def __init__(self, before: Callable[[RenderRequest], None] = lambda _: None) -> None:
        self.before = before
        self.drawn: list[int] = []
        """Seeds of the pictures that were begun."""

    def __enter__(self) -> Self:
        """Load nothing."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let go of nothing."""

    @property
    def info(self) -> ModelInfo:
        """Say that there is no model."""
        return INFO

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Paint one picture."""
        self.drawn.append(request.seed)
        self.before(request)
        steps = steps_that_run(request)
        for step in range(steps + 1):
            progress(Progress("denoise", step, steps))
        image = Image.new("RGB", (request.width, request.height), (request.seed % 256, 0, 0))
        return Rendering(image, StageSeconds(encode=0.1, denoise=0.2, decode=0.3), steps)

    def stand_by(self) -> None:
        """Let go of nothing."""

    def clean_up(self) -> CleanUp:
        """Report a memory that any test can tell."""
        return CLEAN_UP


class Opener:
    """Opens renderers by name, and remembers in which order."""

    def __init__(self, renderers: Mapping[str, Drawer]) -> None:
        self.renderers = renderers
        self.opened: list[str] = []

    def __call__(self, name: str, *_: object) -> Drawer:
        """Give the renderer of that name."""
        self.opened.append(name)
        return self.renderers[name]


@contextmanager
def running(loop: Callable[[LoopControl], None]) -> Iterator[None]:
    """Run a loop in a thread for the block; it is asked to stop at the end."""
    stopping = Stopping()
    thread = threading.Thread(target=loop, args=(LoopControl(stopping=stopping),))
    thread.start()
    try:
        yield
    finally:
        stopping.ask()
        thread.join()
