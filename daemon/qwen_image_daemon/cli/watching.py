"""`status`: what the daemon is doing, once or until it ends."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import typer

from qwen_image_daemon.cli.reading_settings import settings_or_exit
from qwen_image_daemon.outbox.status import STATUS, DaemonStatus
from qwen_image_daemon.spool.locks import is_held
from qwen_image_daemon.spool.spool import Spool

RUNNING, NOT_RUNNING = 0, 3
"""3 is what LSB gives a status command of a service that is not running."""

_REFRESH_SECONDS = 0.25
_ITEMS_SHOWN = 15


def show_status(root: Path | None, config: Path | None, *, as_json: bool, follow: bool) -> int:
    """Print the status, and give the exit code."""
    spool = Spool(settings_or_exit(root, config).folders.spool)
    if follow:
        _follow(spool)
    status, running = _look(spool)
    if status is None:
        typer.echo(f"No daemon has run on {spool.root} yet.", err=True)
    elif as_json:
        typer.echo(status.model_dump_json(indent=2))
    elif not follow:
        typer.echo("\n".join(describe(status, running=running)))
    return RUNNING if running else NOT_RUNNING


def describe(status: DaemonStatus, *, running: bool) -> Iterator[str]:
    """Say in lines what a person wants to know first."""
    if not running and status.state != "stopped":
        yield f"not running; it was {status.state} at {_local(status.updated_at)}, and ended without a word"
    else:
        yield f"{status.state} (process {status.pid} on {status.host}, started {_local(status.started_at)})"
    if running and status.note is not None:
        yield f"  {status.note}"
    yield from (f"  ! {sentence}" for sentence in status.trouble)
    if running and status.loading is not None:
        yield status.loading.told()
    if running and status.current is not None:
        job = status.current
        eta = "" if job.eta_seconds is None else f", {job.eta_seconds:.0f} s left"
        yield f"drawing {job.name}: picture {job.image} of {job.images}, step {job.step} of {job.steps}{eta}"
        if job.note is not None:
            yield f"  {job.note}"
    counts = status.counts
    yield (
        f"{counts.queued} queued, {counts.waiting} waiting; given out: {counts.succeeded} succeeded, "
        f"{counts.failed} failed, {counts.refused} refused, {counts.cancelled} cancelled"
    )
    if status.model is not None:
        yield f"model: {status.model.source} ({status.model.precision} on {status.model.device})"
    for item in status.queue[:_ITEMS_SHOWN]:
        yield f"  {item.status:<9} {item.id}  {item.name}  priority {item.priority}, {item.images} pictures"
    if len(status.queue) > _ITEMS_SHOWN:
        yield f"  … and {counts.queued + counts.rendering + counts.rendered - _ITEMS_SHOWN} more"
    for file, reason in status.waiting.items():
        yield f"  waiting   {file} {reason}"


def _look(spool: Spool) -> tuple[DaemonStatus | None, bool]:
    running = is_held(spool.lock_file)
    try:
        return DaemonStatus.model_validate_json((spool.state / STATUS).read_bytes()), running
    except (OSError, ValueError):
        return None, running


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _follow(spool: Spool) -> None:
    # rich costs a tenth of a second: only those who watch pay it.
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def view(status: DaemonStatus | None) -> RenderableType:
        if status is None:
            return Text("waiting for the daemon …")
        lines = Text("\n".join(describe(status, running=True)))
        if status.loading is not None and status.loading.total_bytes:
            loading = status.loading
            return Group(lines, ProgressBar(total=loading.total_bytes, completed=loading.done_bytes, width=40))
        if status.current is None:
            return lines
        job = status.current
        done = job.image - 1
        bars = Table.grid(padding=(0, 1))
        bars.add_row(
            "steps", ProgressBar(total=job.steps, completed=job.step, width=40), f"{job.step}/{job.steps}"
        )
        bars.add_row(
            "pictures",
            ProgressBar(total=job.images, completed=done, width=40),
            f"{done}/{job.images}",
        )
        return Group(lines, bars)

    status, running = _look(spool)
    with Live(view(status), refresh_per_second=4) as live:
        try:
            while running:
                time.sleep(_REFRESH_SECONDS)
                status, running = _look(spool)
                live.update(view(status))
        except KeyboardInterrupt:
            return
