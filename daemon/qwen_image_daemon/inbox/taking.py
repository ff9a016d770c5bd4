"""One look at the inbox: which drops are ready, and what the others wait for."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath

import structlog

from qwen_image_daemon.inbox.admission import Admission, Claimed, Ready
from qwen_image_daemon.inbox.arrival import sign_of_writing
from qwen_image_daemon.inbox.beneath import ChangedMeanwhile, read_beneath
from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.drops import Drop, Drops, sort_out
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.listing import Stamp, list_inbox
from qwen_image_daemon.inbox.names import is_conflict, kept_name, printable
from qwen_image_daemon.inbox.pictures import UnfitPicture, check_size
from qwen_image_daemon.inbox.requests import Requests
from qwen_image_daemon.inbox.settling import Settling
from qwen_image_daemon.inbox.spellings import spellings
from qwen_image_daemon.inbox.waiting_notes import WaitingNotes
from qwen_image_daemon.jobs.batches import Batch, PromptList, WantsList
from qwen_image_daemon.jobs.models import AnyJob, source_paths
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.paths import fault_of_image_path
from qwen_image_daemon.jobs.problems import Problem, Rejection
from qwen_image_daemon.jobs.prompt_lists import MAX_LIST_BYTES
from qwen_image_daemon.jobs.reading import job_file_of_recipe, read_drop, read_recipe
from qwen_image_daemon.jobs.recipes import RecipePicture
from qwen_image_daemon.spool.identity import natural_order
from qwen_image_daemon.spool.watermark import Watermark

log = structlog.get_logger(__name__)

MOST_IN_ONE_LOOK = 2000
"""Drops that are taken before the inbox is listed anew: a PAUSE or a cancel must not wait for a flood to end."""
_CONFLICT_REASON = "is a copy that Syncthing could not merge, and is not run. Rename it, or delete it"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    taken: int
    """Drops that were accepted or refused."""
    waiting: Mapping[str, str]
    """Files that wait, with the reason, by path."""
    unsettled: bool
    """Something is still changing, or was seen for the first time: look again soon."""
    shortage: str | None = None
    """Why nothing more is accepted: the spool's disk is nearly full."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A job file that was read."""

    stamps: Mapping[str, Stamp]
    """Of the file, and of the prompt list that it names."""
    job: AnyJob | Batch | Rejection
    prompt_list: str | None
    """Where the list lies."""


class TakeIn:
    """Takes drops out of one inbox into one spool. Remembers what it saw, so that files can settle."""

    def __init__(
        self,
        intake: Intake,
        claims: Claims,
        clock: Callable[[], datetime],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to look. `alive` is called after each piece that is copied: a share may be slow."""
        self._inbox = intake.inbox
        self._catalogue = intake.catalogue
        self._settings = intake.settings
        self._admission = Admission(intake, claims, clock, alive)
        self._requests = Requests(intake.inbox, intake.spool, clock)
        self._watermark = Watermark(intake.spool.root, intake.limits)
        self._settling = Settling(intake.settings.settle_seconds)
        self._notes = WaitingNotes(intake.inbox)
        self._read: dict[str, _Read] = {}

    def look(
        self,
        renamed: Collection[str],
        *,
        now: float,
        go_on: Callable[[], bool] = lambda: True,
        most: int = MOST_IN_ONE_LOOK,
    ) -> Look:
        """List the inbox, do what is requested, and take what is ready. `now` is in monotonic seconds.

        Raises OSError; `admit` says when only a new start helps. `go_on` is asked before each drop: one look may
        take thousands.
        """
        listing = list_inbox(self._inbox)
        quiet = self._settling.observe(listing, renamed, now=now)
        self._read = {path: read for path, read in self._read.items() if path in listing}
        found = sort_out(listing)
        waiting = {path: _CONFLICT_REASON for path in listing if is_conflict(path)}
        waiting |= self._requests.follow(listing, found.drops)
        taken = 0
        ready_to_look_at = [drop for drop in found.drops if all(file in quiet for file in _files(drop, found))]
        for drop in sorted(ready_to_look_at, key=lambda drop: (natural_order(drop.path), drop.path)):
            if taken >= most or not go_on():
                # The notes stay as they are: what was not looked at may be waiting still.
                return Look(taken, waiting, unsettled=True)
            shortage = self._watermark.shortage()
            if shortage is not None:
                return Look(taken, waiting, unsettled=False, shortage=shortage)
            try:
                ready = self._with_room(self._ready(drop, found, listing, quiet))
                if isinstance(ready, Ready):
                    self._admission.admit(ready)
                    taken += 1
                else:
                    waiting[drop.path] = ready
            except ChangedMeanwhile:
                continue
            except Claimed as claimed:
                # On a shared inbox that is the normal way of things.
                if not self._settings.shared:
                    waiting[drop.path] = str(claimed)
            except PermissionError as error:
                # Others' drops go on; this one says why it does not.
                waiting[drop.path] = f"cannot be taken: {error.strerror}. Let the daemon's user read and move it"
        self._notes.update(waiting)
        return Look(taken, waiting, unsettled=len(quiet) < len(listing))

    def _with_room(self, ready: Ready | str) -> Ready | str:
        """Let a batch wait for which the disk has no room; others may still find some."""
        lack = None
        if isinstance(ready, Ready) and isinstance(ready.job, Batch):
            lack = self._watermark.lack_of_room(len(ready.job.jobs))
        return lack or ready

    def _ready(
        self, drop: Drop, found: Drops, listing: Mapping[str, Stamp], quiet: Collection[str]
    ) -> Ready | str:
        """Give a drop with all that it needs, or say what it waits for."""
        own = {path: listing[path] for path in _own_files(drop, found)}
        sign = self._sign_of_writing(own)
        if sign is not None:
            return sign
        if drop.kind == "picture":
            return self._by_recipe(drop, listing, quiet)
        if drop.kind == "misplaced":
            return Ready(drop, Rejection((_misplaced(drop),)), own, {})
        read = self._read_once(drop, listing, quiet)
        if isinstance(read, str):
            return read
        job, prompt_list = read
        if prompt_list is not None:
            own |= {prompt_list: listing[prompt_list]}
        ready = Ready(drop, job, own, {}, prompt_list=prompt_list)
        return ready if isinstance(job, Rejection) else self._with_pictures(ready, job, listing, quiet)

    def _with_pictures(
        self, ready: Ready, job: AnyJob | Batch, listing: Mapping[str, Stamp], quiet: Collection[str]
    ) -> Ready | str:
        """Add the pictures that a job names, but for those that are there already, or say what it waits for."""
        pictures = dict(ready.pictures)
        for name in _named_pictures(job):
            if name in pictures:
                continue
            place = _place(ready.drop, name, listing)
            if place is None:
                return f"waits for the picture {name}, which is not there yet"
            if place not in quiet or self._sign_of_writing({place: listing[place]}) is not None:
                return f"waits for the picture {name}, which is still being written"
            pictures[name] = place
        stamps = {place: listing[place] for place in pictures.values()}
        oversized = self._oversized(ready.drop, {name: stamps[place].size for name, place in pictures.items()})
        if oversized is not None:
            return replace(ready, job=oversized)
        return replace(ready, files={**ready.files, **stamps}, pictures=pictures)

    def _by_recipe(self, drop: Drop, listing: Mapping[str, Stamp], quiet: Collection[str]) -> Ready | str:
        """Make a picture and its folder's recipe into one job or many, or say what is wrong with the recipe."""
        recipe = PurePosixPath(printable(drop.job_file)).name
        stamp, recipe_stamp = listing[drop.path], listing[drop.job_file]
        text = read_beneath(self._inbox, drop.job_file, recipe_stamp, MAX_JOB_BYTES + 1)
        picture = _picture_of_recipe(drop)
        found = self._with_list(partial(read_recipe, text, recipe, self._catalogue, picture), drop, listing, quiet)
        if isinstance(found, str):
            return found
        job, prompt_list = found
        if isinstance(job, Rejection):
            return f"waits until its recipe is right. {job}"
        files = {drop.path: stamp, drop.job_file: recipe_stamp}
        stem = PurePosixPath(drop.path).stem
        if isinstance(job, Batch):
            composed = (kept_name(f"{stem}{PurePosixPath(recipe).suffix}"), text)
        else:
            suffix, content = job_file_of_recipe(text, recipe, picture)
            composed = (kept_name(f"{stem}{suffix}"), content)
        if prompt_list is not None:
            files[prompt_list] = listing[prompt_list]
        ready = Ready(drop, job, files, {picture.name: drop.path}, composed, prompt_list)
        return self._with_pictures(ready, job, listing, quiet)

    def _with_list(
        self,
        read: Callable[[PromptList | None], AnyJob | Batch | Rejection | WantsList],
        drop: Drop,
        listing: Mapping[str, Stamp],
        quiet: Collection[str],
    ) -> tuple[AnyJob | Batch | Rejection, str | None] | str:
        """Read a drop, and the prompt list that it names; give where that lies, or say what the drop waits for."""
        job = read(None)
        if not isinstance(job, WantsList):
            return job, None
        found = self._prompt_list(drop, job.name, listing, quiet)
        if isinstance(found, str):
            return found
        prompt_list, listed = found
        job = read(listed)
        # The file names the list that was given.
        assert not isinstance(job, WantsList)
        return job, prompt_list

    def _prompt_list(
        self, drop: Drop, name: str, listing: Mapping[str, Stamp], quiet: Collection[str]
    ) -> tuple[str, PromptList] | str:
        """Find and read the prompt list that a job file names, or say what it waits for."""
        place = _place(drop, name, listing)
        if place is None:
            return f"waits for the list {name}, which is not there yet"
        if place not in quiet or self._sign_of_writing({place: listing[place]}) is not None:
            return f"waits for the list {name}, which is still being written"
        # One byte more than is allowed shows the reader that it is too long.
        content = read_beneath(self._inbox, place, listing[place], MAX_LIST_BYTES + 1)
        return place, PromptList(name, content)

    def _sign_of_writing(self, files: Mapping[str, Stamp]) -> str | None:
        signs = (sign_of_writing(self._inbox, path, stamp) for path, stamp in files.items())
        return next((sign for sign in signs if sign is not None), None)

    def _oversized(self, drop: Drop, sizes: Mapping[str, int]) -> Rejection | None:
        problems = []
        for name, size in sizes.items():
            try:
                check_size(size, self._settings)
            except UnfitPicture as unfit:
                where = f"{PurePosixPath(printable(drop.witness)).name}: {name}"
                problems.append(Problem(where=where, what=str(unfit), fix=unfit.fix))
        return Rejection(tuple(problems)) if problems else None

    def _read_once(
        self, drop: Drop, listing: Mapping[str, Stamp], quiet: Collection[str]
    ) -> tuple[AnyJob | Batch | Rejection, str | None] | str:
        """Read a job file, and the prompt list that it names, as often as one of them changes.

        Gives with it where the list lies, or says what the file waits for.
        """
        path, stamp = drop.job_file, listing[drop.job_file]
        known = self._read.get(path)
        if known is not None and known.stamps.items() <= listing.items():
            return known.job, known.prompt_list
        # One byte more than is allowed shows the reader that the file is too long.
        content = read_beneath(self._inbox, path, stamp, MAX_JOB_BYTES + 1)
        filename = PurePosixPath(printable(path)).name
        found = self._with_list(partial(read_drop, content, filename, self._catalogue), drop, listing, quiet)
        if isinstance(found, str):
            return found
        job, prompt_list = found
        stamps = {path: stamp} if prompt_list is None else {path: stamp, prompt_list: listing[prompt_list]}
        self._read[path] = _Read(stamps, job, prompt_list)
        return job, prompt_list


def _named_pictures(job: AnyJob | Batch) -> tuple[str, ...]:
    """Give the names of all pictures that a drop reads, each once."""
    jobs = [batched.job for batched in job.jobs] if isinstance(job, Batch) else [job]
    return tuple(dict.fromkeys(name for one in jobs for name in source_paths(one)))


def _picture_of_recipe(drop: Drop) -> RecipePicture:
    above = PurePosixPath(drop.job_file).parent
    path = PurePosixPath(drop.path)
    folder = path.parent.relative_to(above).as_posix()
    return RecipePicture(
        name=_sound_name(drop.path), file=printable(path.stem), folder="" if folder == "." else printable(folder)
    )


def _own_files(drop: Drop, found: Drops) -> tuple[str, ...]:
    """Give the files that are taken away with a drop."""
    return found.members[drop.path] if drop.kind == "folder" else (drop.path,)


def _files(drop: Drop, found: Drops) -> tuple[str, ...]:
    """Give the files that must be quiet before a drop is looked at."""
    return (drop.path, drop.job_file) if drop.kind == "picture" else _own_files(drop, found)


def _place(drop: Drop, name: str, listing: Mapping[str, Stamp]) -> str | None:
    """Find a picture that a job names."""
    beside = PurePosixPath(drop.job_file).parent
    places = ((beside / spelling).as_posix() for spelling in spellings(name))
    return next((place for place in places if place in listing), None)


def _sound_name(path: str) -> str:
    """Give the name under which a job may name a dropped picture, whatever it is called."""
    name = kept_name(path)
    return name if fault_of_image_path(name) is None else f"source{PurePosixPath(name).suffix.lower()}"


def _misplaced(drop: Drop) -> Problem:
    return Problem(
        where=PurePosixPath(printable(drop.path)).name,
        what="this folder has a recipe, so that it takes pictures only.",
        fix="Drop the job file into another folder.",
    )
