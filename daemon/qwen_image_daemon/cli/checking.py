"""`check`: the daemon's complaints before the file is dropped."""

from pathlib import Path

import typer

from qwen_image_daemon.cli.reading_settings import settings_or_exit
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.models import source_images
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.problems import Problem, Rejection
from qwen_image_daemon.jobs.quoting import key_name
from qwen_image_daemon.jobs.reading import read_job

FINE, FAULTY = 0, 1


def check_files(files: list[Path], config: Path | None) -> int:
    """Print the complaints about each file, and give the exit code."""
    catalogue = settings_or_exit(None, config).catalogue
    code = FINE
    for file in files:
        complaints = _check(file, catalogue)
        if complaints is None:
            typer.echo(f"{file}: fine.")
        else:
            typer.echo(str(complaints))
            code = FAULTY
    return code


def _check(file: Path, catalogue: Catalogue) -> Rejection | None:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_JOB_BYTES + 1)
    except OSError as error:
        return Rejection((Problem(str(file), f"cannot be read: {error.strerror}.", "Check the path."),))
    job = read_job(content, file.name, catalogue)
    if isinstance(job, Rejection):
        return job
    problems = tuple(
        Problem(
            f"{file.name}: {key_name(image.setting)}",
            f"{image.path} is not there.",
            "The daemon waits until it is dropped beside the job.",
        )
        for image in source_images(job)
        if not (file.parent / image.path).is_file()
    )
    return Rejection(problems) if problems else None
