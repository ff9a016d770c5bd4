"""Which job is next: those for what is loaded go first for a while, so that models and LoRAs change seldom."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from qwen_image_daemon.spool.waiting import WaitingJob

_LOOK_AHEAD: Final = 1_000
"""So many jobs of the queue are looked at. A queue may hold a hundred thousand."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a job is drawn with: a model, and the LoRAs upon it, by name."""

    model: str
    loras: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: WaitingJob) -> "Setup":
        """Give what a job needs."""
        return cls(job.model, job.loras)


class Grouping:
    """Chooses among jobs of equal priority. The one whose turn it is waits at most `patience_seconds` for others.

    By our own monotonic clock, from the first time that another one goes before it.
    """

    def __init__(self, patience_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._passed_over: tuple[str, float] | None = None

    def choose(self, ready: Iterable[WaitingJob], at_hand: Setup | None) -> WaitingJob | None:
        """Give the next one of the jobs that can be begun, which come in their order; None where there is none."""
        jobs = iter(ready)
        first = next(jobs, None)
        if first is None or at_hand is None or first.suspect or Setup.of(first) == at_hand:
            self._passed_over = None
            return first
        if self._is_out_of_patience(first):
            self._passed_over = None
            return first
        equals = [job for job in islice(jobs, _LOOK_AHEAD) if job.priority == first.priority and not job.suspect]
        fitting = next((job for job in equals if Setup.of(job) == at_hand), None)
        if fitting is None and first.model != at_hand.model:
            # Another LoRA on the same model is still less work than another model.
            fitting = next((job for job in equals if job.model == at_hand.model), None)
        if fitting is None:
            self._passed_over = None
            return first
        if self._passed_over is None or self._passed_over[0] != first.id:
            self._passed_over = (first.id, self._clock())
        return fitting

    def note(self, chosen: WaitingJob, at_hand: Setup | None) -> str | None:
        """Say why the job that was chosen last goes before another; None where it is its turn."""
        if self._passed_over is None or at_hand is None:
            return None
        left = self._passed_over[1] + self._patience_seconds - self._clock()
        with_loras = " and its LoRAs" if chosen.loras else ""
        return (
            f"{chosen.name} goes before older jobs because {at_hand.model}{with_loras} is loaded; "
            f"they wait for that at most {max(left, 0):.0f} s more."
        )

    def _is_out_of_patience(self, first: WaitingJob) -> bool:
        if self._patience_seconds <= 0:
            return True
        if self._passed_over is None or self._passed_over[0] != first.id:
            return False
        return self._clock() - self._passed_over[1] >= self._patience_seconds
