"""How full may the spool's disk become? Accepting stops before it is full, and begins again by itself."""

import os
from pathlib import Path
from typing import Final

from qwen_image_daemon.settings import SpoolSettings

_RELIEF: Final = 1.1
"""It begins again only with so many times the space at which it stopped, so as not to flutter."""
_FILES_OF_A_JOB: Final = 10
"""Files and folders of one job of a batch, before its pictures: seven, and some for its marks."""
_BYTES_OF_A_JOB: Final = 32 * 1024
"""What they take on a disk of 4 KiB blocks, with a long prompt."""


class Watermark:
    """Watches the free space and the free inodes of one folder's file system."""

    def __init__(self, folder: Path, limits: SpoolSettings) -> None:
        self._folder = folder
        self._limits = limits
        self._short = False

    def shortage(self) -> str | None:
        """Say in a sentence what there is too little of, or None. Raises OSError."""
        status = os.statvfs(self._folder)
        factor = _RELIEF if self._short else 1.0
        free = status.f_bavail * status.f_frsize
        reason = None
        if free < self._limits.min_free_bytes * factor:
            reason = f"{_gigabytes(free)} GB are free, and {_gigabytes(self._limits.min_free_bytes)} are kept free"
        # Some file systems have no fixed number of inodes, and say zero.
        elif status.f_files and status.f_favail < self._limits.min_free_inodes * factor:
            reason = f"{status.f_favail} more files can be made, and {self._limits.min_free_inodes} are kept free"
        self._short = reason is not None
        return (
            None if reason is None else f"The spool's disk is nearly full, so nothing more is taken in: {reason}."
        )

    def lack_of_room(self, jobs: int) -> str | None:
        """Say why so many jobs of one file cannot be written down now, or None. Raises OSError."""
        status = os.statvfs(self._folder)
        free = status.f_bavail * status.f_frsize - jobs * _BYTES_OF_A_JOB
        inodes = status.f_favail - jobs * _FILES_OF_A_JOB
        if free >= self._limits.min_free_bytes and (not status.f_files or inodes >= self._limits.min_free_inodes):
            return None
        return f"waits for room: the spool's disk is too full for its {jobs:,} jobs"


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f}"
