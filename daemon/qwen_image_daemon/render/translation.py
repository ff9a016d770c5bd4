"""Foreign exceptions in, the seam's error tree out: the only place where the two meet.

A rule is tried after the other; what no rule knows is ModelUnavailable at loading and UnexpectedFailure at
rendering. The original type and text are always part of the sentence.
"""

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
import torch

from qwen_image_daemon.render.renderer import (
    DeviceLost,
    ModelUnavailable,
    OutOfMemory,
    RenderError,
    UnexpectedFailure,
)

log = structlog.get_logger()
Result = TypeVar("Result")
LONGEST_TEXT = 600


@dataclass(frozen=True, slots=True)
class Rule:
    """An exception of one of `kinds` whose text matches the regular expression `text` is told as `error`."""

    kinds: tuple[type[Exception], ...]
    text: str
    error: type[RenderError]
    what: str
    fix: str


RULES = (
    Rule(
        (torch.OutOfMemoryError, MemoryError),
        r"",
        OutOfMemory,
        "Memory ran out",
        "Draw smaller pictures, or free memory on this machine.",
    ),
    Rule(
        # The CPU's allocator, Apple's, cuBLAS' workspace, and a mapped file: none of them has a type of its own.
        (RuntimeError, OSError),
        r"DefaultCPUAllocator: can't allocate|out of memory|CUBLAS_STATUS_ALLOC_FAILED|Cannot allocate memory",
        OutOfMemory,
        "Memory ran out",
        "Draw smaller pictures, or free memory on this machine.",
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
        (AssertionError,),
        r"Torch not compiled with CUDA enabled",
        ModelUnavailable,
        "This build of torch cannot use CUDA",
        "Install a CUDA build of torch, or set render.device to cpu.",
    ),
)


def loading_failure(fault: Exception, source: str) -> RenderError:
    """Say why the checkpoint could not be loaded."""
    return _by_rule(fault) or ModelUnavailable(
        f"{source} could not be loaded: {_told(fault)}",
        "Check that the checkpoint is whole and of a kind that this program draws with.",
    )


def rendering_failure(fault: Exception) -> RenderError:
    """Say why a picture could not be drawn."""
    return _by_rule(fault) or UnexpectedFailure(
        f"Drawing failed: {_told(fault)}", "Try again; where it comes back, report it with the log."
    )


def translated(
    action: Callable[[], Result],
    failure: Callable[[Exception], RenderError],
    is_callers_own: Callable[[], bool] = lambda: False,
) -> Result:
    """Run the action; what it raises comes out as a RenderError that holds no frame, and so no tensor, alive.

    An exception passes through unchanged where `is_callers_own()` is true of it.
    """
    try:
        return action()
    except RenderError as known:
        told = known
        _let_go_of_frames(known)
    except Exception as fault:
        # The boundary: libraries raise whatever they like.
        if is_callers_own():
            raise
        told = failure(fault)
        log.warning("fault.translated", to=type(told).__name__, exc_info=fault)
        _let_go_of_frames(fault)
    # Outside of the handlers, so that the foreign exception is not kept as the context.
    raise told from None


def _let_go_of_frames(fault: BaseException) -> None:
    """Empty the frames of the fault and of what led to it: whoever keeps the fault would keep their tensors."""
    chain: list[BaseException] = [fault]
    for link in chain:
        traceback.clear_frames(link.__traceback__)
        link.__traceback__ = None
        chain += [cause for cause in (link.__cause__, link.__context__) if cause and cause not in chain]


def _by_rule(fault: Exception) -> RenderError | None:
    for rule in RULES:
        if isinstance(fault, rule.kinds) and re.search(rule.text, str(fault)):
            return rule.error(f"{rule.what}: {_told(fault)}", rule.fix)
    return None


def _told(fault: Exception) -> str:
    """Give type and text on one line."""
    text = " ".join(str(fault).split())
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__
