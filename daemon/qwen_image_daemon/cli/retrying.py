"""`retry`: a failed or cancelled job goes back into the inbox."""

from pathlib import Path

import typer

from qwen_image_daemon.cli.asking import DONE, not_done, spool_or_exit
from qwen_image_daemon.cli.reading_settings import WRONG_USE, settings_or_exit
from qwen_image_daemon.outbox.retrying import retry, retryable
from qwen_image_daemon.service.naming import NamedJob, NotOneJob, batch_named, the_one
from qwen_image_daemon.settings import Folders
from qwen_image_daemon.spool.identity import ID_LENGTH, time_of_id
from qwen_image_daemon.spool.places import Place


def retry_job(word: str, root: Path | None, config: Path | None) -> int:
    """Move one result folder, or all of a batch, back into the inbox, and give the exit code."""
    folders = settings_or_exit(root, config).folders
    try:
        # Nothing is made below the bare mount point of a share that is away.
        Place("inbox", folders.inbox, spool_or_exit(folders.spool)).enter()
        results = {job_id: (name, folder) for job_id, name, folder in retryable(folders.outbox)}
        batch = batch_named(word, (_batch_of(folder) for _, folder in results.values()))
        if batch is not None:
            jobs = [folder for _, folder in results.values() if folder.parent.name == batch]
            for folder in jobs:
                _back(folder, folders)
            typer.echo(f"{len(jobs)} jobs of {batch} are in the inbox again.")
            return DONE
        job = the_one(word, (NamedJob(job_id, name) for job_id, (name, _) in results.items()))
        _, folder = results[job.id]
        target = _back(folder, folders)
    except NotOneJob as reason:
        typer.echo(str(reason), err=True)
        return WRONG_USE
    except OSError as error:
        return not_done(error)
    typer.echo(f"{job.id} ({job.name}) is in the inbox again: {target}")
    return DONE


def _back(folder: Path, folders: Folders) -> Path:
    """Move a result to where it was dropped: the outbox mirrors the inbox's folders below its shelves."""
    _, *mirrored = folder.relative_to(folders.outbox).parent.parts
    place = folders.inbox.joinpath(*mirrored)
    place.mkdir(parents=True, exist_ok=True)
    return retry(folder, place)


def _batch_of(folder: Path) -> str | None:
    """Give the name of the folder that holds the results of a batch; None for a result by itself."""
    above = folder.parent.name
    return above if time_of_id(above[-ID_LENGTH:]) is not None else None
