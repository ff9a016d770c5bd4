"""`check`: the daemon's complaints before the file is dropped, and with `--expand` what would be drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from qwen_image_daemon.cli.reading_settings import settings_or_exit
from qwen_image_daemon.jobs.batches import Batch, PromptList, WantsList
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.models import AnyJob, source_images
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.problems import Problem, Rejection
from qwen_image_daemon.jobs.prompt_lists import MAX_LIST_BYTES
from qwen_image_daemon.jobs.quoting import key_name
from qwen_image_daemon.jobs.reading import read_drop

FINE, FAULTY = 0, 1


def check_files(files: list[Path], config: Path | None) -> int:
    """Print the complaints about each file, and give the exit code."""
    catalogue = settings_or_exit(None, config).catalogue
    code = FINE
    for file in files:
        checked = check_file(file, catalogue)
        if checked.problems:
            typer.echo(str(Rejection(checked.problems)))
            code = FAULTY
        else:
            jobs = f" {len(checked.read.jobs):,} jobs." if isinstance(checked.read, Batch) else ""
            typer.echo(f"{file}: fine.{jobs}")
    return code


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that was read as the daemon would read it, and what it would complain about."""

    read: AnyJob | Batch | None
    """None where the file is refused."""
    problems: tuple[Problem, ...]


def check_file(file: Path, catalogue: Catalogue) -> Checked:
    """Read a job file with the prompt list beside it, and look for its pictures."""
    content = _content(file, MAX_JOB_BYTES)
    if isinstance(content, Problem):
        return Checked(None, (content,))
    read = read_drop(content, file.name, catalogue)
    if isinstance(read, WantsList):
        listed = _content(file.parent / read.name, MAX_LIST_BYTES)
        if isinstance(listed, Problem):
            return Checked(None, (_missing(f"{file.name}: prompts_from", read.name),))
        read = read_drop(content, file.name, catalogue, PromptList(read.name, listed))
        # The file names the list that was given.
        assert not isinstance(read, WantsList)
    if isinstance(read, Rejection):
        return Checked(None, read.problems)
    left_out = read.problems if isinstance(read, Batch) else ()
    return Checked(read, (*left_out, *dict.fromkeys(_missing_pictures(file, read))))


def jobs_of(read: AnyJob | Batch) -> list[AnyJob]:
    """Give the jobs of a file, one or many."""
    return [batched.job for batched in read.jobs] if isinstance(read, Batch) else [read]


def _content(file: Path, most: int) -> bytes | Problem:
    try:
        with file.open("rb") as opened:
            # One byte more than is allowed shows the reader that it is too long.
            return opened.read(most + 1)
    except OSError as error:
        return Problem(str(file), f"cannot be read: {error.strerror}.", "Check the path.")


def _missing_pictures(file: Path, read: AnyJob | Batch) -> Iterator[Problem]:
    for job in jobs_of(read):
        for image in source_images(job):
            if not (file.parent / image.path).is_file():
                yield _missing(f"{file.name}: {key_name(image.setting)}", image.path)


def _missing(where: str, name: str) -> Problem:
    return Problem(where, f"{name} is not there.", "The daemon waits until it is dropped beside the job.")
