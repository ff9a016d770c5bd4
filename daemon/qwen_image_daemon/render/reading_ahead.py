"""Reading files with weights into the system's page cache, beside the libraries that map them. No torch.

A mapped file is read when it is first touched: by one thread, in small pieces, and nobody knows how far that is.
Here several threads go ahead of whoever touches it, and count what is in memory.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

import structlog

from qwen_image_daemon.render.renderer import Loading, ModelUnavailable
from qwen_image_daemon.render.telling import Count

log = structlog.get_logger()

_THREADS: Final = 4
_PIECE_BYTES: Final = 8 << 20
_PLAIN_BYTES: Final = 256 << 10
_MOST_OF_THE_MEMORY: Final = 0.8
"""Files that take more of the free memory than this would push each other out before they are used."""


class ReadingAhead:
    """The files of one model on their way into memory, and what its loader should hear and say meanwhile."""

    def __init__(self, size: int, tell: Callable[[Loading], None]) -> None:
        self._tell = tell
        self._lock = Lock()
        self._pieces: list[Future[None]] = []
        self._missing = 0
        """Pieces that are not in memory yet."""
        self._next = Loading("read", size, size)
        """What is said once none is missing."""
        self._fault: BaseException | None = None

    def start(self, files: Mapping[str, Sequence[Path]], threads: ThreadPoolExecutor) -> None:
        """Have the files of each component read, in this order."""
        pieces = [
            (path, offset, _part(component, number, len(paths)))
            for component, paths in files.items()
            for number, path in enumerate(paths, start=1)
            for offset in range(0, path.stat().st_size, _PIECE_BYTES)
        ]
        count = Count(Loading("read", 0, _size(files)), self._tell)
        self._missing = len(pieces)
        self._pieces = [threads.submit(self._bring, *piece, count) for piece in pieces]

    def leave(self) -> None:
        """Read no further."""
        for piece in self._pieces:
            piece.cancel()

    def check(self) -> None:
        """Raise what the teller raised, or ModelUnavailable with the name of a file that cannot be read."""
        if self._fault is not None:
            raise self._fault

    def look(self) -> None:
        """Tell where loading is, unless the threads that read do. Raises likewise. May be called often."""
        self.check()
        if not self._missing:
            self._tell(self._next)

    def afterwards(self, loading: Loading) -> None:
        """Tell this from now on, where everything is read; otherwise as soon as it is. Raises likewise."""
        self._next = loading
        self.look()

    def _bring(self, path: Path, offset: int, part: str, count: Count) -> None:
        if self._fault is not None:
            return
        try:
            count.add(_in_memory(path, offset), part)
        except BaseException as error:  # noqa: BLE001  the thread that loads raises it
            self._fault = error
        with self._lock:
            self._missing -= 1


@contextmanager
def reading_ahead(
    files: Mapping[str, Sequence[Path]], free_bytes: int, tell: Callable[[Loading], None]
) -> Iterator[ReadingAhead]:
    """Read the files ahead while a model is loaded inside, where they fit into `free_bytes`.

    At the end nothing is read any more. What `ReadingAhead.check` raises is raised then at the latest, and counts
    more than what was raised inside: that may only follow from it.
    """
    size = _size(files)
    fits = size <= free_bytes * _MOST_OF_THE_MEMORY
    ahead = ReadingAhead(size if fits else 0, tell)
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            if fits:
                ahead.start(files, threads)
            else:
                log.info("files.not_read_ahead", bytes=size, free_bytes=free_bytes)
            yield ahead
        finally:
            ahead.leave()
            ahead.check()


def _size(files: Mapping[str, Sequence[Path]]) -> int:
    return sum(path.stat().st_size for paths in files.values() for path in paths)


def _part(component: str, number: int, count: int) -> str:
    return component if count == 1 else f"{component}, file {number} of {count}"


def _in_memory(path: Path, offset: int) -> int:
    """Wait until a piece is in the page cache, and give its length. Raises ModelUnavailable."""
    try:
        return _read(path, offset)
    except OSError as error:
        # Whoever touched its mapping would be killed by the system, without a word.
        raise ModelUnavailable(
            f"{path} cannot be read: {error}",
            "Look into the kernel's log (dmesg) for the disk or the share, and copy the file anew.",
        ) from None


def _read(path: Path, offset: int) -> int:
    with path.open("rb", buffering=0) as file, Path(os.devnull).open("wb", buffering=0) as nowhere:
        place, end = offset, min(offset + _PIECE_BYTES, path.stat().st_size)
        try:
            # Copies nothing on Linux: what is in memory already is passed over in no time.
            while place < end and (sent := os.sendfile(nowhere.fileno(), file.fileno(), place, end - place)):
                place += sent
        except OSError:
            # Other systems send to sockets only, some file systems not at all. What is unreadable is so again.
            file.seek(place)
            while place < end and (read := len(file.read(min(_PLAIN_BYTES, end - place)))):
                place += read
    return place - offset
