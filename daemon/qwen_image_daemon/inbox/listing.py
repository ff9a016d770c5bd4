"""The inbox at one moment. The listing is the truth; events only say when to look."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen_image_daemon.inbox.names import is_ignored

MAX_DEPTH = 8
"""Folders below each other that are looked into."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file is written. Compared for equality only: other machines' clocks are not trusted."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """Take the stamp out of a stat result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def list_inbox(inbox: Path) -> dict[str, Stamp]:
    """Give every regular file by its path relative to the inbox, with forward slashes.

    Links are not followed, ignored names are left out. What vanishes while we look is left out too.
    Raises OSError where the inbox itself cannot be listed.
    """
    return dict(_walk(inbox, "", MAX_DEPTH))


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, Stamp]]:
    with os.scandir(folder) as items:
        found = [item for item in items if not is_ignored(item.name)]
    for item in found:
        relative = prefix + item.name
        try:
            status = item.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield relative, Stamp.of(status)
            elif stat.S_ISDIR(status.st_mode) and depth > 0:
                yield from _walk(folder / item.name, relative + "/", depth - 1)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # Gone, another thing by now, or one person's private folder: no reason to stop looking at the rest.
            continue
