"""SIGKILL at random moments: of the whole daemon, of its service, of one loop."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from driving import Box
from torture.drops import in_any_way, mixture
from torture.keeper import Keeper, Kill, patiently
from torture.ledger import Dropped, Ledger, Verdict
from torture.table import Row
from torture.watcher import Watcher

PROCESSES: dict[Kill, int] = {"whole": 2, "service": 1, "take-in": 2, "render": 2, "give-out": 2}
"""How often each is killed where loops are processes; where they are threads, all die together."""
THREADS: dict[Kill, int] = {"whole": 1}
STEP_SECONDS = "0.001"


def kill_with_model(where: Path, *, kills: int = 30, jobs: int = 60, boxes: int = 1) -> Row:
    """Do the same while the tiny checkpoint draws, of the real classes."""
    tool = Path(__file__).resolve().parents[2] / "tools" / "tiny_checkpoint.py"
    subprocess.run(
        [sys.executable, str(tool), "qwen-image", str(where / "checkpoint")], check=True, capture_output=True
    )
    return kill_at_random(where, kills=kills, jobs=jobs, boxes=boxes, model=where / "checkpoint")


@dataclass(frozen=True, slots=True)
class Harried:
    """What came of one box."""

    verdict: Verdict
    kills: Counter[str]
    starts: int
    looks: int
    finished: bool


def kill_at_random(
    where: Path, *, kills: int = 1000, jobs: int = 3000, boxes: int = 4, seed: int = 1, model: Path | None = None
) -> Row:
    """Kill so often while so many jobs go through, spread over boxes beside each other.

    Every second box runs its loops as threads: that daemon starts four times as fast. With a model, its pictures
    are real ones.
    """
    began = time.monotonic()
    share = [(number, kills * (number + 1) // boxes - kills * number // boxes) for number in range(boxes)]
    work = [
        Harrying(
            where / f"box{number}",
            kills=killed,
            jobs=-(-jobs // boxes),
            inline=number % 2 == 1,
            chance=random.Random(f"{seed}-{number}"),
            model=model,
        )
        for number, killed in share
    ]
    with ThreadPoolExecutor(boxes) as threads:
        ends = list(threads.map(Harrying.run, work))
    met = sum((end.kills for end in ends), Counter[str]())
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(met.items()))
    verdicts = tuple(end.verdict for end in ends)
    dropped, aside = sum(v.dropped for v in verdicts), sum(v.set_aside for v in verdicts)
    return Row(
        "kills" if model is None else "kills, real model",
        f"{met.total()} kills ({kinds}), {dropped} jobs, {sum(end.starts for end in ends)} starts, "
        f"{aside} set aside, {sum(end.looks for end in ends)} looks at the outbox",
        verdicts,
        time.monotonic() - began,
        failures=tuple(f"box {n}: the jobs did not come out" for n, end in enumerate(ends) if not end.finished),
    )


class Harrying:
    """One box whose daemon is killed again and again."""

    def __init__(
        self, root: Path, *, kills: int, jobs: int, inline: bool, chance: random.Random, model: Path | None
    ) -> None:
        self._box = Box(root, settle_seconds=0.05, INBOX__RESCAN_SECONDS="0.3")
        self._box._environment["RENDER__DRY_RUN_STEP_SECONDS"] = STEP_SECONDS
        arguments = ["--inline"] if inline else []
        if model is None:
            arguments.append("--dry-run")
        else:
            self._box.use_model(model)
        self._keeper = Keeper(self._box, *arguments)
        self._kinds = THREADS if inline else PROCESSES
        self._pause = (0.9 if inline else 1.4) if model is None else 5.0
        self._kills = kills
        self._jobs = jobs
        self._chance = chance
        self._ledger = Ledger(may_be_set_aside=True)
        self._met: Counter[str] = Counter()

    def run(self) -> Harried:
        """Drop, kill, wait for the rest, and compare."""
        box, ledger = self._box, self._ledger
        with (
            Watcher().watching(box.outbox, box.root / "watcher.json") as watcher,
            self._keeper.keeping() as keeper,
        ):
            dropping = threading.Thread(target=self._drop_all)
            dropping.start()
            self._kill_all()
            dropping.join()
            finished = patiently(
                lambda: ledger.out(box) >= len(ledger.dropped), lambda: ledger.out(box), keeper, glance=0.5
            )
            keeper.stop()
        return Harried(
            ledger.verdict([box], watcher.torn), self._met, self._keeper.starts, watcher.looks, finished
        )

    def _kill_all(self) -> None:
        for kind in self._kinds_to_kill():
            while not self._kill_once(kind):
                pass

    def _kill_once(self, kind: Kill) -> bool:
        self._keeper.ensure()
        # Some come while it starts, most while it works.
        time.sleep(self._chance.expovariate(1 / self._pause))
        met = self._keeper.kill(kind)
        self._met[kind] += met
        return met

    def _kinds_to_kill(self) -> Iterator[Kill]:
        kinds, weights = zip(*self._kinds.items(), strict=True)
        yield from self._chance.choices(kinds, weights, k=self._kills)

    def _drop_all(self) -> None:
        """Drop in step with the kills, in bursts, so that there is always something to meet."""
        drops: list[Dropped] = list(mixture(self._jobs))
        chance = random.Random(self._chance.random())
        for number, drop in enumerate(drops):
            while self._met.total() < min(self._kills, self._kills * number // len(drops)):
                time.sleep(0.02)
            in_any_way(self._box.inbox, self._ledger.note(drop), chance)
