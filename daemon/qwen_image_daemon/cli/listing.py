"""`list`: the jobs on their way, what waits in the inbox, and the last that failed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Final

import typer

from qwen_image_daemon.cli.asking import DONE, not_done, spool_or_exit
from qwen_image_daemon.cli.reading_settings import settings_or_exit
from qwen_image_daemon.outbox.status import QueueItem
from qwen_image_daemon.service.items import JobList, list_jobs

_MOST_SHOWN: Final = 50


def print_jobs(root: Path | None, config: Path | None, *, as_json: bool) -> int:
    """Print the list, and give the exit code."""
    spool = spool_or_exit(settings_or_exit(root, config).folders.spool)
    try:
        found = list_jobs(spool)
    except OSError as error:
        return not_done(error)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(_lines(found, datetime.now(UTC))))
    return DONE


def _lines(found: JobList, now: datetime) -> Iterator[str]:
    if not (found.jobs or found.waiting or found.ended):
        yield "No jobs."
    # Of a long batch, one line for its jobs that are alike: the others are to be seen too.
    lines = [
        list(alike) for _, alike in groupby(found.jobs, key=lambda item: (item.status, item.batch or item.id))
    ]
    for alike in lines[:_MOST_SHOWN]:
        first = alike[0]
        if len(alike) == 1:
            yield f"{first.status:<9}  {first.id}  {first.name}  {_since(first, now)}"
        else:
            yield f"{first.status:<9}  {first.batch}  {len(alike)} jobs, next {first.name}  {_since(first, now)}"
    if len(lines) > _MOST_SHOWN:
        yield f"… and {sum(map(len, lines[_MOST_SHOWN:]))} more (--json lists all)"
    for file, reason in found.waiting.items():
        yield f"{'waiting':<9}  {file}  {reason}"
    for job in found.ended:
        yield f"{job.status:<9}  {job.id}  {job.name}  {_long(now - job.finished_at)} ago"


def _since(item: QueueItem, now: datetime) -> str:
    if item.status == "rendering" and item.started_at is not None:
        return f"begun {_long(now - item.started_at)} ago"
    if item.status == "queued" and item.not_before is not None and now < item.not_before:
        return f"waits until {item.not_before.isoformat(sep=' ', timespec='minutes')}"
    return f"there for {_long(now - item.received_at)}"


def _long(span: timedelta) -> str:
    # The host's clock may have been set back in between.
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
