"""What is decided about a job when its pictures are here: is it the same as an earlier one, can they be drawn."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from qwen_image_daemon.inbox.pictures import UnfitPicture, fault_of_mask, fault_of_transparency
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import AnyJob, InpaintJob, SourceImage, source_images
from qwen_image_daemon.jobs.problems import KeyPath, Problem
from qwen_image_daemon.jobs.quoting import key_name
from qwen_image_daemon.jobs.resolution import takes_the_sources_shape, wants_source_size
from qwen_image_daemon.jobs.source_sizes import fault_of_mask_size, fault_of_shape, fault_of_source_size
from qwen_image_daemon.spool.records import JobRecord
from qwen_image_daemon.spool.repeats import DoneBefore, SameIdOtherContent

Sentences = tuple[str, str]
"""The fault and the cure."""
MAX_SEED_BY_LOT = 2**31
"""Seeds drawn by lot stay short enough to be typed again."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is known of the pictures that were copied, by the names that the job gives them."""

    sizes: Mapping[str, Size]
    """The upright size of each that can be used."""
    unfit: Mapping[str, Problem]
    """What is wrong with the others."""
    files: Mapping[str, Path]
    """Our copies."""
    _faults_of_masks: dict[tuple[str, bool], Sentences | None] = field(default_factory=dict)

    def decisive_size(self, job: AnyJob) -> Size | None:
        """Give the size of the picture that the job's may be taken from; None where it reads none."""
        return next((self.sizes[image.path] for image in source_images(job)), None)

    def fault_of_mask(self, path: str, *, transparent: bool) -> Sentences | None:
        """Say why a picture, or its transparency, is no mask. Each is looked at once, for many jobs."""
        key = (path, transparent)
        if key not in self._faults_of_masks:
            fault = fault_of_transparency if transparent else fault_of_mask
            self._faults_of_masks[key] = fault(self.files[path])
        return self._faults_of_masks[key]


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


def undrawable(job: AnyJob, where: str, pictures: Pictures, catalogue: Catalogue) -> Iterator[Problem]:
    """Complain, at `where`, about pictures of which each is fine, and which do not do for this job."""
    images = source_images(job)
    if any(image.path not in pictures.sizes for image in images):
        # They are complained about themselves.
        return
    for setting, sentences in _faults(job, images, pictures, catalogue):
        yield Problem(f"{where}: {key_name(setting)}", *sentences)


def _faults(
    job: AnyJob, images: tuple[SourceImage, ...], pictures: Pictures, catalogue: Catalogue
) -> Iterator[tuple[KeyPath, Sentences]]:
    for place, image in enumerate(images):
        size, decisive = pictures.sizes[image.path], pictures.sizes[images[0].path]
        if place == 0 and wants_source_size(job):
            fault = fault_of_source_size(size, catalogue.families[catalogue.model_of(job)])
            yield from _placed(("size",), fault)
        if place == 0 and takes_the_sources_shape(job):
            yield from _placed(image.setting, fault_of_shape(size))
        if image.role == "mask":
            yield from _placed(image.setting, fault_of_mask_size(size, decisive))
            yield from _placed(image.setting, pictures.fault_of_mask(image.path, transparent=False))
    if isinstance(job, InpaintJob) and job.mask is None:
        yield from _placed(("mask",), pictures.fault_of_mask(job.image, transparent=True))


def _placed(setting: KeyPath, fault: Sentences | None) -> Iterator[tuple[KeyPath, Sentences]]:
    if fault is not None:
        yield setting, fault


def done_before(record: JobRecord, done: DoneBefore) -> Problem:
    """Complain about a job that is to be drawn once, and was."""
    return Problem(
        where=f"{PurePosixPath(record.source.path).name}: on_exists",
        what=f"the same job file with the same pictures was sent before ({done}).",
        fix='Change the job, or set on_exists to "draw" to draw it again.',
    )


def other_content(record: JobRecord, other: SameIdOtherContent) -> Problem:
    """Complain about an id that stands for something else."""
    return Problem(
        where=f"{PurePosixPath(record.source.path).name}: id",
        what=f"another job with this id was sent before ({other}).",
        fix="Give each job an id of its own; the same id means the same job.",
    )
