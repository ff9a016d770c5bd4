"""The folder of a batch in `incoming`: complete entries, committed together, let into the queue one by one.

`<batch id>/jobs/<id>/` holds one job's entry each. While they are let in, `jobs` is called `let-in`: from
then on the batch is ours, whatever has become of its drop.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.spool.durable import sync_folder

JOBS: Final = "jobs"
LET_IN: Final = "let-in"


def is_batch_folder(folder: Path) -> bool:
    """Say whether an entry of `incoming` holds the jobs of a batch."""
    return (folder / JOBS).is_dir() or is_being_let_in(folder)


def is_being_let_in(folder: Path) -> bool:
    """Say whether some of its jobs may be in the queue already."""
    return (folder / LET_IN).is_dir()


def let_in_batch(folder: Path, state_of: Callable[[Path], Path], gone: Path) -> None:
    """Move each job of a batch to the state that it is for, and remove the batch. Safe to repeat.

    `gone` is where its folder is moved to before it is deleted: half of it must not pass for a job.
    """
    jobs = folder / LET_IN
    if not jobs.is_dir():
        (folder / JOBS).rename(jobs)
        sync_folder(folder)
    crash_point("take-in.batch-opened")
    states = set()
    for job in sorted(jobs.iterdir()):
        state = state_of(job)
        job.rename(state / job.name)
        states.add(state)
        crash_point("take-in.batch-job-queued")
    # As with a single job: the targets first, so that a power cut leaves a job under both names or the new one.
    for changed in (*states, jobs):
        sync_folder(changed)
    crash_point("take-in.batch-queued")
    folder.rename(gone)
    shutil.rmtree(gone)
