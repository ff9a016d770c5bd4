"""Every foreign exception comes out as the right part of the seam's error tree, with its text, without frames."""

import errno
import importlib
import io
import json
import os
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from accelerate.utils import set_module_tensor_to_device
from huggingface_hub import hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    FileMetadataError,
    IncompleteSnapshotError,
    OfflineModeIsEnabled,
    RevisionResolutionError,
)
from huggingface_hub.utils import hf_raise_for_status
from huggingface_hub.utils._headers import get_token_to_send
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from qwen_image_daemon.render.error_table import RULES
from qwen_image_daemon.render.renderer import (
    BadPicture,
    DeviceLost,
    HostOutOfMemory,
    Misplaced,
    MixedPrecisions,
    ModelUnavailable,
    OutOfMemory,
    RenderError,
    RenderStopped,
    RequestRefused,
    UnexpectedFailure,
)
from qwen_image_daemon.render.translation import loading_failure, rendering_failure, rule_for, translated

SOURCE = "/models/qwen-image"
HUB = "https://hub.example"

SINGLE, HALF = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bfloat16)
EMPTY = torch.zeros(2, 2, device="meta")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


def answer(status: int, path: str = "/api/models/owner/name", **headers: str) -> None:
    """Let huggingface_hub judge an answer of the hub."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    hf_raise_for_status(httpx2.Response(status, headers=named, request=httpx2.Request("GET", HUB + path)))


def ask(url: str) -> None:
    """Ask a server that is not there."""
    with httpx2.Client(trust_env=False) as client:
        client.get(url)


def safetensors_of(content: bytes) -> None:
    """Open a file with this content as safetensors."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(content)
        file.flush()
        safe_open(file.name, "pt")


def tensor_of_a_whole_file(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "whole.safetensors"
        file.write_bytes(headed(tensor_header(2, 8), b"12345678"))
        with safe_open(file, "pt") as opened:
            opened.get_tensor(name)


def headed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def tensor_header(shape: int, end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"a": {"dtype": dtype, "shape": [shape], "data_offsets": [0, end]}}).encode()


def picture(kind: str, length: int | None = None) -> bytes:
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 99).save(noise, kind)
    return noise.getvalue()[:length]


def look_at(content: bytes) -> None:
    Image.open(io.BytesIO(content)).load()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def with_lora_of_another_rank() -> None:
    model = inject_adapter_in_model(LoraConfig(r=2, target_modules=["linear"]), Small())
    model.load_state_dict({"linear.lora_A.default.weight": torch.zeros(4, 2)}, strict=False)


def move_what_is_dispatched() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with tempfile.TemporaryDirectory() as folder:
        dispatch_model(model, {"0": "cpu", "1": "disk"}, main_device="cpu", offload_dir=folder)
        model.to("cpu")


def write_to_a_full_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"weights")


def system_call(number: int) -> None:
    raise OSError(number, os.strerror(number))


PROVOKED: dict[str, tuple[Callable[[], object], type[RenderError], str]] = {
    # Memory.
    "a tensor beyond the memory": (lambda: torch.empty(10**15), HostOutOfMemory, "on the host"),
    "an array beyond the memory": (lambda: np.empty(10**15), HostOutOfMemory, "on the host"),
    "a map beyond the memory": (partial(system_call, errno.ENOMEM), HostOutOfMemory, "on the host"),
    # Devices.
    "a product of two devices": (lambda: SINGLE * EMPTY, Misplaced, "different devices"),
    "a weight without data": (
        lambda: nn.Linear(2, 2, device="meta").to("cpu"),
        Misplaced,
        "different devices",
    ),
    "a value without data": (EMPTY[0, 0].item, Misplaced, "different devices"),
    "accelerate: a weight without data": (
        lambda: set_module_tensor_to_device(nn.Linear(2, 2, device="meta"), "weight", "cpu"),
        Misplaced,
        "different devices",
    ),
    "accelerate: moving what is offloaded": (move_what_is_dispatched, Misplaced, "different devices"),
    # Precisions.
    "a product of two formats": (lambda: SINGLE @ HALF, MixedPrecisions, "precisions"),
    "a layer of another format": (lambda: nn.Linear(2, 2)(HALF), MixedPrecisions, "precisions"),
    "a convolution of another format": (
        lambda: nn.Conv3d(2, 2, 1)(HALF.reshape(1, 2, 2, 1, 1)),
        MixedPrecisions,
        "precisions",
    ),
    "a batched product of two formats": (
        lambda: torch.bmm(SINGLE[None], HALF[None]),
        MixedPrecisions,
        "precisions",
    ),
    "attention over two formats": (
        lambda: scaled_dot_product_attention(SINGLE[None], HALF[None], HALF[None]),
        MixedPrecisions,
        "precisions",
    ),
    "an attention mask of another format": (
        lambda: scaled_dot_product_attention(SINGLE[None], SINGLE[None], SINGLE[None], attn_mask=HALF[None]),
        MixedPrecisions,
        "precisions",
    ),
    "writing into another format": (
        lambda: SINGLE.clone().index_put_((torch.tensor([0]),), HALF[:1]),
        MixedPrecisions,
        "precisions",
    ),
    # LoRAs.
    "a LoRA whose layers are missing": (
        lambda: inject_adapter_in_model(LoraConfig(target_modules=["missing"]), Small()),
        RequestRefused,
        "A LoRA",
    ),
    "a LoRA on a layer that takes none": (
        lambda: inject_adapter_in_model(LoraConfig(target_modules=["norm"]), Small()),
        RequestRefused,
        "A LoRA",
    ),
    "a LoRA without a rank": (
        lambda: inject_adapter_in_model(LoraConfig(r=0, target_modules=["linear"]), Small()),
        RequestRefused,
        "A LoRA",
    ),
    "a LoRA from the future": (lambda: LoraConfig(from_the_future=1), RequestRefused, "A LoRA"),
    "a LoRA of another rank": (with_lora_of_another_rank, RequestRefused, "A LoRA"),
    # The hub.
    "terms that nobody agreed to": (
        lambda: answer(403, X_Error_Code="GatedRepo"),
        ModelUnavailable,
        "agreed to its terms",
    ),
    "a model that is not there": (
        lambda: answer(404, X_Error_Code="RepoNotFound"),
        ModelUnavailable,
        "no such model",
    ),
    "a model that is not shown": (lambda: answer(401), ModelUnavailable, "no such model"),
    "a model that was closed": (
        lambda: answer(403, X_Error_Message="Access to this resource is disabled."),
        ModelUnavailable,
        "has closed this model",
    ),
    "a revision that is not there": (
        lambda: answer(404, X_Error_Code="RevisionNotFound"),
        ModelUnavailable,
        "no such revision",
    ),
    "a file that is not there": (
        lambda: answer(404, "/owner/name/resolve/main/model_index.json", X_Error_Code="EntryNotFound"),
        ModelUnavailable,
        "lacks a file",
    ),
    "a token that is not valid": (
        lambda: answer(401, X_Error_Message="Invalid credentials in Authorization header"),
        ModelUnavailable,
        "token",
    ),
    "a token that may not read": (lambda: answer(403), ModelUnavailable, "token"),
    "no token at all": (lambda: get_token_to_send(True), ModelUnavailable, "token"),
    "too many questions": (lambda: answer(429), ModelUnavailable, "asked too often"),
    "a hub that is broken": (lambda: answer(503), ModelUnavailable, "could not be reached"),
    "a hub that is not there": (lambda: ask("http://127.0.0.1:9/"), ModelUnavailable, "could not be reached"),
    "an address that is none": (lambda: ask("hub.example/x"), ModelUnavailable, "not the hub"),
    "a name that is none": (lambda: hf_hub_url("a/b/c", "x.json"), ModelUnavailable, "no name of a model"),
    "no part of it here": (
        lambda: snapshot_download("owner/name", cache_dir="/nonexistent", local_files_only=True),
        ModelUnavailable,
        "not on this machine",
    ),
    "a connection that broke": (partial(system_call, errno.ECONNRESET), ModelUnavailable, "could not be reached"),
    # Disks and the system.
    "a full disk": (write_to_a_full_disk, ModelUnavailable, "The disk is full"),
    "a quota": (partial(system_call, errno.EDQUOT), ModelUnavailable, "The disk is full"),
    "a disk to read only": (partial(system_call, errno.EROFS), ModelUnavailable, "may not read or write"),
    "a file of others": (partial(system_call, errno.EACCES), ModelUnavailable, "may not read or write"),
    "a broken disk": (
        partial(system_call, errno.EIO),
        ModelUnavailable,
        "the share with the model's files failed",
    ),
    "a share that went away": (partial(system_call, errno.ESTALE), ModelUnavailable, "files failed"),
    "no more files": (partial(system_call, errno.EMFILE), ModelUnavailable, "no more files or threads"),
    # Checkpoints.
    "an empty file": (lambda: safetensors_of(b""), ModelUnavailable, "cut short"),
    "half a header": (lambda: safetensors_of(headed(tensor_header(2, 8))[:20]), ModelUnavailable, "cut short"),
    "half the data": (lambda: safetensors_of(headed(tensor_header(2, 8), b"1234")), ModelUnavailable, "cut short"),
    "a page of a website": (
        lambda: safetensors_of(b"<html>not found</html>" * 9),
        ModelUnavailable,
        "no safetens",
    ),
    "no table": (lambda: safetensors_of(headed(b"[]")), ModelUnavailable, "no safetensors file"),
    "no text": (lambda: safetensors_of(headed(b"\xff\xfe{}")), ModelUnavailable, "no safetensors file"),
    "a number of bytes that is not the shape's": (
        lambda: safetensors_of(headed(tensor_header(3, 8), b"12345678")),
        ModelUnavailable,
        "no safetensors file",
    ),
    "a format that is not known": (
        lambda: safetensors_of(headed(tensor_header(2, 8, "F99"), b"12345678")),
        ModelUnavailable,
        "no safetensors file",
    ),
    "a tensor that is not there": (lambda: tensor_of_a_whole_file("b"), ModelUnavailable, "broken"),
    "a tensor of another shape": (
        lambda: set_module_tensor_to_device(nn.Linear(2, 2), "weight", "cpu", value=torch.zeros(3, 3)),
        ModelUnavailable,
        "does not belong to its config.json",
    ),
    "a state of another shape": (
        lambda: nn.Linear(2, 2).load_state_dict({"weight": torch.zeros(3, 3), "bias": torch.zeros(2)}),
        ModelUnavailable,
        "does not belong to its config.json",
    ),
    "a tensor of another model": (
        lambda: set_module_tensor_to_device(nn.Linear(2, 2), "scale", "cpu", value=torch.zeros(2)),
        ModelUnavailable,
        "does not belong to its config.json",
    ),
    "a library that is missing": (
        lambda: importlib.import_module("a_quantiser_that_nobody_wrote"),
        ModelUnavailable,
        "a library that is not installed",
    ),
    # Pictures.
    "no picture": (lambda: look_at(b"hello"), RequestRefused, "A picture"),
    "half a PNG": (lambda: look_at(picture("PNG", 900)), RequestRefused, "A picture"),
    "half a JPEG": (lambda: look_at(picture("JPEG", 900)), RequestRefused, "A picture"),
    "half a WEBP": (lambda: look_at(picture("WEBP", 400)), RequestRefused, "A picture"),
    "a spoilt PNG": (lambda: look_at(flipped(picture("PNG"), 60)), RequestRefused, "A picture"),
}
"""What the libraries raise themselves when they are made to, what it is told as, and a part of the sentence."""

TOLD: list[tuple[Exception, type[RenderError]]] = [
    # What only hardware, a server or a disk at its end can raise: the texts are the libraries'.
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), OutOfMemory),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), OutOfMemory),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), OutOfMemory),
    (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), OutOfMemory),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), OutOfMemory),
    (RuntimeError("GET was unable to find an engine to execute this computation"), OutOfMemory),
    (RuntimeError("... kIOGPUCommandBufferCallbackErrorOutOfMemory"), OutOfMemory),
    (torch.AcceleratorError("CUDA error: out of memory"), OutOfMemory),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), DeviceLost),
    (torch.AcceleratorError("CUDA error: device-side assert triggered"), DeviceLost),
    (torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceLost),
    (torch.AcceleratorError("CUDA error: the launch timed out and was terminated"), DeviceLost),
    (torch.AcceleratorError("CUDA error: uncorrectable NVLink error detected during the execution"), DeviceLost),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceLost),
    (RuntimeError("CUDA driver error: context is destroyed"), DeviceLost),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"), DeviceLost),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLost),
    (RuntimeError("MPS: command buffer exited with error status. (00000005:...InnocentVictim)"), DeviceLost),
    (torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp, remote process exited"), DeviceLost),
    (RuntimeError("Expected all tensors to be on the same device, but found at least two devices"), Misplaced),
    (RuntimeError("Placeholder storage has not been allocated on MPS device!"), Misplaced),
    (AssertionError("Torch not compiled with CUDA enabled"), ModelUnavailable),
    (torch.AcceleratorError("CUDA error: no kernel image is available for execution"), ModelUnavailable),
    (RuntimeError("CUDA error: the provided PTX was compiled with an unsupported toolchain."), ModelUnavailable),
    (RuntimeError("No CUDA GPUs are available"), ModelUnavailable),
    (
        RuntimeError("CUDA error: system has unsupported display driver / cuda driver combination"),
        ModelUnavailable,
    ),
    (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), ModelUnavailable),
    (RuntimeError("Error 802: system not yet initialized"), ModelUnavailable),
    (TypeError("BFloat16 is not supported on MPS"), ModelUnavailable),
    (TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't"), ModelUnavailable),
    (NotImplementedError("'aten::x' is not currently implemented for the MPS device"), ModelUnavailable),
    (OSError("Consistency check failed: file should be of size 9 but has size 5"), ModelUnavailable),
    (FileMetadataError("Response is missing the 'X-Repo-Commit' header"), ModelUnavailable),
    (httpx2.ProxyError("407 Proxy Authentication Required"), ModelUnavailable),
    (httpx2.ReadTimeout("The read operation timed out"), ModelUnavailable),
    (RevisionResolutionError("Cannot resolve revision 'main'"), ModelUnavailable),
    (OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled"), ModelUnavailable),
    (IncompleteSnapshotError("3 file(s) are missing (a, b, c).", "/cache"), ModelUnavailable),
    (RuntimeError("can't start new thread"), ModelUnavailable),
    (Image.DecompressionBombError("exceeds limit of 178956970 pixels"), RequestRefused),
]


def raised_by(action: Callable[[], object]) -> Exception:
    """Give what the action raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  which one is the question
        action()
    return caught.value


ONLY_AT_LOADING: list[Exception] = [
    OSError("Unable to load weights from checkpoint file"),
    ValueError("unknown configuration"),
    FileNotFoundError("model-00002-of-00004.safetensors"),
    AttributeError("module diffusers has no attribute QwenImage9Pipeline"),
    RuntimeError("Error(s) in loading state_dict"),
    TypeError("unexpected keyword argument"),
]


def described(fault: Exception) -> str:
    return f"{type(fault).__name__}-{str(fault)[:40]}"


@pytest.mark.parametrize("name", PROVOKED)
def test_what_a_library_raises_is_known_for_what_it_is(name: str) -> None:
    action, expected, part = PROVOKED[name]
    fault = raised_by(action)

    for told in (loading_failure(fault, SOURCE), rendering_failure(fault)):
        assert type(told) is expected
        assert part in str(told)
        assert type(fault).__name__ in str(told)
        assert told.fix


@pytest.mark.parametrize(("fault", "expected"), TOLD, ids=lambda value: described(value) if str(value) else "")
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
    assert f"for a reason that is not known here: {type(fault).__name__}: {fault}" in str(told)


def test_every_rule_has_an_example_here() -> None:
    faults = [*(raised_by(action) for action, _, _ in PROVOKED.values()), *(fault for fault, _ in TOLD)]
    reached = {rule for rule, _ in filter(None, map(rule_for, faults))}

    assert [rule for rule in RULES if rule not in reached] == []


def test_every_sentence_begins_and_ends_as_one() -> None:
    for rule in RULES:
        assert rule.what[0].isupper()
        assert not rule.what.endswith(".")
        assert rule.fix.endswith(".")


def test_long_and_broken_texts_become_one_short_line() -> None:
    told = str(rendering_failure(KeyError("line\n" * 1_000)))

    assert "\n" not in told
    assert len(told) < 700


def test_what_is_behind_a_libraries_own_complaint_is_told() -> None:
    wrapped = OSError("We couldn't connect to load this model")
    wrapped.__cause__ = raised_by(lambda: answer(404, X_Error_Code="RepoNotFound"))

    told = loading_failure(wrapped, SOURCE)

    assert str(told).startswith("The hub has no such model")


def test_what_a_library_was_handling_when_it_complained_is_told() -> None:
    """Diffusers raises another error in place of the hub's, and names no cause."""

    def complain() -> None:
        try:
            answer(403, X_Error_Code="GatedRepo")
        except OSError:
            raise OSError("Can't load config for 'owner/name'")  # noqa: B904  as diffusers does

    assert str(loading_failure(raised_by(complain), SOURCE)).startswith("The hub gives this model only to those")


def test_what_a_fault_is_itself_goes_before_what_was_being_handled() -> None:
    def complain() -> None:
        try:
            importlib.import_module("a_quantiser_that_nobody_wrote")
        except ImportError:
            torch.empty(10**15)

    assert type(rendering_failure(raised_by(complain))) is HostOutOfMemory


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


def test_a_stop_passes_through_wherever_it_comes_from() -> None:
    stop = RenderStopped()

    def fails() -> None:
        raise stop

    with pytest.raises(RenderStopped) as caught:
        translated(fails, rendering_failure)
    assert caught.value is stop


def test_the_callers_own_exception_passes_through_as_the_same_object() -> None:
    stop = RenderStopped()

    def fails() -> None:
        raise stop

    with pytest.raises(RenderStopped) as caught:
        translated(fails, rendering_failure, lambda: True)
    assert caught.value is stop
