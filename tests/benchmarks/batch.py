#!/usr/bin/env python3
"""What one file with many jobs costs the take-in: from the file in the inbox to all its jobs in the queue.

`--jobs 1000` jobs come from one sweep; `--folder` chooses the disk. Everything is synced as in the daemon. With
`--single`, the same number of files with one job each is taken in for comparison.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rooms import SMALL, Rooms


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--single", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(processors=[structlog.processors.JSONRenderer()], logger_factory=_silent)
    seeds = ", ".join(map(str, range(arguments.jobs)))
    batch = f'prompt = "a red circle on a blue background"\n{SMALL}[matrix]\nseed = [{seeds}]\n'
    print(f"one file: {_timed(arguments.folder, {'sweep': batch}, arguments.jobs)}")
    if arguments.single:
        jobs = {
            f"job{number}": f'prompt = "a red circle"\nseed = {number}\n{SMALL}'
            for number in range(arguments.jobs)
        }
        print(f"as many files: {_timed(arguments.folder, jobs, arguments.jobs)}")


def _silent(*_: object) -> structlog.PrintLogger:
    return structlog.PrintLogger(Path("/dev/null").open("w", encoding="utf-8"))


def _timed(where: Path | None, files: dict[str, str], jobs: int) -> str:
    with tempfile.TemporaryDirectory(dir=where) as folder:
        rooms = Rooms(Path(folder))
        for name, text in files.items():
            rooms.drop(f"{name}.toml", text)
        started, worked = time.perf_counter(), time.process_time()
        rooms.take_in()
        taken, worked = time.perf_counter() - started, time.process_time() - worked
        assert len(rooms.queued()) == jobs
    return f"{taken:.2f} s, {taken / jobs * 1e3:.2f} ms a job ({worked / jobs * 1e3:.2f} ms of CPU time)"


if __name__ == "__main__":
    main()
