"""What is kept in mind of pictures that were drawn, over restarts, in small files. Imports no torch.

A file that cannot be read or written costs a detour, or an estimate that is less good, and nothing else.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.settings import PlanName
from qwen_image_daemon.spool.durable import replace_content

log = structlog.get_logger()

PLANS_THAT_WORKED: Final = "plans-that-worked.json"
LEARNED: Final = "learned.json"
_MOST_KINDS: Final = 200
"""Kinds of pictures that are kept in mind: some 100 KiB. The one that was not drawn for longest goes first."""
_NEWS: Final = 0.1
"""By how much a pace must differ from what is known to be written down."""


class WorkedBefore:
    """What a kind of picture was drawn with after memory had run out.

    An entry is forgotten after a while, so that the better way is tried again: what was in the way may be gone.
    """

    def __init__(self, file: Path | None, for_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Keep it in a file, or only for this process where there is None."""
        self._file = file
        self._for_seconds = for_seconds
        self._clock = clock
        self._entries: dict[str, tuple[str, float]] = _read(file, _name_and_moment)

    def name(self, kind: str) -> str | None:
        """Give the name of what worked lately for this kind of picture, if memory ever ran out for it."""
        name, at = self._entries.get(kind, (None, 0.0))
        # The host's clock may have been set back since.
        return name if 0 <= self._clock() - at < self._for_seconds else None

    def note(self, kind: str, name: str) -> None:
        """Keep in mind what worked."""
        self._entries[kind] = name, self._clock()
        _write(self._file, self._entries)


@dataclass(frozen=True, slots=True)
class Experience:
    """What drawing such a picture took."""

    peak_bytes: int | None
    """The most that it held of the device; of the host where the CPU drew it. None where nothing says so."""
    step_seconds: float
    """Of one denoising step, with all its passes."""
    other_seconds: float
    """Of encoding and decoding."""

    def seconds(self, steps: int) -> float:
        """Say how long such a picture of so many steps takes."""
        return self.step_seconds * steps + self.other_seconds

    def joined_with(self, later: "Experience") -> "Experience":
        """Give the larger peak, and the mean of the paces, so that one slow picture is soon made up for."""
        peaks = [peak for peak in (self.peak_bytes, later.peak_bytes) if peak is not None]
        return Experience(
            max(peaks, default=None),
            (self.step_seconds + later.step_seconds) / 2,
            (self.other_seconds + later.other_seconds) / 2,
        )

    def is_news_to(self, known: "Experience") -> bool:
        """Say whether it is worth writing down."""
        return self.peak_bytes != known.peak_bytes or any(
            abs(mine - theirs) > _NEWS * theirs
            for mine, theirs in (
                (self.step_seconds, known.step_seconds),
                (self.other_seconds, known.other_seconds),
            )
        )


class Learned:
    """What pictures took, by their kind and by the plan that they were drawn with."""

    def __init__(self, file: Path | None) -> None:
        """Keep it in a file, or only for this process where there is None."""
        self._file = file
        self._kinds: dict[str, dict[PlanName, Experience]] = _read(file, _experiences)

    def of(self, kind: str) -> Mapping[PlanName, Experience]:
        """Give what is known of a kind, by plan."""
        return self._kinds.get(kind, {})

    def note(self, kind: str, plan: PlanName, experience: Experience) -> None:
        """Keep in mind what a picture took."""
        of_kind = self._kinds.pop(kind, {})
        known = of_kind.get(plan)
        of_kind[plan] = experience if known is None else known.joined_with(experience)
        self._kinds[kind] = of_kind
        while len(self._kinds) > _MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        if known is None or of_kind[plan].is_news_to(known):
            _write(
                self._file,
                {
                    kind: {plan: list(astuple(each)) for plan, each in plans.items()}
                    for kind, plans in self._kinds.items()
                },
            )


@dataclass(frozen=True, slots=True)
class Remembered:
    """Both."""

    worked: WorkedBefore
    learned: Learned = field(default_factory=lambda: Learned(None))

    @classmethod
    def in_folder(cls, state: Path | None, for_seconds: float) -> "Remembered":
        """Keep both in a folder, or only for this process where there is None."""
        return cls(
            WorkedBefore(state and state / PLANS_THAT_WORKED, for_seconds), Learned(state and state / LEARNED)
        )


def _name_and_moment(entry: Any) -> tuple[str, float]:
    name, at = entry
    return str(name), float(at)


def _experiences(entry: Any) -> dict[PlanName, Experience]:
    # A plan of another version is passed over.
    return {PLAN_OF[plan].name: _experience(*found) for plan, found in entry.items() if plan in PLAN_OF}


def _experience(peak: Any, step_seconds: Any, other_seconds: Any) -> Experience:
    return Experience(None if peak is None else int(peak), float(step_seconds), float(other_seconds))


def _read(file: Path | None, read: Callable[[Any], Any]) -> dict[str, Any]:
    if file is None or not file.exists():
        return {}
    try:
        return {kind: read(entry) for kind, entry in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("memory.notes_unreadable", file=str(file), reason=str(error))
        return {}


def _write(file: Path | None, entries: Mapping[str, Any]) -> None:
    if file is None:
        return
    try:
        replace_content(file, json.dumps(entries, indent=2).encode())
    except OSError as error:
        log.warning("memory.not_noted", file=str(file), reason=str(error))
