#!/usr/bin/env python3
"""How long one job takes through the folders: from the drop to accepted, and to published. Medians of 20.

The dry-run renderer draws in no time, so this is the daemon's own share. Dropped by rename: taken at once;
dropped by copy: the settling time (2 s by default) is part of it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from driving import Box, eventually

JOBS = 20
JOB = 'prompt = "a red circle"\nwidth = 128\nheight = 128\n'


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        box = Box(Path(folder) / "box", settle_seconds=2.0)
        with box.running("--dry-run"):
            box.move_in("warm-up.toml", JOB)
            box.result("warm-up")
            for how in ("renamed", "copied"):
                accepted, published = zip(*(one(box, how, k) for k in range(JOBS)), strict=True)
                print(
                    f"{how}: drop to accepted {statistics.median(accepted):.3f} s, "
                    f"drop to published {statistics.median(published):.3f} s (medians of {JOBS})"
                )


def one(box: Box, how: str, number: int) -> tuple[float, float]:
    """Drop one job, and give the seconds to accepted and to published."""
    name = f"{how}-{number}"
    started = time.perf_counter()
    (box.move_in if how == "renamed" else box.drop)(f"{name}.toml", JOB)
    eventually(lambda: list((box.inbox / ".taken").glob(f"*-{name}.toml")), "the job to be taken")
    accepted = time.perf_counter() - started
    eventually(lambda: list(box.outbox.glob(f"2*/{name}-2*/result.json")), "the result")
    return accepted, time.perf_counter() - started


if __name__ == "__main__":
    main()
