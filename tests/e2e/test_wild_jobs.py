"""A running daemon under files that nobody would write: each is answered, soon, and nothing else happens."""

import json
import time
from dataclasses import dataclass, field

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from driving import Box, Daemon, eventually
from qwen_image_daemon.jobs.batches import Batch, WantsList
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import DEMO, QWEN_IMAGE
from qwen_image_daemon.jobs.models import AnyJob, source_images
from qwen_image_daemon.jobs.problems import Rejection
from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.jobs.reading import read_drop
from wild_jobs import WILD, WILD_BATCHES, Dropped

CATALOGUE = Catalogue(families={"qwen-image": QWEN_IMAGE, "demo": DEMO}, default="qwen-image")
MOST_SECONDS = 2.0
MOST_GROWTH = 64 * 1024 * 1024
BATCH = 10
LOOPS = 3
MOST_PIXELS = 512 * 512


def is_drawn_soon(job: AnyJob) -> bool:
    """Say whether a good job needs no picture and little work: the bad ones are to be timed, not the drawing."""
    width, height = job.width, job.height
    small = width is not None and height is not None and width * height <= MOST_PIXELS
    return small and job.num_images <= 2 and not source_images(job)


@dataclass
class Flood:
    """Drops files by batches into a box, waits for the answers, and clears them away."""

    box: Box
    daemon: Daemon
    dropped: int = 0
    refused: int = 0
    seconds: list[float] = field(default_factory=list)
    """From the rename of each refused file to its result."""
    sizes: list[int] = field(default_factory=list)
    """Resident memory of the take-in process after each batch."""

    def wave(self, files: list[Dropped]) -> None:
        """Rename some files in, and want an answer to each."""
        moved: dict[str, float] = {}
        bad: set[str] = set()
        for suffix, content in files:
            if content and not any(content[-16:]):
                # Looks like one that is still being written, and is waited for.
                continue
            name = f"wild{self.dropped}"
            job = read_drop(content, name + suffix, CATALOGUE)
            if isinstance(job, Batch | WantsList):
                # Good ones are tried elsewhere.
                continue
            if isinstance(job, Rejection):
                bad.add(name)
            elif job.name is not None or not is_drawn_soon(job):
                continue
            self.dropped += 1
            self.box.move_in(name + suffix, content)
            moved[name] = time.monotonic()
        self.refused += len(bad)
        answered: dict[str, float] = {}

        def look() -> bool:
            for shelf in (path for path in self.box.outbox.iterdir() if path.is_dir() and path.name[0] != "."):
                for folder in shelf.iterdir():
                    answered.setdefault(folder.name.partition("-")[0], time.monotonic())
            return answered.keys() >= moved.keys()

        eventually(look, "an answer to every file")
        assert answered.keys() == moved.keys()
        self.seconds += [answered[name] - moved[name] for name in bad]
        self._check_letters(bad)
        assert self.daemon.process.poll() is None
        self.sizes.append(psutil.Process(self.daemon.children()["take-in"]).memory_info().rss)

    def _check_letters(self, bad: set[str]) -> None:
        for folder in self.box.failed.iterdir() if self.box.failed.exists() else ():
            assert folder.name.partition("-")[0] in bad
            letter = (folder / "ERROR.txt").read_text(encoding="utf-8")
            assert not any(is_control(character) for character in letter.replace("\n", ""))
            (folder / "job.log").read_text(encoding="ascii")
            json.loads((folder / "result.json").read_bytes())
        for shelf in (path for path in self.box.outbox.iterdir() if path.is_dir() and path.name[0] != "."):
            for folder in shelf.iterdir():
                folder.rename(self.box.root / "seen" / folder.name)

    @property
    def growth(self) -> int:
        """Bytes that the take-in's memory grew by, once it was warm."""
        return max(self.sizes) - self.sizes[min(len(self.sizes) - 1, 5)]


def flooded(box: Box, files: int) -> Flood:
    """Run a daemon, drop that many files, and look that it lives and has nothing left to do."""
    (box.root / "seen").mkdir()
    with box.running("--dry-run") as daemon:
        box.wait_for_state("idle")
        # The render loop may be ready before the others have said who they are.
        pids = eventually(lambda: found if len(found := daemon.children()) == LOOPS else None, "all loops")
        flood = Flood(box, daemon)

        @settings(
            max_examples=files // BATCH,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(WILD | WILD_BATCHES, min_size=BATCH, max_size=BATCH))
        def wave(files: list[Dropped]) -> None:
            flood.wave(files)

        wave()
        assert daemon.children() == pids, "a loop died"
        box.move_in("last.toml", 'prompt = "x"\nwidth = 64\nheight = 64')
        assert box.result("last").status == "succeeded"
        assert daemon.stop() == 0
    assert box.leftovers() == []
    return flood


def test_wild_files_are_each_answered_soon_and_the_daemon_lives(box: Box) -> None:
    flood = flooded(box, files=200)
    assert flood.refused > 50
    # Other tests run beside this one and may hold a file up; make fuzz wants it of every single file.
    assert sorted(flood.seconds)[int(len(flood.seconds) * 0.95)] < MOST_SECONDS
    assert flood.growth < MOST_GROWTH


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_ten_thousand_wild_files_are_each_answered_soon_and_memory_stays_bounded(box: Box) -> None:
    flood = flooded(box, files=10_000)
    ordered = sorted(flood.seconds)
    median, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    print(  # noqa: T201
        f"{flood.dropped} files dropped in batches of {BATCH}, {flood.refused} refused; "
        f"answered after {median:.3f} s (median), {late:.3f} s (99 %), {ordered[-1]:.3f} s (slowest); "
        f"take-in process {flood.sizes[0] / 2**20:.0f} MiB, +{flood.growth / 2**20:.1f} MiB"
    )
    assert ordered[-1] < MOST_SECONDS
    assert flood.growth < MOST_GROWTH
