"""How long pictures will take, by how long those took that are drawn already. What is not known is not guessed."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.spool.records import ImageRecord
from qwen_image_daemon.spool.spool import Spool

MOST_READ: Final = 200
"""Finished jobs that are looked at, the latest ones."""
_PIXELS: Final = 1_000_000


@dataclass(slots=True)
class _Pace:
    """What one model did so far."""

    pictures: int = 0
    work: float = 0.0
    """Steps × megapixels × passes of the transformer."""
    denoise_seconds: float = 0.0
    other_seconds: float = 0.0

    def add(self, parameters: EffectiveParameters, image: ImageRecord) -> None:
        self.pictures += 1
        self.work += work_of(parameters, image.steps)
        self.denoise_seconds += image.seconds.denoise
        self.other_seconds += image.seconds.encode + image.seconds.decode + image.save_seconds


class Paces:
    """The pace of each model: seconds for each step and megapixel, and for each picture besides."""

    def __init__(self, spool: Spool) -> None:
        """Read the jobs that succeeded last. Raises OSError."""
        self._of: defaultdict[str, _Pace] = defaultdict(_Pace)
        for parameters, images in _drawn(spool):
            for image in images:
                self._of[parameters.model].add(parameters, image)

    def pictures(self, model: str) -> int:
        """Count the pictures that an estimate rests on."""
        return self._of[model].pictures

    def seconds(self, parameters: EffectiveParameters) -> float | None:
        """Estimate how long a job draws, without loading and waiting; None where its model drew nothing yet."""
        pace = self._of[parameters.model]
        if not pace.work:
            return None
        work = work_of(parameters, steps_run(parameters))
        each = pace.denoise_seconds / pace.work * work + pace.other_seconds / pace.pictures
        return parameters.num_images * each


def work_of(parameters: EffectiveParameters, steps: int) -> float:
    """Give steps × megapixels × passes. Guidance runs the transformer twice at each step."""
    passes = 1 if parameters.negative_prompt is None else 2
    return steps * parameters.width * parameters.height / _PIXELS * passes


def steps_run(parameters: EffectiveParameters) -> int:
    """Give the steps that are run: with a strength, only the last ones, ceil(steps × strength)."""
    strength = 1.0 if parameters.strength is None else parameters.strength
    return ceil(parameters.num_inference_steps * strength)


def _drawn(spool: Spool) -> Iterator[tuple[EffectiveParameters, tuple[ImageRecord, ...]]]:
    shelf = spool.shelf("succeeded")
    for entry in spool.entries(shelf)[-MOST_READ:] if shelf.is_dir() else ():
        try:
            yield entry.record().to_do(), entry.outcome().images
        except (OSError, ValueError):
            # Forgotten while we read, or by another version.
            continue
