"""Every foreign exception comes out as the right part of the seam's error tree, with its text, without frames."""

import weakref

import httpx2
import pytest
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

from qwen_image_daemon.render.error_table import RULES
from qwen_image_daemon.render.renderer import (
    BadPicture,
    DeviceLost,
    HostOutOfMemory,
    Misplaced,
    ModelUnavailable,
    OutOfMemory,
    RenderError,
    RenderStopped,
    RequestRefused,
    UnexpectedFailure,
)
from qwen_image_daemon.render.translation import loading_failure, rendering_failure, translated

SOURCE = "/models/qwen-image"
ANSWER = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.example/api"))

KNOWN: list[tuple[Exception, type[RenderError]]] = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), OutOfMemory),
    (MemoryError("Unable to allocate 9.00 GiB for an array"), HostOutOfMemory),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 bytes"), HostOutOfMemory),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), OutOfMemory),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), OutOfMemory),
    (torch.AcceleratorError("CUDA error: out of memory"), OutOfMemory),
    (OSError(12, "Cannot allocate memory"), HostOutOfMemory),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), DeviceLost),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"), DeviceLost),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLost),
    (AssertionError("Torch not compiled with CUDA enabled"), ModelUnavailable),
    (RuntimeError("Expected all tensors to be on the same device, but found at least two devices"), Misplaced),
    (RuntimeError("Tensor on device meta is not on the expected device cuda:0!"), Misplaced),
    (torch.AcceleratorError("CUDA error: no kernel image is available for execution"), ModelUnavailable),
    (RuntimeError("No CUDA GPUs are available"), ModelUnavailable),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceLost),
    (torch.AcceleratorError("CUDA error: device-side assert triggered"), DeviceLost),
    (GatedRepoError("403: you must be authenticated", response=ANSWER), ModelUnavailable),
    (RevisionNotFoundError("404: no revision v9", response=ANSWER), ModelUnavailable),
    (RepositoryNotFoundError("404: no such repository", response=ANSWER), ModelUnavailable),
    (OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled"), ModelUnavailable),
    (LocalEntryNotFoundError("Cannot find the requested files in the local cache"), ModelUnavailable),
    (HfHubHTTPError("500: internal error", response=ANSWER), ModelUnavailable),
    (ConnectionResetError(104, "Connection reset by peer"), ModelUnavailable),
    (OSError(28, "No space left on device"), ModelUnavailable),
    (SafetensorError("Error while deserializing header: HeaderTooLarge"), ModelUnavailable),
    (UnidentifiedImageError("cannot identify image file"), RequestRefused),
    (Image.DecompressionBombError("exceeds limit of 178956970 pixels"), RequestRefused),
]

ONLY_AT_LOADING: list[Exception] = [
    OSError("Unable to load weights from checkpoint file"),
    ValueError("Trying to set a tensor of shape [1] in a tensor of shape [2]"),
    FileNotFoundError("model-00002-of-00004.safetensors"),
    AttributeError("module diffusers has no attribute QwenImage9Pipeline"),
    RuntimeError("Error(s) in loading state_dict"),
    TypeError("unexpected keyword argument"),
]


def described(fault: Exception) -> str:
    return f"{type(fault).__name__}-{str(fault)[:40]}"


@pytest.mark.parametrize(("fault", "expected"), KNOWN, ids=lambda value: described(value) if str(value) else "")
def test_known_faults_mean_the_same_at_loading_and_at_rendering(
    fault: Exception, expected: type[RenderError]
) -> None:
    for told in (loading_failure(fault, SOURCE), rendering_failure(fault)):
        assert type(told) is expected
        assert str(fault) in str(told)
        assert type(fault).__name__ in str(told)
        assert told.fix


@pytest.mark.parametrize("fault", ONLY_AT_LOADING, ids=described)
def test_everything_else_at_loading_is_the_checkpoints_fault_and_names_it(fault: Exception) -> None:
    told = loading_failure(fault, SOURCE)

    assert type(told) is ModelUnavailable
    assert SOURCE in str(told)
    assert str(fault) in str(told)


@pytest.mark.parametrize("fault", ONLY_AT_LOADING, ids=described)
def test_everything_else_at_rendering_is_unexpected_and_keeps_type_and_text(fault: Exception) -> None:
    told = rendering_failure(fault)

    assert type(told) is UnexpectedFailure
    assert f"{type(fault).__name__}: {fault}" in str(told)


def test_every_rule_has_an_example_here() -> None:
    reached = {str(rendering_failure(fault)).partition(":")[0] for fault, _ in KNOWN}

    assert reached == {rule.what for rule in RULES}


def test_long_and_broken_texts_become_one_short_line() -> None:
    told = str(rendering_failure(KeyError("line\n" * 1_000)))

    assert "\n" not in told
    assert len(told) < 700


def test_what_is_behind_a_libraries_own_complaint_is_told() -> None:
    wrapped = OSError("We couldn't connect to load this model")
    wrapped.__cause__ = RepositoryNotFoundError("404: no such repository", response=ANSWER)

    told = loading_failure(wrapped, SOURCE)

    assert str(told).startswith("The hub has no such model")


class Tensor:
    """Stands for memory that a frame holds."""


def test_a_translated_fault_holds_nothing_of_the_frames_it_came_from() -> None:
    held: list[weakref.ref[Tensor]] = []

    def fails() -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise RuntimeError("deep inside")

    with pytest.raises(UnexpectedFailure) as caught:
        translated(fails, rendering_failure)

    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert held[0]() is None


def test_a_render_error_passes_through_as_the_same_object() -> None:
    error = BadPicture("black", "try again")

    def fails() -> None:
        raise error

    with pytest.raises(BadPicture) as caught:
        translated(fails, rendering_failure)
    assert caught.value is error


def test_the_callers_own_exception_passes_through_as_the_same_object() -> None:
    stop = RenderStopped()

    def fails() -> None:
        raise stop

    with pytest.raises(RenderStopped) as caught:
        translated(fails, rendering_failure, lambda: True)
    assert caught.value is stop
