"""Jobs that kill or hang the renderer among jobs that do not."""

import time
from pathlib import Path

from driving import Box
from torture.drops import SIZE, move_in, one_picture
from torture.keeper import Keeper, patiently
from torture.ledger import Dropped, Ledger
from torture.poisoned_daemon import HANGS, KILLS
from torture.table import Row
from torture.watcher import Watcher

LAUNCHER = Path(__file__).with_name("poisoned_daemon.py")


def poison_jobs(where: Path, *, jobs: int = 200, one_in: int = 10, step_timeout_seconds: float = 2.0) -> Row:
    """Make one job in ten deadly: half of these kill the render process, half make it hang."""
    began = time.monotonic()
    box = Box(where / "box", settle_seconds=0.1, RENDER__STEP_TIMEOUT_SECONDS=str(step_timeout_seconds))
    ledger = Ledger()
    keeper = Keeper(box, "--dry-run", program=[str(LAUNCHER)])
    with Watcher().watching(box.outbox, box.root / "watcher.json") as watcher, keeper.keeping():
        for number in range(jobs):
            deadly = number % one_in == one_in // 2
            prompt = (KILLS, HANGS)[number // one_in % 2]
            move_in(box.inbox, ledger.note(_deadly(number, prompt) if deadly else one_picture(number)))
        finished = patiently(lambda: ledger.out(box) >= jobs, lambda: ledger.out(box), keeper, glance=0.2)
        code = keeper.stop()
    verdict = ledger.verdict([box], watcher.torn)
    poisoned = sum(drop.status == "failed" for drop in ledger.dropped.values())
    return Row(
        "poison",
        f"{jobs} jobs, {poisoned} of them kill or hang the renderer; {verdict.set_aside} given up with a report, "
        f"{verdict.attempts} attempts, {keeper.starts} start of the daemon",
        (verdict,),
        time.monotonic() - began,
        failures=tuple(_failures(box, finished=finished, code=code, starts=keeper.starts)),
    )


def _failures(box: Box, *, finished: bool, code: int | None, starts: int) -> list[str]:
    failures = [] if finished else ["the jobs did not come out"]
    if starts > 1 or code != 0:
        failures.append(f"the daemon itself ended: {starts} starts, exit code {code}")
    letters = [(folder / "ERROR.txt") for folder in box.failed.iterdir()]
    failures += [f"{letter} says nothing" for letter in letters if not letter.is_file()]
    return failures


def _deadly(number: int, prompt: str) -> Dropped:
    content = f'# {number}\nprompt = "{prompt}"\n{SIZE}'.encode()
    # In its place among the others: ten deaths in a row are taken for the box's fault, not the jobs'.
    return Dropped(f"one-{number}-deadly.toml", content, status="failed")
