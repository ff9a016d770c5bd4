#!/usr/bin/env python3
"""Show the daemon at work: start it on a fresh folder, drop jobs, watch, and say where the pictures are.

The jobs are the files of `jobs_example/`, more that show what the demo model knows, one that redraws a picture
that the demo made before, and one that is wrong on purpose.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from contact_sheet import contact_sheet
from qwen_image_daemon.outbox.results import RESULT, JobResult
from qwen_image_daemon.outbox.status import STATUS, DaemonStatus

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "jobs_example"
SETTINGS = """\
# The settings of make demo: the model that the daemon brings along, and short waits.
root = "{root}"
default_model = "demo"

[inbox]
settle_seconds = 0.5
"""
MORE_JOBS = {
    "wide.toml": 'prompt = "a blue circle left of a yellow star, white background"\naspect_ratio = "16:9"\n',
    "high.toml": 'prompt = "a red triangle above a green square on a white background"\naspect_ratio = "9:16"\n',
    "sweep.toml": 'prompt = "a pink heart on a cyan background"\nnum_images = 6\nseed = 40\n',
}
SOURCE_JOB = "wide"
REDRAW = """\
# A picture that the demo made before, redrawn.
prompt = "a red circle to the left of a red star on a black background"
image = "before.png"
strength = 0.9
seed = 5
"""
BAD = EXAMPLES / "rejected" / "portrait.toml"
LONGEST_SECONDS = 600

console = Console(soft_wrap=True)


def main() -> int:
    """Run the demo, and give the exit code: 0 if every job gave its pictures, and the bad one its complaint."""
    parser = argparse.ArgumentParser(description="Show the daemon at work.")
    parser.add_argument(
        "--root", type=Path, default=REPOSITORY / "demo", help="folder to use; what it holds is deleted"
    )
    root = parser.parse_args().root.absolute()
    _fresh_folder(root)
    inbox = root / "inbox"
    # The others need more models than the one that the daemon brings along, or more time.
    examples = [*sorted(EXAMPLES.glob("0*")), EXAMPLES / "harbour.jpg"]
    jobs = sum(path.suffix in {".toml", ".json"} for path in examples) + len(MORE_JOBS) + len((REDRAW, BAD))
    with (root / "daemon.log").open("wb") as log:
        command = [sys.executable, "-m", "qwen_image_daemon", "run", "--config", str(root / "daemon.toml")]
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for path in [*examples, BAD]:
            shutil.copy(path, inbox)
        for name, text in MORE_JOBS.items():
            (inbox / name).write_text(text, encoding="utf-8")
        console.print(f"Dropping {jobs} jobs into {_short(inbox)}; one of them is wrong on purpose.")
        results = _watch(daemon, root, jobs)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    _report(root, results)
    good = sum(result.status == "succeeded" for result in results)
    return 0 if good == jobs - 1 and len(results) == jobs else 1


def _fresh_folder(root: Path) -> None:
    if root.exists() and not (root / "daemon.toml").is_file():
        sys.exit(f"{root} was not made by this demo, which deletes what its folder holds. Name another --root.")
    shutil.rmtree(root, ignore_errors=True)
    (root / "inbox").mkdir(parents=True)
    (root / "daemon.toml").write_text(SETTINGS.format(root=root), encoding="utf-8")


def _drop_redraw(root: Path, results: list[JobResult]) -> None:
    """Have a picture redrawn as soon as it is there."""
    made = next((result for result in results if result.name == SOURCE_JOB and result.images), None)
    source = root / "inbox" / "before.png"
    if made is not None and not source.exists():
        shutil.copy(_folder(root, made) / made.images[0].file.path, source)
        (root / "inbox" / "redraw.toml").write_text(REDRAW, encoding="utf-8")


def _watch(daemon: "subprocess.Popen[bytes]", root: Path, jobs: int) -> list[JobResult]:
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    end = time.monotonic() + LONGEST_SECONDS
    results: list[JobResult] = []
    with Progress(*columns, console=console) as progress:
        done = progress.add_task("jobs given out", total=jobs)
        picture = progress.add_task("starting", total=1)
        while daemon.poll() is None and time.monotonic() < end and len(results) < jobs:
            results = _results(root)
            _drop_redraw(root, results)
            progress.update(done, completed=len(results))
            description, step, steps = _doing(root)
            progress.update(picture, description=description, completed=step, total=steps)
            time.sleep(0.1)
        progress.update(picture, visible=False)
    return results


def _results(root: Path) -> list[JobResult]:
    found = (root / "outbox").glob(f"[!.]*/*/{RESULT}")
    return sorted((JobResult.model_validate_json(path.read_bytes()) for path in found), key=lambda job: job.id)


def _folder(root: Path, result: JobResult) -> Path:
    return next((root / "outbox").glob(f"[!.]*/*{result.id}"))


def _doing(root: Path) -> tuple[str, int, int]:
    try:
        status = DaemonStatus.model_validate_json((root / "outbox" / STATUS).read_bytes())
    except (OSError, ValueError):
        return "starting", 0, 1
    if status.current is None:
        return status.state, 0, 1
    job = status.current
    return f"drawing {job.name}, picture {job.image} of {job.images}", job.step, job.steps


def _report(root: Path, results: list[JobResult]) -> None:
    for result in results:
        if result.status == "succeeded":
            number = "1 picture" if len(result.images) == 1 else f"{len(result.images)} pictures"
            console.print(f"[green]{result.name}[/]: {number} in {_short(_folder(root, result))}")
        else:
            console.print(
                f"[yellow]{result.name}[/]: {result.status}; read {_short(_folder(root, result) / 'ERROR.txt')}"
            )
    drawn = [result for result in results if result.status == "succeeded" and result.effective is not None]
    sheet = root / "contact-sheet.png"
    pictures = [
        (_folder(root, result) / image.file.path, result.effective.prompt if result.effective else "")
        for result in drawn
        for image in result.images
    ]
    contact_sheet(pictures).save(sheet, optimize=True)
    console.print(
        f"\nThe pictures are in {_short(root / 'outbox')}, all of them on one page in {_short(sheet)}. "
        "They were drawn by a small model that knows coloured shapes and nothing else. "
        f"The daemon's log is {_short(root / 'daemon.log')}."
    )


def _short(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    sys.exit(main())
