"""Which memory of this process is that of files. Linux tells; elsewhere nothing is said to be mapped."""

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_LEAST_SHARE: Final = 0.9
"""A few small tensors may have been made anew."""


def are_mapped(tensors: Iterable[tuple[int, int]]) -> bool:
    """Say whether tensors, each an address and a size in bytes, lie in files that are mapped into memory."""
    ranges = _ranges_of_files()
    starts = [start for start, _ in ranges]
    mapped = total = 0
    for address, size in tensors:
        place = bisect_right(starts, address) - 1
        mapped += size if place >= 0 and address < ranges[place][1] else 0
        total += size
    return mapped >= _LEAST_SHARE * total


def _ranges_of_files() -> list[tuple[int, int]]:
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        # Range, rights, offset, device, inode, path: proc_pid_maps(5). What is no file has the inode 0.
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            start, _, end = addresses.partition("-")
            found.append((int(start, 16), int(end, 16)))
    return sorted(found)
