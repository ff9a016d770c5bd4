"""Reading files with weights into the system's page cache, several at a time, before torch maps them. No torch.

A mapped file is read when it is first touched, by one thread, in small pieces. Read in large pieces by several
threads it comes as fast as the disk can give it, and how far that is can be told.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from qwen_image_daemon.render.renderer import Loading
from qwen_image_daemon.render.telling import Count

log = structlog.get_logger()

_THREADS: Final = 4
_PIECE_BYTES: Final = 8 << 20
_BUFFER_BYTES: Final = 256 << 10
_PAGE_BYTES: Final = 4096
_MOST_OF_THE_MEMORY: Final = 0.8
"""Files that take more of the free memory than this would push each other out before they are used."""


def read_in(files: Mapping[str, Sequence[Path]], free_bytes: int, tell: Callable[[Loading], None]) -> None:
    """Read the files of each component that are not in memory yet, where they fit into `free_bytes`.

    What cannot be read is left to those who need it. Raises what `tell` raises.
    """
    pieces = [
        (path, offset, _part(component, number, len(paths)))
        for component, paths in files.items()
        for number, path in enumerate(paths, start=1)
        for offset in range(0, path.stat().st_size, _PIECE_BYTES)
    ]
    total = sum(path.stat().st_size for paths in files.values() for path in paths)
    if total > free_bytes * _MOST_OF_THE_MEMORY:
        log.info("files.not_read_in", bytes=total, free_bytes=free_bytes)
        return
    count = Count(Loading("read", 0, total), tell)
    with ThreadPoolExecutor(_THREADS) as threads:
        jobs = [threads.submit(_read_piece, path, offset, part, count) for path, offset, part in pieces]
        try:
            for job in jobs:
                job.result()
        finally:
            for job in jobs:
                job.cancel()


def _part(component: str, number: int, count: int) -> str:
    return component if count == 1 else f"{component}, file {number} of {count}"


def _read_piece(path: Path, offset: int, part: str, count: Count) -> None:
    length = min(_PIECE_BYTES, path.stat().st_size - offset)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _is_in_memory(descriptor, offset, length):
            _read(descriptor, offset, length)
    except OSError as error:
        log.warning("file.unreadable", file=str(path), reason=str(error))
    finally:
        os.close(descriptor)
    count.add(length, part)


def _read(descriptor: int, offset: int, length: int) -> None:
    """Read a piece, into one small buffer again and again: what counts stays in the system's cache."""
    buffer = bytearray(_BUFFER_BYTES)
    for place in range(offset, offset + length, _BUFFER_BYTES):
        os.preadv(descriptor, [buffer], place)


def _is_in_memory(descriptor: int, offset: int, length: int) -> bool:
    """Say whether a piece's first and last page can be had without waiting. False where nobody can tell."""
    try:
        for place in (offset, offset + max(length - _PAGE_BYTES, 0)):
            if os.preadv(descriptor, [bytearray(min(_PAGE_BYTES, length))], place, os.RWF_NOWAIT) <= 0:
                return False
    except (OSError, AttributeError):
        # Not in memory; or a file system, or a system, without this question.
        return False
    return True
