"""A disk without space, without inodes, read-only: under the spool, then under the outbox."""

import errno
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from driving import Box
from torture.drops import copy_in, mixture
from torture.keeper import Keeper, patiently
from torture.ledger import Ledger, Verdict
from torture.mounts import WITHOUT_WATERMARK, ext4, lacking, mounted, remount
from torture.table import Row
from torture.watcher import Watcher

Place = Literal["spool", "outbox"]
Trouble = Literal["full", "no inodes", "read-only"]
PLACES: tuple[Place, ...] = ("spool", "outbox")
TROUBLES: tuple[Trouble, ...] = ("full", "no inodes", "read-only")

DISK_MEBIBYTES = 32
INODES = 4000
_AT_ONCE = 2


def fill_disks(where: Path, *, jobs: int = 40, seconds: float = 10.0) -> Row:
    """Let each trouble come over each place for so many seconds, while so many jobs come and go."""
    if reason := lacking("mkfs.ext4"):
        return Row.left_out("full", reason)
    began = time.monotonic()
    work = [
        Filling(where / f"{place} {trouble}".replace(" ", "-"), place, trouble, jobs, seconds)
        for place in PLACES
        for trouble in TROUBLES
    ]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        ends = list(threads.map(Filling.run, work))
    slowest = max(end.recovery_seconds for end in ends)
    return Row(
        "full",
        f"spool and outbox, each full, without inodes, read-only for {seconds:.0f} s; {len(work) * jobs} jobs; "
        f"all out at most {slowest:.1f} s after the trouble ended",
        tuple(end.verdict for end in ends),
        time.monotonic() - began,
        failures=tuple(failure for end in ends for failure in end.failures),
    )


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of one trouble at one place."""

    verdict: Verdict
    recovery_seconds: float
    failures: tuple[str, ...]


class Filling:
    """One box with one folder on a small disk of its own."""

    def __init__(self, root: Path, place: Place, trouble: Trouble, jobs: int, seconds: float) -> None:
        self._box = Box(root, settle_seconds=0.1, **WITHOUT_WATERMARK)
        self._point = root / place
        self._image = ext4(root / "disk.img", DISK_MEBIBYTES, inodes=INODES)
        self._what = f"{place} {trouble}"
        self._trouble: Trouble = trouble
        self._jobs = jobs
        self._seconds = seconds

    def run(self) -> Filled:
        """Work, be troubled, work on, recover."""
        box, ledger = self._box, Ledger()
        keeper = Keeper(box, "--dry-run")
        drops = mixture(self._jobs)
        failures: list[str] = []
        with (
            mounted(self._image, self._point),
            Watcher().watching(box.outbox, box.root / "watcher.json") as watcher,
            keeper.keeping(),
        ):
            for _ in range(self._jobs // 4):
                copy_in(box.inbox, ledger.note(next(drops)))
            patiently(lambda: ledger.out(box) > 0, lambda: ledger.out(box), keeper)
            with troubled(self._point, self._trouble):
                for drop in drops:
                    copy_in(box.inbox, ledger.note(drop))
                time.sleep(self._seconds)
                if not re.search(r"\.(troubled|unwritten)", keeper.log()):
                    failures.append(f"{self._what}: the daemon did not say so")
                status = box.status()
            ended = time.monotonic()
            if not patiently(lambda: ledger.out(box) >= self._jobs, lambda: ledger.out(box), keeper):
                failures.append(f"{self._what}: the jobs did not come out")
            recovery = time.monotonic() - ended
            if (code := keeper.stop()) != 0 or keeper.starts > 1:
                failures.append(f"{self._what}: {keeper.starts} starts, exit code {code}; status {status}")
            verdict = ledger.verdict([box], watcher.torn)
        return Filled(verdict, recovery, tuple(failures))


@contextmanager
def troubled(point: Path, trouble: Trouble) -> Iterator[None]:
    """Bring a trouble over a mounted file system for the block."""
    match trouble:
        case "full":
            fill_space(point / ".filler")
            yield
            (point / ".filler").unlink()
        case "no inodes":
            fillers = use_up_inodes(point / ".fillers")
            yield
            for filler in fillers:
                filler.unlink()
            (point / ".fillers").rmdir()
        case "read-only":
            remount(point, "ro")
            yield
            remount(point, "rw")
        case _:
            assert_never(trouble)


def fill_space(filler: Path) -> None:
    """Write until there is no byte left."""
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 1 << 12, 1):
        while True:
            try:
                os.write(descriptor, bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
    os.close(descriptor)


def use_up_inodes(folder: Path) -> list[Path]:
    """Make empty files until there can be no more."""
    folder.mkdir()
    fillers: list[Path] = []
    while True:
        filler = folder / str(len(fillers))
        try:
            filler.touch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return fillers
        fillers.append(filler)
