"""The most that a device held while one picture was drawn, in bytes."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_FORGET_PEAK: Final = "5"
"""What proc(5) wants written there to begin the peak of resident memory anew."""
_KIBIBYTE: Final = 1024


class PeakMeter:
    """Of a device; of the host's memory, as far as this process holds it, where the device is the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        """The most before the last beginning, since it was last reported."""

    def begin(self) -> None:
        """Begin anew."""
        self._before = max(self._before, self._peak() or 0)
        match self._device.type:
            case "cuda":
                torch.cuda.reset_peak_memory_stats(self._device)
            case "cpu":
                with suppress(OSError):
                    _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")

    def peak_bytes(self) -> int | None:
        """Give the most since the beginning, or None where nothing says so."""
        return self._peak()

    def reported(self, peak_bytes: int | None) -> int | None:
        """Give the most since the last report, of which `peak_bytes` is what came after the last beginning."""
        most = None if peak_bytes is None else max(peak_bytes, self._before)
        if self._device.type != "cpu":
            # Of the CPU it is the most ever.
            self._before = 0
        return most

    def _peak(self) -> int | None:
        match self._device.type:
            case "cuda":
                return torch.cuda.max_memory_allocated(self._device)
            case "cpu":
                return _most_resident()
        return None


def _most_resident() -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIBIBYTE
    return None
