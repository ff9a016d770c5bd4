"""What is decided about a job when its pictures are here: is it the same as an earlier one, can they be drawn."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from qwen_image_daemon.inbox.pictures import UnfitPicture
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import AnyJob, source_images
from qwen_image_daemon.jobs.problems import Problem
from qwen_image_daemon.jobs.resolution import wants_source_size
from qwen_image_daemon.jobs.source_sizes import fault_of_source_size
from qwen_image_daemon.spool.records import JobRecord
from qwen_image_daemon.spool.repeats import SameIdOtherContent

MAX_SEED_BY_LOT = 2**31
"""Seeds drawn by lot stay short enough to be typed again."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is known of the pictures that were copied, by the names that the job gives them."""

    sizes: Mapping[str, Size]
    """The upright size of each that can be used."""
    unfit: Mapping[str, Problem]
    """What is wrong with the others."""


def seed_by_lot() -> int:
    """Draw a seed for a job that gives none."""
    return secrets.randbelow(MAX_SEED_BY_LOT)


def content_of(record: JobRecord, *more: str) -> str:
    """Give one hash over all that was sent: the job's file, its pictures, and what else is hashed already."""
    hashes = (record.source.sha256, *(file.sha256 for file in record.inputs), *more)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def complaint(path: str, picture: str, unfit: UnfitPicture) -> Problem:
    """Say what is wrong with a picture."""
    return Problem(where=f"{PurePosixPath(path).name}: {picture}", what=str(unfit), fix=unfit.fix)


def undrawable(job: AnyJob, where: str, sizes: Mapping[str, Size], catalogue: Catalogue) -> Iterator[Problem]:
    """Complain, at `where`, about sources whose own size is wanted, and cannot be drawn."""
    if not wants_source_size(job):
        return
    for name in source_images(job):
        fault = fault_of_source_size(sizes[name], catalogue.family_of(job.model)) if name in sizes else None
        if fault is not None:
            yield Problem(f"{where}: size", *fault)


def other_content(record: JobRecord, other: SameIdOtherContent) -> Problem:
    """Complain about an id that stands for something else."""
    return Problem(
        where=f"{PurePosixPath(record.source.path).name}: id",
        what=f"another job with this id was sent before ({other}).",
        fix="Give each job an id of its own; the same id means the same job.",
    )
