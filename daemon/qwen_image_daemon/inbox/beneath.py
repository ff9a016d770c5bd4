"""Opening and copying files of the inbox without being led out of it by links, devices or a change under way."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from qwen_image_daemon.inbox.listing import Stamp
from qwen_image_daemon.spool.durable import copy_synced, opened
from qwen_image_daemon.spool.records import FileRecord

CHUNK = 1 << 20

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ChangedMeanwhile(Exception):
    """The file is not what it was when it was found quiet: wait on."""


def open_beneath(root: Path, relative: str, expected: Stamp) -> int:
    """Open a regular file below `root`, following no link on the way, and give its descriptor.

    Opened without blocking: a FIFO put in a file's place would otherwise hold us for ever.
    Raises ChangedMeanwhile where it is another file than expected, or gone; PermissionError where we may not.
    """
    *folders, name = PurePosixPath(relative).parts
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in (*folders, name):
            flags = _FLAGS if part is name else _FLAGS | os.O_DIRECTORY
            with opened(descriptor) as parent:
                descriptor = os.open(part, flags, dir_fd=parent)
    except PermissionError:
        raise
    except OSError as error:
        raise ChangedMeanwhile(f"{relative}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or Stamp.of(status) != expected:
        os.close(descriptor)
        raise ChangedMeanwhile(relative)
    return descriptor


def read_beneath(root: Path, relative: str, expected: Stamp, limit: int) -> bytes:
    """Read at most `limit` bytes of a file, checked before and after. Raises ChangedMeanwhile or OSError."""
    with opened(open_beneath(root, relative, expected)) as descriptor:
        content = b""
        while len(content) < limit and (chunk := os.read(descriptor, limit - len(content))):
            content += chunk
        _check_unchanged(descriptor, relative, expected)
        return content


def copy_beneath(
    root: Path, relative: str, expected: Stamp, target: Path, alive: Callable[[], None] = lambda: None
) -> FileRecord:
    """Copy a file to `target`, on the disk when this returns, and give its size and hash.

    `alive` is called after each piece: a share may be slow.

    Raises ChangedMeanwhile where it changed before or during the copy, OSError where reading or writing fails.
    """
    with opened(open_beneath(root, relative, expected)) as descriptor:
        size, digest = copy_synced(_chunks(descriptor, relative, expected.size, alive), target)
        _check_unchanged(descriptor, relative, expected)
    return FileRecord(path=relative, size_bytes=size, sha256=digest)


def _chunks(descriptor: int, relative: str, most: int, alive: Callable[[], None]) -> Iterator[bytes]:
    read = 0
    while chunk := os.read(descriptor, CHUNK):
        alive()
        read += len(chunk)
        if read > most:
            # It grows while we read: without an end we would fill the spool's disk.
            raise ChangedMeanwhile(relative)
        yield chunk


def _check_unchanged(descriptor: int, relative: str, expected: Stamp) -> None:
    if Stamp.of(os.fstat(descriptor)) != expected:
        raise ChangedMeanwhile(relative)
