"""Deleting what was kept long enough: results where the settings say so, and the records of finished jobs."""

import shutil
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from qwen_image_daemon.outbox.results import RESULT
from qwen_image_daemon.settings import OutboxSettings
from qwen_image_daemon.spool.identity import ID_LENGTH, time_of_id

log = structlog.get_logger(__name__)


def building_folder(outbox: Path, job_id: str) -> Path:
    """Say where a result is built up, and pulled down: out of sight, and known as this host's."""
    return outbox / f".tmp-{socket.gethostname()}-{job_id}"


def discard_unfinished(outbox: Path) -> None:
    """Delete what a killed give-out of this host left half-built or half-deleted. Other hosts' is theirs."""
    # As long as an id: with * the host "box" would delete what "box-2" builds.
    for path in outbox.glob(building_folder(outbox, "?" * ID_LENGTH).name):
        shutil.rmtree(path)


def forget_old_results(outbox: Path, settings: OutboxSettings, now: datetime) -> int:
    """Delete results that are too old or too many, as far as the settings set a limit. Gives their number.

    Age goes by the id in each folder's name, which our own clock made: file times may be another machine's.
    """
    if settings.keep_days is None and settings.keep_bytes is None:
        return 0
    youngest_first = sorted(_results(outbox), key=lambda result: result.name[-ID_LENGTH:], reverse=True)
    kept, deleted = 0, 0
    for result in youngest_first:
        kept += sum(file.lstat().st_size for file in result.rglob("*") if file.is_file())
        if not _is_due(result, kept, settings, now):
            continue
        # Out of sight by one rename: nobody sees a result that is half there.
        gone = building_folder(outbox, result.name[-ID_LENGTH:])
        result.rename(gone)
        shutil.rmtree(gone)
        _drop_empty(result.parent, outbox)
        deleted += 1
        log.info("result.deleted", folder=str(result.relative_to(outbox)))
    return deleted


def _results(outbox: Path) -> Iterator[Path]:
    for file in outbox.rglob(RESULT):
        hidden = any(part.startswith(".") for part in file.relative_to(outbox).parts)
        if not hidden and time_of_id(file.parent.name[-ID_LENGTH:]) is not None:
            yield file.parent


def _is_due(result: Path, kept: int, settings: OutboxSettings, now: datetime) -> bool:
    received_at = time_of_id(result.name[-ID_LENGTH:])
    if settings.keep_bytes is not None and kept > settings.keep_bytes:
        return True
    return settings.keep_days is not None and (
        received_at is not None and now - received_at > timedelta(days=settings.keep_days)
    )


def _drop_empty(folder: Path, outbox: Path) -> None:
    while folder != outbox and (not any(folder.iterdir()) or _is_spent_batch(folder)):
        shutil.rmtree(folder)
        folder = folder.parent


def _is_spent_batch(folder: Path) -> bool:
    """Say whether a folder held the results of a batch, and holds nothing but its file any more."""
    is_batch = time_of_id(folder.name[-ID_LENGTH:]) is not None
    return is_batch and not any(path.is_dir() for path in folder.iterdir())
