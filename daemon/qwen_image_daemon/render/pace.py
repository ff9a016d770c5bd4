"""How far a job is, and how long it will still take."""

import math
import time
from datetime import datetime

from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.renderer import Progress
from qwen_image_daemon.spool.reports import CurrentJob


class Pace:
    """Counts the steps of one job, and estimates its end from the pace so far."""

    def __init__(
        self, job_id: str, name: str, parameters: EffectiveParameters, *, done: int, started_at: datetime
    ) -> None:
        self._job_id = job_id
        self._name = name
        self._images = parameters.num_images
        self._steps = math.ceil(parameters.num_inference_steps * (parameters.strength or 1.0))
        self._started_at = started_at
        self._began = time.monotonic()
        self._images_left = parameters.num_images - done
        self._images_done = 0

    def image_done(self) -> None:
        """Count one picture."""
        self._images_done += 1

    def at(self, index: int, progress: Progress) -> CurrentJob:
        """Say where the job is: picture `index`, counted from 0, at this step."""
        steps_done = self._images_done * self._steps + progress.step
        steps_left = self._images_left * self._steps - steps_done
        eta = (time.monotonic() - self._began) / steps_done * steps_left if steps_done else None
        return CurrentJob(
            id=self._job_id,
            name=self._name,
            image=index + 1,
            images=self._images,
            stage=progress.stage,
            step=progress.step,
            steps=progress.steps,
            started_at=self._started_at,
            eta_seconds=None if eta is None else round(eta, 1),
        )
