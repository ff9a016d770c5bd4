"""The power goes: at random moments the disk is kept as it is just then, and another daemon goes on from there.

An XFS that shares blocks between copies holds the image of the disk under test, an ext4. A copy of the image by
`cp --reflink` is what a cut leaves behind: what was written to the disk until then, and nothing that was still in
memory. (Each write that was issued is kept, in order: a disk that lies about its cache is not what is tried here.)
"""

import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from driving import Box
from torture.drops import in_any_way, mixture
from torture.keeper import Keeper, patiently
from torture.ledger import Ledger, Verdict
from torture.mounts import WITHOUT_WATERMARK, ext4, lacking, mounted, xfs
from torture.table import Row

XFS_MEBIBYTES = 4096
DISK_MEBIBYTES = 512
DROPS_PER_SECOND = 10.0
MOST_ON_THEIR_WAY = 30


def cut_power(where: Path, *, cuts: int = 50, spool_only: bool = False, pause: float = 1.0, seed: int = 1) -> Row:
    """Cut so often, about `pause` seconds apart, while jobs are dropped.

    With `spool_only` inbox and outbox are on a server that goes on: its folders keep what was renamed last.
    """
    if reason := lacking("mkfs.ext4", "mkfs.xfs"):
        return Row.left_out("power", reason)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(mounted(xfs(where / "outer.img", XFS_MEBIBYTES), where / "outer"))
        cutting = Cutting(where, spool_only=spool_only, chance=random.Random(seed))
        verdicts = cutting.run(cuts, pause)
    met = sum(cutting.met)
    place = "the spool alone" if spool_only else "inbox, spool and outbox"
    return Row(
        "power, spool" if spool_only else "power",
        f"{cuts} cuts of {place}, {met} jobs on their way "
        f"at the cuts, {sum(verdict.dropped for verdict in verdicts)} drops checked",
        tuple(verdicts),
        time.monotonic() - began,
        failures=tuple(cutting.failures),
    )


class Cutting:
    """A daemon that works on a disk, and what is left of it at each cut."""

    def __init__(self, where: Path, *, spool_only: bool, chance: random.Random) -> None:
        self._where = where
        self._spool_only = spool_only
        self._chance = chance
        self._disk = ext4(where / "outer" / "disk.img", DISK_MEBIBYTES)
        self._ledger = Ledger()
        self._certain: set[str] = set()
        """Names whose drop had returned: from then on they must not get lost."""
        self._dropping = threading.Lock()
        """Held during each drop, where a folder is copied file by file."""
        self._ended = threading.Event()
        self.met: list[int] = []
        self.failures: list[str] = []

    def run(self, cuts: int, pause: float) -> list[Verdict]:
        """Work, cut again and again, and compare each time."""
        with ExitStack() as stack:
            live = self._where / "live"
            stack.enter_context(mounted(self._disk, live / "spool" if self._spool_only else live))
            box = self._box(live if self._spool_only else live / "box")
            keeper = Keeper(box, "--dry-run", "--inline")
            stack.enter_context(keeper.keeping())
            dropping = threading.Thread(target=self._drop, args=(box,))
            dropping.start()
            try:
                patiently(lambda: self._ledger.out(box) > 0, lambda: self._ledger.out(box), keeper)
                return [self._cut(number, keeper, pause) for number in range(cuts)]
            finally:
                self._ended.set()
                dropping.join()

    def _cut(self, number: int, keeper: Keeper, pause: float) -> Verdict:
        time.sleep(self._chance.uniform(0.2, 1.8) * pause)
        certain = set(self._certain)
        with self._kept(number, keeper) as box:
            known = dict(self._ledger.dropped)
            self.met.append(len(certain) - self._ledger.out(box))
            ran = box.call("run", "--dry-run", "--inline", "--once")
            # 1 says that some were refused, as they had to be.
            if ran.returncode not in {0, 1}:
                self.failures.append(f"cut {number}: exit code {ran.returncode}: {ran.stderr[-500:]}")
            return Ledger(dropped=known, uncertain=known.keys() - certain).verdict([box])

    @contextmanager
    def _kept(self, number: int, keeper: Keeper) -> Iterator[Box]:
        """Give a box as it is after the cut."""
        image, root = self._where / "outer" / f"cut-{number}.img", self._where / f"cut-{number}"
        if self._spool_only:
            # The daemon is gone at the same moment in which the server's folders are looked at.
            keeper.freeze(signal.SIGSTOP)
            _copy(self._disk, image)
            root.mkdir()
            with self._dropping:
                for name in ("inbox", "outbox"):
                    subprocess.run(["cp", "-a", str(keeper.box.root / name), str(root)], check=True)
            keeper.freeze(signal.SIGCONT)
        else:
            _copy(self._disk, image)
        with mounted(image, root / "spool" if self._spool_only else root):
            yield self._box(root if self._spool_only else root / "box")
        image.unlink()

    def _on_their_way(self, box: Box) -> int:
        return len(self._certain) - self._ledger.out(box)

    def _box(self, root: Path) -> Box:
        quick = {"INBOX__RESCAN_SECONDS": "0.3", "RENDER__DRY_RUN_STEP_SECONDS": "0.001"}
        return Box(root, settle_seconds=0.05, **quick, **WITHOUT_WATERMARK)

    def _drop(self, box: Box) -> None:
        chance = random.Random(self._chance.random())
        for drop in mixture(1_000_000):
            # On a busy machine drops would pile up, and each cut take longer than the one before.
            while (
                self._ended.wait(chance.uniform(0, 2 / DROPS_PER_SECOND))
                or self._on_their_way(box) > MOST_ON_THEIR_WAY
            ):
                if self._ended.is_set():
                    return
            with self._dropping:
                in_any_way(box.inbox, self._ledger.note(drop), chance)
            self._certain.add(drop.name)


def _copy(disk: Path, image: Path) -> None:
    subprocess.run(["cp", "--reflink=always", str(disk), str(image)], check=True)
