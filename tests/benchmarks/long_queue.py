#!/usr/bin/env python3
"""What a long queue costs: the start of a loop that reads it, each job taken from it, and each look of the status.

`--jobs 100000` entries are made in a temporary folder (`--folder` chooses where), without syncing. Every figure is
also given per job. `now` against `as before` compares one job taken with listing and sorting everything for each.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qwen_image_daemon.service.board import Board
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.identity import new_id
from qwen_image_daemon.spool.spool import Spool
from qwen_image_daemon.spool.waiting import WaitingJobs
from rooms import SMALL, Rooms

TAKEN = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        spool = filled(Path(folder), arguments.jobs)
        measure(spool, arguments.jobs)


def filled(root: Path, jobs: int) -> Spool:
    """Make a queue of so many jobs."""
    rooms = Rooms(root)
    record = rooms.admit("job", f'prompt = "a red circle on a blue background"\n{SMALL}').record()
    text = record.to_bytes().decode()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(1, jobs):
        job_id = new_id(start + timedelta(milliseconds=number))
        folder = rooms.spool.queue / job_id
        folder.mkdir()
        content = text.replace(record.id, job_id).replace('"sequence": 1', f'"sequence": {number + 1}')
        (folder / "job.json").write_text(content)
    return rooms.spool


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident_mib() -> float:
    """Give the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(spool: Spool, jobs: int) -> None:
    """Measure one queue."""
    before = resident_mib()
    sequence = timed(spool.next_sequence)
    print(f"next sequence at the start: {sequence:.2f} s, {sequence / jobs * 1e6:.0f} µs a job")
    waiting = WaitingJobs(spool)
    first = timed(waiting.refresh)
    print(
        f"index at the start: {first:.2f} s, {first / jobs * 1e6:.0f} µs a job; {resident_mib() - before:.0f} MiB"
    )

    def take_one() -> None:
        job = waiting.refresh()[0]
        waiting.forget(job.id)
        spool.take(Entry(spool.queue / job.id))

    def look_at_all() -> None:
        waiting.expire()
        sorted(waiting.refresh(), key=lambda job: (-job.priority, job.sequence, job.id))

    now = [timed(take_one) for _ in range(TAKEN)]
    before_it = [timed(look_at_all) for _ in range(5)]
    print(
        f"one job taken: median {statistics.median(now) * 1e3:.3f} ms, mean {statistics.mean(now) * 1e3:.3f} ms; "
        f"listing and sorting everything, as before: {statistics.median(before_it) * 1e3:.0f} ms "
        f"({statistics.median(before_it) / statistics.mean(now):.0f} times the mean)"
    )
    board = Board(spool)
    looks = [timed(lambda: board.update("rendering", ())) for _ in range(20)]
    print(f"first looks of the status: median {statistics.median(looks):.3f} s, longest {max(looks):.3f} s")


if __name__ == "__main__":
    main()
