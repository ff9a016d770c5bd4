"""Writing files so that they are whole or absent after a kill or a power cut."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all names in `folder` and below it survive a power cut, the deepest first."""
    for path, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(path))


def sync_all(folder: Path, alive: Callable[[], None] = lambda: None) -> None:
    """Make all files in `folder` and below it, and their names, survive a power cut.

    `alive` is called now and then. Several at a time: a file system with a journal writes what is asked for
    together in one go.
    """
    walked = list(os.walk(folder, topdown=False))
    with ThreadPoolExecutor(_SYNCED_AT_A_TIME) as threads:
        for _ in threads.map(_sync_file, (Path(path) / name for path, _, names in walked for name in names)):
            alive()
        # Deepest folders first; the order among those of one depth says nothing.
        for _ in threads.map(sync_folder, (Path(path) for path, _, _ in walked)):
            alive()


def _sync_file(path: Path) -> None:
    with opened(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        os.fsync(descriptor)


_SYNCED_AT_A_TIME = 16


def copy_synced(chunks: Iterable[bytes], target: Path) -> tuple[int, str]:
    """Write a new file out of chunks, in one pass, and wait until its content is on the disk.

    Makes the folders that are missing. Gives size in bytes and SHA-256. Raises OSError, and what `chunks` raises.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as copy:
        for chunk in chunks:
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
        return copy.tell(), digest.hexdigest()


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and wait until its content is on the disk. Its name is not: sync the folder afterwards."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_durably(path: Path, content: bytes) -> None:
    """Write `path` so that a reader, also after a power cut, finds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    create_anew(temporary, content, synced=True)
    temporary.replace(path)
    sync_folder(path.parent)


def replace_content(path: Path, content: bytes) -> None:
    """Write `path` so that a reader finds the old content or the new. A power cut may lose it: for status only."""
    temporary = path.with_name(f".{path.name}.tmp")
    create_anew(temporary, content)
    temporary.replace(path)


def create_anew(path: Path, content: bytes, *, synced: bool = False) -> None:
    """Write a file that is new, whatever had its name before.

    On a share that may be a link out of it, or a pipe that nobody reads: opened for writing, it would hold us.
    """
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)
        if synced:
            file.flush()
            os.fsync(file.fileno())


def read_plain(path: Path, most_bytes: int) -> bytes:
    """Read a small file where others may have put something else: OSError where it is no file, or larger."""
    with opened(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
            raise OSError(errno.EINVAL, "This is no file, or a larger one than is expected", str(path))
        content = b""
        while len(content) < most_bytes and (chunk := os.read(descriptor, most_bytes - len(content))):
            content += chunk
        return content


def move_durably(source: Path, target: Path) -> None:
    """Rename across two folders of one file system, and make both folders' names survive a power cut.

    The target's folder is synced first: a cut in between leaves the entry under both names or under the new one.
    """
    source.rename(target)
    sync_folder(target.parent)
    sync_folder(source.parent)


@contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close a file descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)
