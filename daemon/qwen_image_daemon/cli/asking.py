"""`pause`, `resume`, `cancel`: what people ask of the daemon, left in the spool where it looks."""

import getpass
import os
import socket
from pathlib import Path

import typer

from qwen_image_daemon.cli.reading_settings import WRONG_USE, settings_or_exit
from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.names import PAUSE_NAMES, printable
from qwen_image_daemon.service.items import jobs_on_their_way
from qwen_image_daemon.service.naming import NamedJob, NotOneJob, batch_named, the_one
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.locks import is_held
from qwen_image_daemon.spool.spool import Spool

DONE, NOT_DONE = 0, 1


def pause_daemon(root: Path | None, config: Path | None) -> int:
    """Let the current image be finished and nothing new be begun, and give the exit code."""
    spool = spool_or_exit(settings_or_exit(root, config).folders.spool)
    try:
        Controls(spool).pause("command")
    except OSError as error:
        return not_done(error)
    typer.echo(f"Paused. {_when(spool, 'The image that is being drawn is finished first')} `resume` goes on.")
    return DONE


def resume_daemon(root: Path | None, config: Path | None) -> int:
    """Take away whatever pauses the daemon, and give the exit code."""
    folders = settings_or_exit(root, config).folders
    spool = spool_or_exit(folders.spool)
    controls = Controls(spool)
    try:
        controls.resume("command")
        # After the spool, which always answers: the inbox may be on a share.
        for path in folders.inbox.iterdir():
            if path.name.casefold() in PAUSE_NAMES:
                path.unlink(missing_ok=True)
        controls.resume("inbox")
    except OSError as error:
        return not_done(error)
    typer.echo(f"Resumed. {_when(spool, 'The next image is begun')}")
    return DONE


def cancel_job(word: str, root: Path | None, config: Path | None) -> int:
    """Ask for the end of one job, or of all that are left of a batch, and give the exit code."""
    spool = spool_or_exit(settings_or_exit(root, config).folders.spool)
    try:
        on_their_way = [item for item in jobs_on_their_way(spool) if item.status != "rendered"]
        by = f"the command `cancel` ({_user()} on {socket.gethostname()})"
        batch = batch_named(word, (item.batch for item in on_their_way))
        if batch is not None:
            return _cancel_batch(batch, [item.id for item in on_their_way if item.batch == batch], spool, by)
        job = the_one(word, (NamedJob(item.id, item.name) for item in on_their_way))
        Controls(spool).cancel(job.id, by=by)
    except NotOneJob as reason:
        typer.echo(str(reason), err=True)
        return WRONG_USE
    except OSError as error:
        return not_done(error)
    typer.echo(f"{job.id} ({job.name}) is cancelled. {_when(spool, 'It ends at its next step')}")
    return DONE


def _cancel_batch(batch: str, jobs: list[str], spool: Spool, by: str) -> int:
    controls = Controls(spool)
    for job_id in jobs:
        controls.cancel(job_id, by=by)
    typer.echo(f"{len(jobs)} jobs of {batch} are cancelled. {_when(spool, 'They end at their next step')}")
    return DONE


def free_foreign_claims(root: Path | None, config: Path | None) -> int:
    """Free what other daemons claimed in the inbox, and give the exit code."""
    folders = settings_or_exit(root, config).folders
    spool = spool_or_exit(folders.spool)
    try:
        freed = Claims(folders.inbox, spool.identity).free_foreign()
    except OSError as error:
        return not_done(error)
    for claim in freed:
        typer.echo(f"{printable(claim.path)} is free; it was claimed on {claim.host}.")
    typer.echo(f"{len(freed)} claims of other daemons were freed.")
    return DONE


def spool_or_exit(folder: Path) -> Spool:
    """Give the spool; say so and end the program where no daemon has made it."""
    spool = Spool(folder)
    if not spool.control.is_dir():
        typer.echo(f"No daemon has run on {folder} yet.", err=True)
        raise typer.Exit(WRONG_USE)
    return spool


def not_done(error: OSError) -> int:
    """Say what the disk said, and give the exit code."""
    typer.echo(f"{error}. Is this the daemon's user, and is the folder there?", err=True)
    return NOT_DONE


def _when(spool: Spool, at_once: str) -> str:
    return f"{at_once}." if is_held(spool.lock_file) else "No daemon is running: it holds from the next start on."


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
