"""What the exceptions of the libraries mean: one table, from which a test takes an example of each line."""

from dataclasses import dataclass
from typing import Final

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from qwen_image_daemon.render.renderer import (
    DeviceLost,
    HostOutOfMemory,
    Misplaced,
    ModelUnavailable,
    OutOfMemory,
    RenderError,
    RequestRefused,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """An exception of one of `kinds` whose text matches the regular expression `text` is told as `error`."""

    kinds: tuple[type[Exception], ...]
    text: str
    error: type[RenderError]
    what: str
    fix: str


_SMALLER: Final = "Draw smaller pictures, or free memory on this machine."

RULES: Final = (
    Rule(
        (torch.OutOfMemoryError,),
        r"",
        OutOfMemory,
        "Memory ran out on the device",
        _SMALLER,
    ),
    Rule(
        (MemoryError,),
        r"",
        HostOutOfMemory,
        "Memory ran out on the host",
        _SMALLER,
    ),
    Rule(
        # The CPU's allocator, and a mapped file: neither has a type of its own.
        (RuntimeError, OSError),
        r"DefaultCPUAllocator: can't allocate|Cannot allocate memory",
        HostOutOfMemory,
        "Memory ran out on the host",
        _SMALLER,
    ),
    Rule(
        # Apple's allocator, and cuBLAS' workspace: likewise.
        (RuntimeError,),
        r"out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        OutOfMemory,
        "Memory ran out on the device",
        _SMALLER,
    ),
    Rule(
        (RuntimeError,),  # AcceleratorError is one
        r"no kernel image is available",
        ModelUnavailable,
        "This build of torch has no code for this card",
        "Install the build of torch that is made for the card, or set render.device to cpu.",
    ),
    Rule(
        (RuntimeError,),
        r"No CUDA GPUs are available|Found no NVIDIA driver|driver version is insufficient|driver initialization",
        ModelUnavailable,
        "The card cannot be used",
        "Check the driver (nvidia-smi) and whether the service may use the card, or set render.device to cpu.",
    ),
    Rule(
        (torch.AcceleratorError,),
        r"",
        DeviceLost,
        "The accelerator failed",
        "The render process starts anew; where this comes back, look into the kernel's log (dmesg).",
    ),
    Rule(
        # Libraries on top of CUDA report its sticky errors as plain RuntimeErrors.
        (RuntimeError,),
        r"CUDA error:|CUDNN_STATUS_EXECUTION_FAILED|device-side assert",
        DeviceLost,
        "The accelerator failed",
        "The render process starts anew; where this comes back, look into the kernel's log (dmesg).",
    ),
    Rule(
        (RuntimeError,),
        r"Expected all tensors to be on the same device|is not on the expected device",
        Misplaced,
        "Parts of the model were on different devices",
        "Try again: the model is arranged anew; where it comes back, report it with the log.",
    ),
    Rule(
        (AssertionError,),
        r"Torch not compiled with CUDA enabled",
        ModelUnavailable,
        "This build of torch cannot use CUDA",
        "Install a CUDA build of torch, or set render.device to cpu.",
    ),
    Rule(
        (GatedRepoError,),
        r"",
        ModelUnavailable,
        "The hub gives this model only to those who have agreed to its terms",
        "Agree on its page and set HF_TOKEN for the service, or set the source to a folder with the checkpoint.",
    ),
    Rule(
        (RevisionNotFoundError,),
        r"",
        ModelUnavailable,
        "The hub has no such revision of the model",
        "Set the model's revision to one that there is.",
    ),
    Rule(
        (RepositoryNotFoundError,),
        r"",
        ModelUnavailable,
        "The hub has no such model, or does not show it to this machine",
        "Check the model's source; for a private one set HF_TOKEN for the service.",
    ),
    Rule(
        (OfflineModeIsEnabled, LocalEntryNotFoundError),
        r"",
        ModelUnavailable,
        "The checkpoint is not on this machine, and the hub was not or could not be asked",
        "Connect the machine and unset HF_HUB_OFFLINE, or set the source to a folder with the checkpoint.",
    ),
    Rule(
        (HfHubHTTPError, ConnectionError, TimeoutError),
        r"",
        ModelUnavailable,
        "The hub could not be reached, or did not answer as it should",
        "Nothing need be done where it is a moment's fault: it is tried again.",
    ),
    Rule(
        (OSError,),
        r"No space left on device|Disk quota exceeded",
        ModelUnavailable,
        "The disk is full",
        "Make room where the hub's cache is (HF_HOME).",
    ),
    Rule(
        (SafetensorError,),
        r"",
        ModelUnavailable,
        "A file with weights is broken",
        "Fetch the checkpoint again; the file and its config.json do not belong together, or it was cut short.",
    ),
    Rule(
        (UnidentifiedImageError, Image.DecompressionBombError),
        r"",
        RequestRefused,
        "A picture of the job cannot be used",
        "Save the picture again as PNG or JPEG, in fewer pixels where it is very large.",
    ),
)
"""Tried in this order: the first that fits is taken."""
