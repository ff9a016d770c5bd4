"""Giving out one finished job: built beside, shown by one rename, `result.json` last."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, assert_never

from qwen_image_daemon import __version__
from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.jobs.naming import DEFAULT_TEMPLATE, stem_of
from qwen_image_daemon.jobs.parsing import syntax_of
from qwen_image_daemon.outbox.clearing import building_folder
from qwen_image_daemon.outbox.letters import letter_for
from qwen_image_daemon.outbox.results import RESULT, JobResult, Timings, image_results
from qwen_image_daemon.spool.durable import copy_synced, sync_folder, sync_tree
from qwen_image_daemon.spool.entry import IMAGES, INPUTS, LOG, ORIGINALS, Entry
from qwen_image_daemon.spool.identity import slug
from qwen_image_daemon.spool.records import FileRecord, ImageRecord, JobRecord, Outcome

FAILED, CANCELLED = "failed", "cancelled"
"""Folders of the outbox for what did not succeed."""
CHUNK = 1 << 20
_STEM_BYTES = 200


def result_folder(outbox: Path, record: JobRecord, outcome: Outcome) -> Path:
    """Say where a job's result belongs: always the same place for the same job."""
    match outcome.status:
        case "succeeded" | "duplicate":
            shelf = f"{record.received_at:%Y-%m-%d}"
        case "cancelled":
            shelf = CANCELLED
        case "failed" | "refused":
            shelf = FAILED
        case status:
            assert_never(status)
    # The folders that people sort their drops into are found again below the shelf.
    # The results of one file lie together below it.
    return outbox / shelf / record.folder / (record.group or "") / f"{slug(record.name)}-{record.id}"


def _unheard() -> None:
    pass


def publish(entry: Entry, outbox: Path, alive: Callable[[], None] = _unheard) -> Path:
    """Give out a finished job, and say where it is. Safe to repeat after any interruption. Raises OSError.

    `alive` is called after each piece that the outbox took: a large result on a slow share may take long.
    """
    record, outcome = entry.record(), entry.outcome()
    final = result_folder(outbox, record, outcome)
    if (final / RESULT).is_file():
        _give_out_originals(entry, record, outbox, final.parent)
        return final
    building = building_folder(outbox, record.id)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    _fill(building, entry, record, outcome, alive)
    _make_folders(final.parent)
    crash_point("give-out.built")
    # rename(2) silently replaces an empty folder; ids are unique, so none of ours exists.
    building.rename(final)
    sync_folder(final.parent)
    sync_folder(outbox)
    _give_out_originals(entry, record, outbox, final.parent)
    crash_point("give-out.published")
    return final


def _give_out_originals(entry: Entry, record: JobRecord, outbox: Path, group: Path) -> None:
    """Put the file that a batch was dropped as beside its results, after the first of them."""
    if record.batch is None or not (entry.folder / ORIGINALS).is_dir():
        return
    for original in sorted((entry.folder / ORIGINALS).iterdir()):
        target = group / name_of_original(original.name)
        if not target.exists():
            building = building_folder(outbox, record.id)
            shutil.rmtree(building, ignore_errors=True)
            copy_synced([original.read_bytes()], building / target.name)
            (building / target.name).rename(target)
            building.rmdir()
            sync_folder(group)


def name_of_original(name: str) -> str:
    """Say what a dropped file of a batch is called beside its results: moved back into the inbox, it is no job."""
    if syntax_of(name) is None:
        return name
    # Names may be as long as file systems take already.
    path = PurePosixPath(name)
    stem = path.stem.encode()[:_STEM_BYTES].decode(errors="ignore")
    return f"{stem}{path.suffix}.txt"


def _make_folders(folder: Path) -> None:
    """Make a folder with those above it, so that their names survive a power cut."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _fill(folder: Path, entry: Entry, record: JobRecord, outcome: Outcome, alive: Callable[[], None]) -> None:
    def copy(source: Path, name: str) -> FileRecord:
        with source.open("rb") as original:
            return _write(_pieces(original, alive), folder, name)

    inputs = entry.folder / INPUTS
    dropped = {relative.casefold() for relative in _files_below(inputs)}
    images = _public_names(record, outcome.images)
    if any(public.casefold() in dropped for public in images.values()):
        # The source of portrait.toml may be called portrait-1.png itself.
        images = _public_names(record, outcome.images, "-result")
    files: list[FileRecord] = []
    for spooled, public in images.items():
        copy(entry.folder / IMAGES / spooled, public)
    crash_point("give-out.building")
    job_files = [file.name for file in entry.dropped_files() if syntax_of(file.name) is not None]
    files += [copy(source, source.name) for source in entry.dropped_files()]
    if outcome.status != "succeeded":
        files += [copy(inputs / relative, relative) for relative in _files_below(inputs)]
        name, text = letter_for(record, outcome)
        files.append(_write([text.encode()], folder, name))
    if entry.log_file.is_file():
        files.append(copy(entry.log_file, LOG))
    result = JobResult(
        id=record.id,
        name=record.name,
        status=outcome.status,
        tags=record.requested.tags if record.requested else (),
        job_file=job_files[0] if job_files else None,
        batch=record.batch,
        requested=record.requested,
        effective=record.effective,
        adjustments=outcome.adjustments,
        problems=outcome.problems,
        error=outcome.error,
        earlier=outcome.earlier,
        cancelled_by=outcome.cancelled_by,
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
        clean_up_before=outcome.clean_up_before,
        clean_up_after=outcome.clean_up_after,
        daemon_version=__version__,
    )
    copy_synced([result.to_bytes()], folder / RESULT)
    sync_tree(folder)


def _public_names(record: JobRecord, images: Iterable[ImageRecord], mark: str = "") -> dict[str, str]:
    """Name the pictures as the job wishes, by their names in the spool; `mark` tells them from others."""
    template = (record.effective.output.name if record.effective else None) or DEFAULT_TEMPLATE
    if mark and "{name}" not in template:
        template = f"{template}{mark}"
    known = {"name": slug(record.name) + mark, "date": f"{record.received_at:%Y-%m-%d}", "id": record.id}
    names = {}
    for image in images:
        # 0004.png of the spool becomes portrait-5.png: numbered from 1, as people count.
        spooled = Path(image.file.path)
        values = {**known, "index": str(int(spooled.stem) + 1), "seed": str(image.seed)}
        stem = stem_of(template, values)
        names[image.file.path] = f"{stem}{spooled.suffix}"
        for number, layer in enumerate(image.layers, start=1):
            names[layer.path] = f"{stem}-layer-{number}{Path(layer.path).suffix}"
    return names


def _pieces(original: BinaryIO, alive: Callable[[], None]) -> Iterator[bytes]:
    for piece in iter(partial(original.read, CHUNK), b""):
        alive()
        yield piece
    alive()


def _write(chunks: Iterable[bytes], folder: Path, name: str) -> FileRecord:
    size, digest = copy_synced(chunks, folder / name)
    return FileRecord(path=name, size_bytes=size, sha256=digest)


def _files_below(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()
