"""The caller's progress function, and whether a failure is the caller's own. No torch."""

from collections.abc import Callable

from qwen_image_daemon.render.renderer import Progress, Stage


class CallerProgress:
    """Hands progress to the caller and knows whether an exception is the caller's own.

    `is_callers_own` turns true while the caller's function runs and stays so where it raises.
    """

    def __init__(self, progress: Callable[[Progress], None]) -> None:
        self._progress = progress
        self._with_caller = False
        self.expected_seconds: float | None = None
        """How long the picture will take, where that is known."""
        self.note: str | None = None
        """What a person should know of how it is drawn."""

    def report(self, stage: Stage, step: int, steps: int) -> None:
        """Call the caller's function."""
        self._with_caller = True
        self._progress(Progress(stage, step, steps, self.expected_seconds, self.note))
        self._with_caller = False

    def is_callers_own(self) -> bool:
        """Say whether the exception that is under way came out of the caller's function."""
        return self._with_caller
