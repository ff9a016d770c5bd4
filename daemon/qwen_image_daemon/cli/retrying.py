"""`retry`: a failed or cancelled job goes back into the inbox."""

from pathlib import Path

import typer

from qwen_image_daemon.cli.asking import DONE, not_done, spool_or_exit
from qwen_image_daemon.cli.reading_settings import WRONG_USE, settings_or_exit
from qwen_image_daemon.outbox.retrying import retry, retryable
from qwen_image_daemon.service.naming import NamedJob, NotOneJob, the_one
from qwen_image_daemon.spool.places import Place


def retry_job(word: str, root: Path | None, config: Path | None) -> int:
    """Move one result folder back into the inbox, and give the exit code."""
    folders = settings_or_exit(root, config).folders
    try:
        # Nothing is made below the bare mount point of a share that is away.
        Place("inbox", folders.inbox, spool_or_exit(folders.spool)).enter()
        results = {job_id: (name, folder) for job_id, name, folder in retryable(folders.outbox)}
        job = the_one(word, (NamedJob(job_id, name) for job_id, (name, _) in results.items()))
        _, folder = results[job.id]
        # Back to where it was dropped: the outbox mirrors the inbox's folders below failed/ and cancelled/.
        _, *mirrored = folder.relative_to(folders.outbox).parent.parts
        place = folders.inbox.joinpath(*mirrored)
        place.mkdir(parents=True, exist_ok=True)
        target = retry(folder, place)
    except NotOneJob as reason:
        typer.echo(str(reason), err=True)
        return WRONG_USE
    except OSError as error:
        return not_done(error)
    typer.echo(f"{job.id} ({job.name}) is in the inbox again: {target}")
    return DONE
