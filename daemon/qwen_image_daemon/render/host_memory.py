"""Memory of this process and this machine. Imports no torch."""

import ctypes
import resource
from typing import ClassVar, Final

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


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3)."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]

    fordblks: int


def idle_heap_bytes() -> int | None:
    """Give what is free within the heaps of this process, or None where the C library does not tell.

    Pages that were handed back to the system already are still counted.
    """
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)  # only glibc has it, since 2.33
    if mallinfo is None:
        return None
    mallinfo.restype = _Mallinfo
    return int(mallinfo().fordblks)


class Heap:
    """The process's heap, which glibc lets grow: it keeps the VAE's buffers of every picture size.

    Giving its free pages back after every job makes the next one fetch them again, page by page, which took a
    sixth of the time of small pictures; so it pays only where there are more than `slack_bytes` of them.
    """

    def __init__(self, slack_bytes: int = 512 * 1024 * 1024) -> None:
        self._slack_bytes = slack_bytes
        self._floor = own_bytes()

    def why_trim(self, idle_bytes: int | None) -> str | None:
        """Say why handing free pages back would pay, or None. `idle_bytes` are free within the heap.

        Of what is free only that can be in memory by which the process has grown since the last time.
        """
        if idle_bytes is None:
            return None
        returnable = min(idle_bytes, own_bytes() - self._floor)
        if returnable <= self._slack_bytes:
            return None
        return f"up to {returnable / 2**20:.0f} MiB lie idle in the heap"

    def trim(self) -> None:
        """Hand free pages back to the system."""
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(0)
        self._floor = own_bytes()


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
        idle_heap_bytes=idle_heap_bytes(),
    )
