"""An inbox that goes away: deleted and made again, renamed away and back, unmounted and mounted again."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from driving import Box
from torture.drops import copy_in, mixture
from torture.keeper import Keeper, patiently
from torture.ledger import Ledger, Verdict
from torture.mounts import ext4, lacking, mount, mounted, unmount
from torture.table import Row
from torture.watcher import Watcher

DISK_MEBIBYTES = 32


def take_inbox_away(where: Path, *, jobs: int = 30, seconds: float = 60.0) -> Row:
    """Let the inbox be away for so many seconds in each way, with drops before, meanwhile and after."""
    if reason := lacking("mkfs.ext4"):
        return Row.left_out("inbox", reason)
    began = time.monotonic()
    # Deleting and renaming are over at once for whoever does them; only a mount stays away for long.
    work = [
        Absence(where / "deleted", jobs, deleted, min(seconds, 10.0)),
        Absence(where / "renamed", jobs, renamed, min(seconds, 10.0)),
        Absence(where / "unmounted", jobs, unmounted, seconds, on_disk=True),
    ]
    with ThreadPoolExecutor(len(work)) as threads:
        ends = list(threads.map(Absence.run, work))
    return Row(
        "inbox",
        f"deleted and made again, renamed away and back, unmounted for {seconds:.0f} s; {len(work) * jobs} jobs; "
        f"all out at most {max(end.recovery_seconds for end in ends):.1f} s after it was back",
        tuple(end.verdict for end in ends),
        time.monotonic() - began,
        failures=tuple(failure for end in ends for failure in end.failures),
    )


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of one absence."""

    verdict: Verdict
    recovery_seconds: float
    failures: tuple[str, ...]


Drop = Callable[[Path], None]
"""Drops one more job into a folder."""


class Absence:
    """One box whose inbox goes away in one way."""

    def __init__(
        self,
        root: Path,
        jobs: int,
        away: Callable[["Absence", Drop], Iterator[None]],
        seconds: float,
        *,
        on_disk: bool = False,
    ) -> None:
        self.box = Box(root, settle_seconds=0.1)
        self.image = ext4(root / "disk.img", DISK_MEBIBYTES)
        self.elsewhere = root / "elsewhere"
        self.failures: list[str] = []
        self._jobs = jobs
        self._away = contextmanager(away)
        self._seconds = seconds
        self._on_disk = on_disk

    def run(self) -> Returned:
        """Work, lose the inbox for a while, and get it back."""
        box, ledger = self.box, Ledger()
        keeper = Keeper(box, "--dry-run")
        drops = mixture(self._jobs)

        def drop(folder: Path) -> None:
            copy_in(folder, ledger.note(next(drops)))

        with ExitStack() as stack:
            if self._on_disk:
                stack.enter_context(mounted(self.image, box.inbox))
            watcher = stack.enter_context(Watcher().watching(box.outbox, box.root / "watcher.json"))
            stack.enter_context(keeper.keeping())
            self._drop_and_see_out(ledger, keeper, lambda: drop(box.inbox), self._jobs // 3)
            with self._away(self, drop):
                time.sleep(self._seconds)
            back = time.monotonic()
            self._drop_and_see_out(ledger, keeper, lambda: drop(box.inbox), self._jobs - len(ledger.dropped))
            recovery = time.monotonic() - back
            if (code := keeper.stop()) != 0 or keeper.starts > 1:
                self.failures.append(f"{box.root.name}: {keeper.starts} starts, exit code {code}")
            verdict = ledger.verdict([box], watcher.torn)
        return Returned(verdict, recovery, tuple(self.failures))

    def _drop_and_see_out(self, ledger: Ledger, keeper: Keeper, drop: Callable[[], None], jobs: int) -> None:
        for _ in range(jobs):
            drop()
        if not patiently(
            lambda: ledger.out(self.box) >= len(ledger.dropped), lambda: ledger.out(self.box), keeper
        ):
            self.failures.append(f"{self.box.root.name}: the jobs did not come out")


def deleted(absence: Absence, drop: Drop) -> Iterator[None]:
    """Delete the inbox with everything in it, and make it again, with a drop in it."""
    inbox = absence.box.inbox
    # Gone by one rename: the daemon must not write into it while it is being emptied.
    inbox.rename(absence.elsewhere)
    shutil.rmtree(absence.elsewhere)
    yield
    inbox.mkdir(exist_ok=True)
    drop(inbox)


def renamed(absence: Absence, drop: Drop) -> Iterator[None]:
    """Rename it away, drop into it there, and rename it back, as `mv` does it."""
    inbox, elsewhere = absence.box.inbox, absence.elsewhere
    inbox.rename(elsewhere)
    yield
    drop(elsewhere)
    if inbox.exists():
        # Somebody made a new one in between: it goes, unless it holds anybody's drops.
        absence.failures += [f"renamed: {path.name} in the new inbox" for path in inbox.glob("[!.]*")]
        shutil.rmtree(inbox)
    elsewhere.rename(inbox)


def unmounted(absence: Absence, drop: Drop) -> Iterator[None]:
    """Unmount it, drop into it where it is mounted instead, and mount it back. The bare folder must stay empty."""
    inbox = absence.box.inbox
    unmount(inbox)
    with mounted(absence.image, absence.elsewhere):
        drop(absence.elsewhere)
        yield
    absence.failures += [f"unmounted: {path} was written below the bare mount point" for path in inbox.iterdir()]
    mount(absence.image, inbox)
