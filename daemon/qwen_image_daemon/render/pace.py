"""How far a job is, and how long it will still take."""

import time
from datetime import datetime

from qwen_image_daemon.render.renderer import Progress
from qwen_image_daemon.spool.records import JobRecord
from qwen_image_daemon.spool.reports import CurrentJob


class Pace:
    """Counts the steps of one job, and estimates its end from the pace so far, at first from that of others.

    `images_left` pictures of `steps` steps each are still to be drawn; `started_at` is for the record.
    """

    def __init__(self, record: JobRecord, images_left: int, steps: int, started_at: datetime) -> None:
        self._record = record
        self._images_left = images_left
        self._steps = steps
        self._started_at = started_at
        self._began = time.monotonic()
        self._images_done = 0

    def image_done(self) -> None:
        """Count one picture."""
        self._images_done += 1

    def at(self, index: int, progress: Progress) -> CurrentJob:
        """Say where the job is: picture `index`, counted from 0, at this step."""
        steps_done = self._images_done * self._steps + progress.step
        steps_left = self._images_left * self._steps - steps_done
        eta = None if progress.expected_seconds is None else progress.expected_seconds * self._images_left
        if steps_done:
            eta = (time.monotonic() - self._began) / steps_done * steps_left
        return CurrentJob(
            id=self._record.id,
            name=self._record.name,
            image=index + 1,
            images=self._record.to_do().num_images,
            stage=progress.stage,
            step=progress.step,
            steps=progress.steps,
            started_at=self._started_at,
            eta_seconds=None if eta is None else round(eta, 1),
            note=progress.note,
        )
