"""A result folder on its way back into the inbox: moved whole, and never there twice."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from qwen_image_daemon.outbox.publishing import CANCELLED, CHUNK, FAILED
from qwen_image_daemon.outbox.results import RESULT
from qwen_image_daemon.spool.durable import copy_synced, sync_folder, sync_tree
from qwen_image_daemon.spool.identity import ID_LENGTH

PART: Final = ".part"
"""What a folder of the inbox is called until it is whole: the take-in passes over it."""
_ASIDE: Final = ".retried-"
_ID: Final = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}")


def retryable(outbox: Path) -> Iterator[tuple[str, str, Path]]:
    """Give id, name and folder of each result that may be tried again, also of those in folders of folders."""
    for shelf in (FAILED, CANCELLED):
        for path, names, _ in os.walk(outbox / shelf):
            # The folder of a batch ends in an id too, and holds results.
            results = [
                name for name in names if _ID.fullmatch(name[-ID_LENGTH:]) and _is_result(Path(path) / name)
            ]
            for name in results:
                # What a job brought along may be called anything: results are not looked into.
                names.remove(name)
                yield name[-ID_LENGTH:], name.removeprefix(_ASIDE)[: -ID_LENGTH - 1], Path(path) / name


def _is_result(folder: Path) -> bool:
    return (folder / RESULT).is_file()


def retry(folder: Path, inbox: Path) -> Path:
    """Move a result folder into the inbox, or a folder in it, and say where. Safe to repeat. Raises OSError."""
    if folder.name.startswith(_ASIDE):
        return _hand_over(folder, inbox)
    target = inbox / folder.name
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _retry_by_copy(folder, inbox)
    sync_folder(inbox)
    sync_folder(folder.parent)
    return target


def _retry_by_copy(folder: Path, inbox: Path) -> Path:
    part = inbox / f"{folder.name}{PART}"
    if part.exists():
        # Of a retry that was killed: begun anew, for nobody knows how far it got.
        shutil.rmtree(part)
    _copy_tree(folder, part)
    sync_tree(part)
    sync_folder(inbox)
    # From here on the copy is whole; the original has another name, so that it is not sent in a second time.
    aside = folder.rename(folder.with_name(f"{_ASIDE}{folder.name}"))
    sync_folder(aside.parent)
    return _hand_over(aside, inbox)


def _hand_over(aside: Path, inbox: Path) -> Path:
    name = aside.name.removeprefix(_ASIDE)
    target, part = inbox / name, inbox / f"{name}{PART}"
    if part.is_dir():
        part.rename(target)
        sync_folder(inbox)
    elif not target.is_dir():
        raise FileNotFoundError(
            f"{aside} was sent into the inbox by a retry that was interrupted, and is not there any more: it was "
            f"taken, or cleared away. Delete the folder, or take {_ASIDE} off its name to send it again"
        )
    shutil.rmtree(aside)
    return target


def _copy_tree(folder: Path, target: Path) -> None:
    target.mkdir()
    for path, _, names in os.walk(folder):
        for name in names:
            source = Path(path) / name
            with source.open("rb") as original:
                copy_synced(iter(partial(original.read, CHUNK), b""), target / source.relative_to(folder))
