"""What the exceptions of the libraries mean: one table, from which a test takes an example of each line.

The class of the error says what is done about it (renderer.py): RequestRefused is permanent; OutOfMemory,
Misplaced and MixedPrecisions are tried again; ModelUnavailable waits for the surroundings; DeviceLost replaces the
process.
"""

from dataclasses import dataclass
from typing import Final

import httpx2
import torch
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from peft.utils.error import NoMatchingPeftModuleError
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from qwen_image_daemon.render.renderer import (
    DeviceLost,
    HostOutOfMemory,
    Misplaced,
    MixedPrecisions,
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


_OUT_OF_MEMORY: Final = "Memory ran out on the device"
_OUT_OF_HOST_MEMORY: Final = "Memory ran out on the host"
_SMALLER: Final = "Draw smaller pictures, or free memory on this machine."
_LOST: Final = "The accelerator failed"
_ANEW: Final = "The render process starts anew; where this comes back, look into the kernel's log (dmesg)."
_MISPLACED: Final = "Parts of the model were on different devices"
_ARRANGED_ANEW: Final = "Try again: the model is arranged anew; where it comes back, report it with the log."
_NO_LORA: Final = "A LoRA of the job does not fit this model"
_ANOTHER_LORA: Final = "Choose one that is made for this model, or fetch its file again."
_NO_PICTURE: Final = "A picture of the job cannot be used"
_SAVE_AGAIN: Final = "Save the picture again as PNG or JPEG, in fewer pixels where it is very large."

RULES: Final = (
    # Memory.
    Rule((torch.OutOfMemoryError,), r"", OutOfMemory, _OUT_OF_MEMORY, _SMALLER),
    Rule((MemoryError,), r"", HostOutOfMemory, _OUT_OF_HOST_MEMORY, _SMALLER),
    Rule(
        # The CPU's allocator, and a mapped file: neither has a type of its own.
        (RuntimeError, OSError),
        r"DefaultCPUAllocator: can't allocate|Cannot allocate memory",
        HostOutOfMemory,
        _OUT_OF_HOST_MEMORY,
        _SMALLER,
    ),
    Rule(
        # Apple's allocator, cuBLAS' and cuDNN's workspaces: likewise. A library whose handle cannot be made, and a
        # convolution that finds no way, lack memory as a rule.
        (RuntimeError,),
        r"out of memory|OutOfMemory|CUBLAS_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
        r"|CUDNN_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
        r"|unable to find an engine to execute this computation|Unable to find a valid cuDNN algorithm",
        OutOfMemory,
        _OUT_OF_MEMORY,
        _SMALLER,
    ),
    # What the machine's owner has to see to, before the rule for all other errors of the accelerator.
    Rule(
        (RuntimeError,),  # AcceleratorError is one
        r"no kernel image is available|unsupported toolchain",
        ModelUnavailable,
        "This build of torch has no code for this card",
        "Install the build of torch that is made for the card, or set render.device to cpu.",
    ),
    Rule(
        (RuntimeError,),
        r"No CUDA GPUs are available|Found no NVIDIA driver|driver version is insufficient|driver initialization"
        r"|unsupported display driver|invalid device ordinal|no CUDA-capable device",
        ModelUnavailable,
        "The card cannot be used",
        "Check the driver (nvidia-smi) and whether the service may use the card, or set render.device to cpu.",
    ),
    Rule(
        (RuntimeError,),
        r"busy or unavailable",
        ModelUnavailable,
        "The card is taken by another program",
        "End it (nvidia-smi lists it), or take the card out of its exclusive mode: nvidia-smi -c DEFAULT.",
    ),
    Rule(
        (RuntimeError,),
        r"system not yet initialized",
        ModelUnavailable,
        "The cards of this machine are not connected yet",
        "Start nvidia-fabricmanager in the driver's own version, and wait for it.",
    ),
    Rule(
        (AssertionError,),
        r"Torch not compiled with CUDA enabled",
        ModelUnavailable,
        "This build of torch cannot use CUDA",
        "Install a CUDA build of torch, or set render.device to cpu.",
    ),
    Rule(
        (NotImplementedError, TypeError),
        r"for the MPS device|'MPS' backend|[Oo]n MPS|MPS framework doesn't support|a MPS Tensor to",
        ModelUnavailable,
        "Apple's device cannot compute this",
        "Set render.precisions to float32 alone, or render.device to cpu.",
    ),
    # A context that is gone. Libraries on top of CUDA report its sticky errors as plain RuntimeErrors.
    Rule((torch.AcceleratorError,), r"", DeviceLost, _LOST, _ANEW),
    Rule(
        (RuntimeError,),
        r"CUDA error:|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|device-side assert|CUDA driver error"
        r"|command buffer exited with error|IOGPUCommandBufferCallbackError",
        DeviceLost,
        _LOST,
        _ANEW,
    ),
    Rule(
        (RuntimeError,),  # DistBackendError is one
        r"NCCL|ncclInternalError|ncclUnhandledCudaError",
        DeviceLost,
        "The cards lost each other",
        "The render process starts anew; where this comes back, look into the kernel's log (dmesg) for the links.",
    ),
    # Where parts of the model are, and in which format.
    Rule(
        (RuntimeError,),  # NotImplementedError is one
        r"Expected all tensors to be on the same device|is not on the expected device"
        r"|cannot be called on meta tensors|Cannot copy out of meta tensor"
        r"|Placeholder storage has not been allocated on MPS"
        r"|can't move a model that has some modules offloaded",
        Misplaced,
        _MISPLACED,
        _ARRANGED_ANEW,
    ),
    Rule(
        (ValueError,),
        r"is on the meta device, we need a `value`",
        Misplaced,
        _MISPLACED,
        _ARRANGED_ANEW,
    ),
    Rule(
        (RuntimeError,),
        r"(have|has) the same dtype|dtypes match|expected scalar type|to match query dtype"
        r"|Input type \(.*\) and (bias|weight) type \(.*\) should be the same",
        MixedPrecisions,
        "Parts of the model compute in different precisions",
        "Use LoRAs and ControlNets of this model; where it comes back, set one precision in render.precisions.",
    ),
    # LoRAs.
    Rule((NoMatchingPeftModuleError,), r"", RequestRefused, _NO_LORA, _ANOTHER_LORA),
    Rule(
        (ValueError, TypeError, RuntimeError),
        r"Target module .* is not supported|`r` should be a positive"
        r"|LoraConfig\.__init__\(\)|size mismatch for .*\.lora_",
        RequestRefused,
        _NO_LORA,
        _ANOTHER_LORA,
    ),
    # The hub.
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
        (DisabledRepoError,),
        r"",
        ModelUnavailable,
        "The hub has closed this model",
        "Its page says why. Set the source to another model, or to a folder with the checkpoint.",
    ),
    Rule(
        (RepositoryNotFoundError,),
        r"",
        ModelUnavailable,
        "The hub has no such model, or does not show it to this machine",
        "Check the model's source; for a private one set HF_TOKEN for the service.",
    ),
    Rule(
        (IncompleteSnapshotError,),
        r"",
        ModelUnavailable,
        "Only a part of the checkpoint is on this machine, and the hub was not or could not be asked for the rest",
        "Connect the machine and unset HF_HUB_OFFLINE: what is missing is fetched, and only that.",
    ),
    Rule(
        (OfflineModeIsEnabled, LocalEntryNotFoundError),
        r"",
        ModelUnavailable,
        "The checkpoint is not on this machine, and the hub was not or could not be asked",
        "Connect the machine and unset HF_HUB_OFFLINE, or set the source to a folder with the checkpoint.",
    ),
    Rule(
        (EntryNotFoundError,),
        r"",
        ModelUnavailable,
        "The hub's model lacks a file that a checkpoint has",
        "Check the model's source and revision: it must be a diffusers checkpoint, with a model_index.json.",
    ),
    Rule(
        (HFValidationError,),
        r"",
        ModelUnavailable,
        "The source is no name of a model on the hub",
        "Write owner/name, or the path of a folder, which begins with / or ./.",
    ),
    Rule(
        (HfHubHTTPError, LocalTokenNotFoundError),
        r"\b40[13] |Invalid credentials|[Tt]oken",
        ModelUnavailable,
        "The hub does not accept this machine's token",
        "Set HF_TOKEN for the service to one that is valid and may read the model.",
    ),
    Rule(
        (HfHubHTTPError,),
        r"\b429 ",
        ModelUnavailable,
        "The hub was asked too often",
        "It is tried again in a while; HF_TOKEN raises the limit.",
    ),
    Rule(
        (FileMetadataError, httpx2.ProxyError, httpx2.UnsupportedProtocol),
        r"",
        ModelUnavailable,
        "What answered is not the hub",
        "Check HF_ENDPOINT, the proxy settings and the firewall.",
    ),
    Rule(
        (OSError,),
        r"Consistency check failed",
        ModelUnavailable,
        "A file came from the hub with another size than announced",
        "It is fetched again at the next try.",
    ),
    Rule(
        (HfHubHTTPError, RevisionResolutionError, httpx2.TransportError, ConnectionError, TimeoutError),
        r"",
        ModelUnavailable,
        "The hub could not be reached, or did not answer as it should",
        "Nothing need be done where it is a moment's fault: it is tried again.",
    ),
    # Disks and the system.
    Rule(
        (OSError,),
        r"No space left on device|Disk quota exceeded",
        ModelUnavailable,
        "The disk is full",
        "Make room where the hub's cache is (HF_HOME).",
    ),
    Rule(
        (OSError,),
        r"Read-only file system|Permission denied|Operation not permitted",
        ModelUnavailable,
        "The service may not read or write a file",
        "Give its user the right to it; what the hub sends goes to HF_HOME, which it must be able to write.",
    ),
    Rule(
        (OSError,),
        r"Input/output error|Stale file handle|Transport endpoint is not connected|Host is down",
        ModelUnavailable,
        "The disk or the share with the model's files failed",
        "Look into the kernel's log (dmesg), and at the share.",
    ),
    Rule(
        (OSError, RuntimeError),
        r"Too many open files|can't start new thread|Resource temporarily unavailable",
        ModelUnavailable,
        "The system gives this service no more files or threads",
        "Raise LimitNOFILE or TasksMax in its unit; where it comes back, report it with the log.",
    ),
    # Checkpoints.
    Rule(
        (SafetensorError,),
        r"header too small|invalid header length|file not fully covered",
        ModelUnavailable,
        "A file with weights was cut short, or has more than it says",
        "Fetch the file again.",
    ),
    Rule(
        (SafetensorError,),
        r"header too large|invalid JSON|invalid UTF-8|invalid offset|invalid shape",
        ModelUnavailable,
        "A file that should hold weights is no safetensors file, or was altered",
        "Fetch the file again; a page of a website may have been saved in its place.",
    ),
    Rule(
        (SafetensorError,),
        r"",
        ModelUnavailable,
        "A file with weights is broken",
        "Fetch the checkpoint again; the file and its config.json do not belong together.",
    ),
    Rule(
        (ValueError, RuntimeError),
        r"Trying to set a tensor of shape|size mismatch for|does not have a parameter or a buffer named",
        ModelUnavailable,
        "A file with weights does not belong to its config.json",
        "Fetch the checkpoint again, all of it from one revision.",
    ),
    Rule(
        (ImportError,),
        r"",
        ModelUnavailable,
        "The checkpoint needs a library that is not installed, or not in a version that fits",
        "Install it in the daemon's environment, or use a checkpoint that needs none.",
    ),
    # Pictures.
    Rule((UnidentifiedImageError, Image.DecompressionBombError), r"", RequestRefused, _NO_PICTURE, _SAVE_AGAIN),
    Rule(
        (OSError, SyntaxError),
        r"image file is truncated|broken data stream|broken PNG|could not create decoder|Truncated File Read",
        RequestRefused,
        _NO_PICTURE,
        _SAVE_AGAIN,
    ),
)
"""Tried in this order: the first that fits is taken."""
