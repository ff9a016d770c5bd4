"""Devices and floating point formats: which there are, which the hardware has, and giving memory back."""

import gc
import platform
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

import torch

from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.settings import Precision

DTYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    # Always as a dtype: diffusers takes a string without a word and loads float32.
    {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
)


def choose_device(wanted: str) -> torch.device:
    """Give the device that the settings name; `auto` is the first of CUDA, Apple's, the CPU that is there.

    Raises ModelUnavailable where the named one is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    device = torch.device(wanted)
    match device.type:
        case "cuda":
            index = device.index or 0
            if not cuda:
                raise ModelUnavailable(
                    "No CUDA device can be used here.",
                    "Check the driver (nvidia-smi) and that torch is a CUDA build, or set render.device.",
                )
            if index >= torch.cuda.device_count():
                raise ModelUnavailable(
                    f"There is no cuda:{index}; this machine has {torch.cuda.device_count()} CUDA devices.",
                    "Set render.device to one that is there; they are counted from 0.",
                )
            return torch.device("cuda", index)
        case "mps" if not mps:
            raise ModelUnavailable("Apple's MPS device cannot be used here.", "Set render.device to cpu.")
    return device


def lacking(device: torch.device, precision: Precision) -> str | None:
    """Say why the hardware should not be asked for the format, or None where nothing speaks against it.

    Formats that are merely emulated count as lacking: they cost more time than float32 and gain nothing.
    """
    if precision != "bfloat16":
        return None
    match device.type:
        case "cuda":
            with torch.cuda.device(device):
                native = torch.cuda.is_bf16_supported(including_emulation=False)
        case "mps":
            native = torch.backends.mps.is_macos_or_newer(14, 0)
        case _:
            native = _cpu_has_bfloat16()
    return None if native else f"this machine's {device.type} has no native bfloat16"


def _cpu_has_bfloat16() -> bool:
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  torch has no public question
    # On x86 oneDNN also says yes where it would emulate with AVX-512, hence the instruction sets themselves.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001


def is_the_hosts(device: torch.device) -> bool:
    """Say whether a device's memory is that of the host: Apple's is, and that of NVIDIA's integrated chips."""
    match device.type:
        case "cuda":
            return bool(torch.cuda.get_device_properties(device).is_integrated)
        case "mps":
            return True
    # Its shortages are the host's by name.
    return False


def onto(device: torch.device, resting: torch.Tensor) -> torch.Tensor:
    """Give a tensor on the device. All weights come there through this function."""
    return resting.to(device, non_blocking=True)


def pinned_for(device: torch.device, resting: torch.Tensor) -> torch.Tensor:
    """Give a tensor in host memory that the device can read by itself, where it can.

    Raises MemoryError where the host has no more of it.
    """
    if device.type != "cuda":
        return resting
    try:
        return resting.pin_memory()
    except RuntimeError as error:
        # CUDA says "out of memory" of the host's, too.
        if "out of memory" not in str(error):
            raise
        raise MemoryError(f"{resting.nbytes} bytes could not be pinned: {error}") from error


def off(tensor: torch.Tensor) -> torch.Tensor:
    """Give a tensor in host memory."""
    return tensor.to("cpu")


def give_back(device: torch.device) -> None:
    """Collect garbage, wait for the device, and return to it what nothing uses any more."""
    gc.collect()
    # A lost context has nothing left to give back, and whoever lost it is already being told.
    with suppress(torch.AcceleratorError):
        wait_for(device)
        empty_caches(device)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for. Raises what that met with."""
    match device.type:
        case "cuda":
            torch.cuda.synchronize(device)
        case "mps":
            torch.mps.synchronize()


def empty_caches(device: torch.device) -> None:
    """Return to the device what torch holds of it and nothing uses."""
    match device.type:
        case "cuda":
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
        case "mps":
            torch.mps.empty_cache()
