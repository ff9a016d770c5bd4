"""Memory of this process and this machine. Imports no torch."""

import psutil

from qwen_image_daemon.render.renderer import MemoryInfo


def resident_bytes() -> int:
    """Give the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


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
    )
