"""In which number format matrix products are fastest on the hardware at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

_NATIVE_BFLOAT16: Final = ("avx512_bf16", "amx_bf16")
"""What a processor that multiplies in bfloat16 itself has, by its name in torch.cpu.get_capabilities()."""


def product_dtype(device: torch.device, capabilities: Mapping[str, object] | None = None) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it natively, float32 elsewhere.

    `capabilities` are the processor's, this one's unless given.

    Where it is emulated it is no bargain: on a Zen 3 processor products in float32 are thirty times faster
    (docs/log.md, 2026-11-25).
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities() if capabilities is None else capabilities
        native = any(known.get(name, False) for name in _NATIVE_BFLOAT16)
    return torch.bfloat16 if native else torch.float32
