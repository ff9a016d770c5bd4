"""What is decided about a job when its pictures are here: is it the same as an earlier one, can they be drawn."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from qwen_image_daemon.inbox.pictures import UnfitPicture, fault_of_mask, fault_of_transparency
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.models import AnyJob, InpaintJob, source_images
from qwen_image_daemon.jobs.problems import KeyPath, Problem
from qwen_image_daemon.jobs.quoting import key_name
from qwen_image_daemon.jobs.resolution import takes_the_sources_shape, wants_source_size
from qwen_image_daemon.jobs.source_sizes import fault_of_mask_size, fault_of_shape, fault_of_source_size
from qwen_image_daemon.spool.records import JobRecord
from qwen_image_daemon.spool.repeats import SameIdOtherContent
from qwen_image_daemon.spool.spool import Entry

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


def decisive_size(job: AnyJob, sizes: Mapping[str, Size]) -> Size | None:
    """Give the size of the picture that a job's own size may be taken from; None where it reads none."""
    images = source_images(job)
    return sizes[images[0].path] if images else None


def complaint(path: str, picture: str, unfit: UnfitPicture) -> Problem:
    """Say what is wrong with a picture."""
    return Problem(where=f"{PurePosixPath(path).name}: {picture}", what=str(unfit), fix=unfit.fix)


def unfit_together(
    job: AnyJob, where: str, entry: Entry, pictures: Pictures, catalogue: Catalogue
) -> tuple[Problem, ...]:
    """Complain, at `where`, about pictures of which each is fine, and which do not do for this job."""
    faults = [*_faults_of_size(job, pictures.sizes, catalogue.families[catalogue.model_of(job)])]
    for image in source_images(job):
        if image.role == "mask":
            fault = fault_of_mask(entry.input_path(image.path))
            faults += [(image.setting, *fault)] if fault is not None else []
    if isinstance(job, InpaintJob) and job.mask is None:
        fault = fault_of_transparency(entry.input_path(job.image))
        faults += [(("mask",), *fault)] if fault is not None else []
    return tuple(Problem(f"{where}: {key_name(setting)}", what, fix) for setting, what, fix in faults)


def _faults_of_size(job: AnyJob, sizes: Mapping[str, Size], family: Family) -> Iterator[tuple[KeyPath, str, str]]:
    images = source_images(job)
    if not images:
        return
    decisive = sizes[images[0].path]
    if wants_source_size(job) and (fault := fault_of_source_size(decisive, family)) is not None:
        yield ("size",), *fault
    if takes_the_sources_shape(job) and (fault := fault_of_shape(decisive)) is not None:
        yield images[0].setting, *fault
    for image in images:
        if image.role == "mask" and (fault := fault_of_mask_size(sizes[image.path], decisive)) is not None:
            yield image.setting, *fault


def other_content(record: JobRecord, other: SameIdOtherContent) -> Problem:
    """Complain about an id that stands for something else."""
    return Problem(
        where=f"{PurePosixPath(record.source.path).name}: id",
        what=f"another job with this id was sent before ({other}).",
        fix="Give each job an id of its own; the same id means the same job.",
    )
