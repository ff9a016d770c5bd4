"""What a drawing is interrupted by, and the signs of life that it gives."""

from collections.abc import Callable
from typing import Final

from qwen_image_daemon.loop_control import LoopControl
from qwen_image_daemon.render.renderer import Progress, RenderStopped
from qwen_image_daemon.settings import RenderSettings
from qwen_image_daemon.spool.control import Controls

_PATIENCE: Final = 3
"""A step that takes so many times as long as expected is a hang, where that is more than the settings allow."""


class Interruptions:
    """Stops, pauses and cancelled jobs, looked for where a drawing can be left.

    `between_images` is called before each image: a long job must not hold up what is asked of others.
    """

    def __init__(
        self,
        settings: RenderSettings,
        control: LoopControl,
        controls: Controls,
        between_images: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._control = control
        self._controls = controls
        self._between_images = between_images

    def at_load(self) -> None:
        """Announce that the loading of a model begins or gets on. Raises RenderStopped where a stop is asked.

        Nothing is lost by that: files that came whole from the hub stay.
        """
        self._control.beat(self._settings.load_timeout_seconds)
        if self._control.stopping.is_asked():
            raise RenderStopped

    def at_start(self) -> None:
        """Announce the first step of a job, or of what is drawn for none."""
        self._control.beat(self._settings.step_timeout_seconds)

    def at_image(self) -> None:
        """Raise RenderStopped where a stop or a pause is asked: each image is finished first."""
        self._between_images()
        self._leave_if_asked()

    def at_step_of_nobody(self) -> None:
        """Raise RenderStopped where a stop or a pause is asked: what is drawn for no job is left at once."""
        self.at_start()
        self._leave_if_asked()

    def at_step(self, job_id: str, progress: Progress) -> None:
        """Raise RenderStopped where the job was cancelled, or a stop is urgent. Costs one look at one name."""
        # A picture on the CPU may take hours, and is no hang.
        expected = _PATIENCE * (progress.expected_seconds or 0.0) / max(1, progress.steps)
        self._control.beat(max(self._settings.step_timeout_seconds, expected))
        if self._control.stopping.is_urgent() or self._controls.is_cancelled(job_id):
            raise RenderStopped

    def _leave_if_asked(self) -> None:
        if self._control.stopping.is_asked() or self._controls.paused_by():
            raise RenderStopped
