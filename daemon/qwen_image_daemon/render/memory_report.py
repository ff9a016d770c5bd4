"""How much memory a device holds, in bytes."""

import torch

from qwen_image_daemon.render.host_memory import host_memory, idle_heap_bytes, resident_bytes
from qwen_image_daemon.render.memory import Memory
from qwen_image_daemon.render.renderer import MemoryInfo


def device_memory(device: torch.device) -> MemoryInfo:
    """Report the device's memory, and the host's where it has none of its own."""
    peak: int | None = None
    match device.type:
        case "cuda":
            peak = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            free, total = torch.cuda.mem_get_info(device)
            allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        case "mps":
            allocated, reserved = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
            total = torch.mps.recommended_max_memory()
            free = max(total - reserved, 0)
        case _:
            return host_memory(str(device))
    return MemoryInfo(
        device=str(device),
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        free_bytes=free,
        total_bytes=total,
        process_rss_bytes=resident_bytes(),
        peak_bytes=peak,
        idle_heap_bytes=idle_heap_bytes(),
    )


def free_memory(device: torch.device) -> Memory:
    """Say what a model that is loaded now can take."""
    host = host_memory().free_bytes
    return Memory(None if device.type == "cpu" else device_memory(device).free_bytes, host)
