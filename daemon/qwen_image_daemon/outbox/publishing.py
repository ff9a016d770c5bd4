"""Giving out one finished job: built beside, shown by one rename, `result.json` last."""

import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from qwen_image_daemon import __version__
from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.outbox.clearing import building_folder
from qwen_image_daemon.outbox.letters import ERROR, error_letter
from qwen_image_daemon.outbox.results import RESULT, JobResult, Timings, image_results
from qwen_image_daemon.spool.durable import copy_synced, sync_folder, sync_tree
from qwen_image_daemon.spool.identity import slug
from qwen_image_daemon.spool.records import FileRecord, ImageRecord, JobRecord, Outcome
from qwen_image_daemon.spool.spool import IMAGES, INPUTS, LOG, Entry

FAILED = "failed"
CHUNK = 1 << 20


def result_folder(outbox: Path, record: JobRecord, outcome: Outcome) -> Path:
    """Say where a job's result belongs: always the same place for the same job."""
    day = f"{record.received_at:%Y-%m-%d}"
    shelf = day if outcome.status in {"succeeded", "duplicate"} else FAILED
    # The folders that people sort their drops into are found again below the shelf.
    return outbox / shelf / record.folder / f"{slug(record.name)}-{record.id}"


def publish(entry: Entry, outbox: Path) -> Path:
    """Give out a finished job, and say where it is. Safe to repeat after any interruption. Raises OSError."""
    record, outcome = entry.record(), entry.outcome()
    final = result_folder(outbox, record, outcome)
    if (final / RESULT).is_file():
        return final
    building = building_folder(outbox, record.id)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    _fill(building, entry, record, outcome)
    _make_folders(final.parent)
    crash_point("give-out.built")
    # rename(2) silently replaces an empty folder; ids are unique, so none of ours exists.
    building.rename(final)
    sync_folder(final.parent)
    sync_folder(outbox)
    crash_point("give-out.published")
    return final


def _make_folders(folder: Path) -> None:
    """Make a folder with those above it, so that their names survive a power cut."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _fill(folder: Path, entry: Entry, record: JobRecord, outcome: Outcome) -> None:
    inputs = entry.folder / INPUTS
    dropped = {relative.casefold() for relative in _files_below(inputs)}
    stem = slug(record.name)
    if any(_public_name(stem, image).casefold() in dropped for image in outcome.images):
        # The source of portrait.toml may be called portrait-1.png itself.
        stem = f"{stem}-result"
    images = {image.file.path: _public_name(stem, image) for image in outcome.images}
    files: list[FileRecord] = []
    for spooled, public in images.items():
        _copy(entry.folder / IMAGES / spooled, folder, public)
    crash_point("give-out.building")
    job_files = [file.name for file in entry.dropped_files()]
    files += [_copy(source, folder, source.name) for source in entry.dropped_files()]
    if outcome.status != "succeeded":
        files += [_copy(inputs / relative, folder, relative) for relative in _files_below(inputs)]
        files.append(_write([error_letter(record, outcome).encode()], folder, ERROR))
    if entry.log_file.is_file():
        files.append(_copy(entry.log_file, folder, LOG))
    result = JobResult(
        id=record.id,
        name=record.name,
        status=outcome.status,
        job_file=job_files[0] if job_files else None,
        requested=record.requested,
        effective=record.effective,
        adjustments=outcome.adjustments,
        problems=outcome.problems,
        error=outcome.error,
        earlier=outcome.earlier,
        images=image_results(outcome.images, images),
        files=tuple(files),
        received_at=record.received_at,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at,
        attempts=outcome.attempts,
        timings=Timings.of(record, outcome),
        model=outcome.model,
        memory_before=outcome.memory_before,
        memory_after=outcome.memory_after,
        daemon_version=__version__,
    )
    copy_synced([result.to_bytes()], folder / RESULT)
    sync_tree(folder)


def _public_name(stem: str, image: ImageRecord) -> str:
    # 0004.png of the spool becomes portrait-5.png: numbered from 1, as people count.
    spooled = Path(image.file.path)
    return f"{stem}-{int(spooled.stem) + 1}{spooled.suffix}"


def _copy(source: Path, folder: Path, name: str) -> FileRecord:
    with source.open("rb") as original:
        return _write(iter(partial(original.read, CHUNK), b""), folder, name)


def _write(chunks: Iterable[bytes], folder: Path, name: str) -> FileRecord:
    size, digest = copy_synced(chunks, folder / name)
    return FileRecord(path=name, size_bytes=size, sha256=digest)


def _files_below(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
