"""Memory of this process and this machine. Imports no torch."""

import ctypes
import resource
from typing import Final

import psutil

from qwen_image_daemon.render.renderer import MemoryInfo

_KIBIBYTE: Final = 1024
"""What getrusage(2) counts resident memory in, on Linux."""


def resident_bytes() -> int:
    """Give the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def own_bytes() -> int:
    """Give the resident memory that this process shares with no other and with no file: not mapped weights."""
    info = psutil.Process().memory_info()
    return int(info.rss) - int(getattr(info, "shared", 0))  # only Linux tells them apart


class Heap:
    """The process's heap, which glibc lets grow: it keeps the VAE's buffers of every picture size.

    Giving its free pages back after every job makes the next one fetch them again, page by page, which took a
    sixth of the time of small pictures; so it is done only once the process has grown by `slack_bytes`.
    """

    def __init__(self, slack_bytes: int = 512 * 1024 * 1024) -> None:
        self._slack_bytes = slack_bytes
        self._floor = resident_bytes()

    def trim_if_grown(self) -> None:
        """Hand free pages back to the system if the process has grown much since the last time."""
        if resident_bytes() - self._floor > self._slack_bytes:
            self.trim()

    def trim(self) -> None:
        """Hand free pages back to the system."""
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)
        self._floor = resident_bytes()


def host_memory(device: str = "cpu") -> MemoryInfo:
    """Report the host's memory as that of a device which has none of its own."""
    host = psutil.virtual_memory()
    resident = resident_bytes()
    return MemoryInfo(
        device=device,
        allocated_bytes=resident,
        reserved_bytes=resident,
        free_bytes=int(host.available),
        total_bytes=int(host.total),
        process_rss_bytes=resident,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE,
    )
