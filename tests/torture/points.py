"""SIGKILL at every named crash point, three times each, with loops as processes and as threads."""

import re
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from driving import Box
from qwen_image_daemon.crash_points import CRASH_AT, CRASH_LEDGER
from torture.drops import batch, by_recipe, copy_in, folder, one_picture, refused, several_pictures, with_source
from torture.keeper import Keeper, patiently
from torture.ledger import Ledger, Verdict
from torture.table import Row
from torture.watcher import Watcher

REPOSITORY = Path(__file__).resolve().parents[2]
DECISION = REPOSITORY / "docs" / "decisions" / "0007-crash-points.md"
_AT_ONCE = 3
_MODES = ("processes", "threads")


def listed_points() -> list[str]:
    """Give the names that the decision lists, in the order of the flow."""
    return re.findall(r"^\| `([a-z-]+\.[a-z-]+)` \|", DECISION.read_text(encoding="utf-8"), re.MULTILINE)


def coded_points() -> set[str]:
    """Give the names that stand in the code."""
    sources = (REPOSITORY / "daemon").rglob("*.py")
    return {name for path in sources for name in re.findall(r'crash_point\("([^"]+)"\)', path.read_text("utf-8"))}


def kill_at_points(
    where: Path, *, times: int = 3, points: Sequence[str] = (), modes: Collection[str] = _MODES
) -> Row:
    """Kill so many times at each point, and see that each was hit so often."""
    began = time.monotonic()
    names = points or listed_points()
    work = [
        Pointed(where / f"{name}-{mode}", name, times, inline=mode == "threads")
        for name, mode in product(names, modes)
    ]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        ends = list(threads.map(Pointed.run, work))
    unlisted = coded_points() ^ set(listed_points())
    hits, dropped = sum(end.hits for end in ends), sum(end.verdict.dropped for end in ends)
    return Row(
        "points",
        f"{len(names)} points, {times} kills at each, loops as {' and as '.join(modes)}: {hits} kills, "
        f"{dropped} jobs, "
        f"{sum(end.verdict.set_aside for end in ends)} set aside",
        tuple(end.verdict for end in ends),
        time.monotonic() - began,
        failures=(
            *(f"{name}: in the code or in the decision, not in both" for name in sorted(unlisted)),
            *(failure for end in ends for failure in end.failures),
        ),
    )


@dataclass(frozen=True, slots=True)
class Hit:
    """What came of one point."""

    verdict: Verdict
    hits: int
    failures: tuple[str, ...]


class Pointed:
    """One box whose daemon dies at one point."""

    def __init__(self, root: Path, point: str, times: int, *, inline: bool) -> None:
        self._box = Box(root, settle_seconds=0.1, INBOX__RESCAN_SECONDS="0.3")
        self._point = point
        self._times = times
        self._inline = inline
        self._kills = root / "kills"

    def run(self) -> Hit:
        """Drop a few of each kind, let it die, and see everything out."""
        box = self._box
        # The render process may die twice with one job, but the daemon must die five times with it.
        ledger = Ledger(may_be_set_aside=not self._inline and self._point.startswith("render."))
        armed = {CRASH_AT: f"{self._point}:{self._times}", CRASH_LEDGER: str(self._kills)}
        keeper = Keeper(box, "--dry-run", *(["--inline"] if self._inline else []), environment=armed)
        drops = [
            one_picture(1),
            refused(2),
            several_pictures(3, pictures=3),
            with_source(4),
            folder(5),
            by_recipe(6),
        ]
        drops += batch(7)
        with Watcher().watching(box.outbox, box.root / "watcher.json") as watcher:
            for drop in drops:
                copy_in(box.inbox, ledger.note(drop))
            with keeper.keeping():
                finished = patiently(
                    lambda: ledger.out(box) >= len(drops) and not ledger.left(box),
                    lambda: (ledger.out(box), self._hits()),
                    keeper,
                    patience=60.0,
                )
                # The last point lies behind the last result: it may be on its way still.
                patiently(lambda: self._hits() >= self._times, self._hits, keeper, patience=3.0)
                keeper.stop()
        verdict = ledger.verdict([box], watcher.torn)
        failures = [] if finished else ["the jobs did not come out"]
        if self._hits() != self._times:
            failures.append(f"hit {self._hits()} times instead of {self._times}")
        if verdict.set_aside > 1:
            failures.append(f"{verdict.set_aside} jobs were set aside for {self._times} kills")
        return Hit(verdict, self._hits(), tuple(f"{box.root.name}: {failure}" for failure in failures))

    def _hits(self) -> int:
        return len(self._kills.read_text().splitlines()) if self._kills.exists() else 0
