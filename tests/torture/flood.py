"""Very many job files at once, dropped while the daemon is stopped; then a restart with all of them queued."""

import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from driving import Box
from torture.drops import SIZE, move_in, one_picture
from torture.keeper import LOOPS, Keeper, patiently
from torture.ledger import Dropped, Ledger, Verdict
from torture.table import Row

SLOW_STEP_SECONDS = "20"
"""The first job is drawn all the while: what is measured is the queue, not the drawing."""


def flood_inbox(where: Path, *, jobs: int = 100_000, seed: int = 1) -> Row:
    """Drop, start, wait until all are queued, look at their order, and start once more."""
    began = time.monotonic()
    box = Box(where / "box", settle_seconds=0.5, RENDER__DRY_RUN_STEP_SECONDS=SLOW_STEP_SECONDS)
    dropping = _timed(lambda: _drop(box.inbox, jobs, seed))
    keeper = Keeper(box, "--dry-run")
    memory = _Memory(keeper)
    with keeper.keeping():
        found = _timed(lambda: patiently(lambda: _drops(box) == 0, memory.look, keeper, patience=1e9, glance=1.0))
        keeper.kill("whole")
    order = _accepted(box)
    verdict, failures = _verdict(box, order, jobs)
    again = _Restart.measure(box, jobs)
    return Row(
        "flood",
        f"{jobs} jobs, found and accepted in order within {found:.0f} s ({found / jobs * 1e3:.1f} ms each); "
        f"memory {memory.said()}. Restart with {jobs} queued: {again.said()}",
        (verdict,),
        time.monotonic() - began,
        failures=(*failures, *again.failures),
        notes=(f"writing the files took {dropping:.0f} s",),
    )


def _drop(inbox: Path, jobs: int, seed: int) -> None:
    """Write page1 … in any order, without waiting for the disk: quick is what a flood must be."""
    numbers = list(range(1, jobs + 1))
    random.Random(seed).shuffle(numbers)
    folder = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY)
    for number in numbers:
        drop = _page(number)
        file = os.open(drop.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
        os.write(file, drop.content)
        os.close(file)
    os.close(folder)


def _page(number: int) -> Dropped:
    return Dropped(f"page {number}.toml", f'# {number}\nprompt = "flood"\n{SIZE}'.encode())


def _drops(box: Box) -> int:
    with os.scandir(box.inbox) as items:
        return sum(1 for item in items if not item.name.startswith("."))


def _accepted(box: Box) -> list[tuple[int, str, str]]:
    """Give what the spool holds in the order of arrival: sequence, job file, hash. A few may be drawn by now."""
    states = ("queue", "active", "rendered", "done/succeeded")
    records = [
        json.loads((folder / "job.json").read_bytes())
        for state in states
        for folder in (box.spool / state).iterdir()
    ]
    return sorted((record["sequence"], record["source"]["path"], record["source"]["sha256"]) for record in records)


def _verdict(box: Box, accepted: list[tuple[int, str, str]], jobs: int) -> tuple[Verdict, list[str]]:
    """Every file must be queued exactly once, in the natural order of the names."""
    names = [name for _, name, _ in accepted]
    numbers = [int(re.sub(r"\D", "", name)) for name in names]
    missing = sorted(set(range(1, jobs + 1)) - set(numbers))
    doubled = sorted({number for number in numbers if numbers.count(number) > 1}) if len(numbers) > jobs else []
    verdict = Verdict(
        dropped=jobs,
        lost=tuple(f"page {number}" for number in missing),
        doubled=tuple(f"page {number}" for number in doubled),
        left=tuple(str(path) for path in (*box.spool.glob("tmp/*"), *box.inbox.glob(".claims/*.json"))),
    )
    failures = [] if numbers == sorted(numbers) else ["the jobs were not accepted in the order of their names"]
    return verdict, failures


@dataclass
class _Restart:
    """A daemon that starts with a long queue: how soon it is there again."""

    rendering: float
    """Seconds until a picture is being drawn."""
    accepting: float
    """Seconds until a job that was dropped at the start is accepted."""
    memory: "_Memory"
    failures: list[str] = field(default_factory=list)

    @classmethod
    def measure(cls, box: Box, jobs: int) -> "_Restart":
        keeper = Keeper(box, "--dry-run")
        memory = _Memory(keeper)
        late = Ledger().note(one_picture(0))
        (box.spool / "state" / "render.json").unlink()
        move_in(box.inbox, late)
        with keeper.keeping():
            began = time.monotonic()
            rendering = accepting = 0.0
            while not (rendering and accepting):
                if time.monotonic() - began > 60 + jobs / 100:
                    return cls(rendering, accepting, memory, ["the daemon did not get going again"])
                memory.look()
                if not rendering and _is_drawing(box):
                    rendering = time.monotonic() - began
                if not accepting and not (box.inbox / late.name).exists():
                    accepting = time.monotonic() - began
                time.sleep(0.05)
            keeper.kill("whole")
        queued = len(_accepted(box))
        failures = [] if queued == jobs + 1 else [f"{queued} of {jobs + 1} jobs survived the restart"]
        return cls(rendering, accepting, memory, failures)

    def said(self) -> str:
        return f"drawing after {self.rendering:.1f} s, accepting after {self.accepting:.1f} s"


def _is_drawing(box: Box) -> bool:
    try:
        return bool(json.loads((box.spool / "state" / "render.json").read_bytes())["activity"] == "rendering")
    except (OSError, ValueError):
        return False


class _Memory:
    """The most that each process held."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._most = dict.fromkeys(("service", *LOOPS), 0)

    def look(self) -> None:
        for name, process in self._keeper.processes().items():
            self._most[name] = max(self._most[name], process.memory_info().rss)

    def said(self) -> str:
        return ", ".join(f"{name} {most >> 20} MiB" for name, most in self._most.items())


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
