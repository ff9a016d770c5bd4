"""Foreign exceptions in, the seam's error tree out: the only place where the two meet.

A rule is tried after the other; what no rule knows is ModelUnavailable at loading and UnexpectedFailure at
rendering. The original type and text are always part of the sentence.
"""

import re
import traceback
from collections.abc import Callable
from typing import TypeVar

import structlog

from qwen_image_daemon.render.error_table import RULES, Rule
from qwen_image_daemon.render.renderer import (
    ModelUnavailable,
    OutOfMemory,
    RenderError,
    RenderStopped,
    UnexpectedFailure,
)

log = structlog.get_logger()
Result = TypeVar("Result")
LONGEST_TEXT = 600


def loading_failure(fault: Exception, source: str) -> RenderError:
    """Say why the checkpoint could not be loaded."""
    return _by_rule(fault) or ModelUnavailable(
        f"{source} could not be loaded, for a reason that is not known here: {_told(fault)}",
        "Check that the checkpoint is whole and of a kind that this program draws with; report it with the log.",
    )


def rendering_failure(fault: Exception) -> RenderError:
    """Say why a picture could not be drawn."""
    return _by_rule(fault) or UnexpectedFailure(
        f"Drawing failed, for a reason that is not known here: {_told(fault)}",
        "Try again; where it comes back, report it with the log.",
    )


def shortage(fault: Exception) -> OutOfMemory:
    """Say that memory ran out, and where. Raises the fault itself where it is anything else."""
    told = _by_rule(fault)
    if isinstance(told, OutOfMemory):
        return told
    raise fault


def rule_for(fault: Exception) -> tuple[Rule, BaseException] | None:
    """Give the rule that knows the exception or what led to it, and which of these it knows."""
    causes = _chain(fault)
    # What libraries raise themselves says more than what they wrapped it in. diffusers wraps what the hub's client
    # raised without naming it as the cause: that is looked at last, for it may be another story.
    for link in (*reversed(causes), *_contexts(causes)):
        for rule in RULES:
            if isinstance(link, rule.kinds) and re.search(rule.text, str(link)):
                return rule, link
    return None


def translated(
    action: Callable[[], Result],
    failure: Callable[[Exception], RenderError],
    is_callers_own: Callable[[], bool] = lambda: False,
) -> Result:
    """Run the action; what it raises comes out as a RenderError that holds no frame, and so no tensor, alive.

    An exception passes through unchanged where `is_callers_own()` is true of it, and RenderStopped always does.
    """
    try:
        return action()
    except RenderStopped:
        # A ControlNet may be fetched while a picture is drawn: the stop comes out of both.
        raise
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
    found = rule_for(fault)
    if found is None:
        return None
    rule, link = found
    return rule.error(f"{rule.what}: {_told(link)}", rule.fix)


def _chain(fault: BaseException) -> list[BaseException]:
    """Give an exception, what caused it, what caused that, and so on."""
    chain = [fault]
    while chain[-1].__cause__ is not None and chain[-1].__cause__ not in chain:
        chain.append(chain[-1].__cause__)
    return chain


def _contexts(causes: list[BaseException]) -> list[BaseException]:
    """Give what was being handled when these were raised, and when that was, the nearest first."""
    found = [*causes]
    for link in found:
        behind = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        if behind is not None and behind not in found:
            found.append(behind)
    return found[len(causes) :]


def _told(fault: BaseException) -> str:
    """Give type and text on one line."""
    text = " ".join(str(fault).split())
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__
