"""One job's folder in the spool: what is in it, and how its attempts ended."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.spool.durable import sync_folder, write_durably, write_synced
from qwen_image_daemon.spool.records import AttemptMark, ImageRecord, JobRecord, Outcome

JOB = "job.json"
OUTCOME = "outcome.json"
DROPPED = "dropped"
INPUTS = "inputs"
IMAGES = "images"
ORIGINALS = "originals"
"""In a job of a batch: the file that was dropped, and its prompt list."""
LOG = "job.log"
LOST = "lost"
"""How an attempt ended with which the whole daemon or the machine went down."""


class Entry:
    """One job's folder in the spool, in whichever state it is. Holds no state of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        """The job's id: its folder's name."""
        return self.folder.name

    @property
    def log_file(self) -> Path:
        """Where this job's log lines go."""
        return self.folder / LOG

    def record(self) -> JobRecord:
        """Read `job.json`. Raises OSError or ValueError where it is unreadable."""
        return JobRecord.model_validate_json((self.folder / JOB).read_bytes())

    def outcome(self) -> Outcome:
        """Read `outcome.json`. Raises OSError or ValueError where it is unreadable."""
        return Outcome.model_validate_json((self.folder / OUTCOME).read_bytes())

    def dropped_files(self) -> list[Path]:
        """List the job file as it was dropped (one, or none where it could not be copied)."""
        return sorted((self.folder / DROPPED).iterdir()) if (self.folder / DROPPED).is_dir() else []

    def input_path(self, relative: str) -> Path:
        """Give the job's own copy of a picture that it names."""
        return self.folder / INPUTS / relative

    def image_path(self, index: int, suffix: str) -> Path:
        """Give the path of finished picture `index`, counted from 0."""
        return self.folder / IMAGES / f"{index:04d}.{suffix}"

    def finished_images(self) -> dict[int, ImageRecord]:
        """Read the records of all finished pictures by index. A broken record counts as not finished."""
        finished: dict[int, ImageRecord] = {}
        for path in sorted((self.folder / IMAGES).glob("*.json")):
            try:
                finished[int(path.stem)] = ImageRecord.model_validate_json(path.read_bytes())
            except ValueError:
                path.unlink()
        return finished

    def keep_image(
        self, index: int, suffix: str, content: bytes, record: ImageRecord, layers: Mapping[str, bytes]
    ) -> None:
        """Put a finished picture on the disk: the picture first, then its record, which makes it count.

        `layers` are further files that belong to it, by name.
        """
        path = self.image_path(index, suffix)
        path.parent.mkdir(exist_ok=True)
        write_synced(path, content)
        for name, layer in layers.items():
            write_synced(path.with_name(name), layer)
        crash_point("render.image-written")
        write_durably(path.with_suffix(".json"), record.to_bytes())
        crash_point("render.image-kept")

    def begin_attempt(self, now: datetime) -> int:
        """Make an attempt durable before the accelerator is touched. Gives its number, counted from 1."""
        number = 1 + max(self.attempts(), default=0)
        mark = AttemptMark(began_at=now, finished_images=len(self.finished_images()))
        write_durably(self.folder / f"attempt.{number}", mark.to_bytes())
        crash_point("render.attempt-marked")
        return number

    def first_attempt_at(self) -> datetime | None:
        """Say when the first attempt began, as far as it is known."""
        began = (self._mark(number, end) for number, end in self.attempts().items())
        return min((mark.began_at for mark in began if mark is not None), default=None)

    def died_attempt_at(self) -> datetime | None:
        """Say when the last attempt began, where it died with its process and that is known."""
        attempts = self.attempts()
        last = max(attempts, default=0)
        mark = self._mark(last, "") if attempts.get(last) == "" else None
        return None if mark is None else mark.began_at

    def died(self) -> bool:
        """Say whether the last attempt died with its process, or is still under way."""
        attempts = self.attempts()
        return attempts.get(max(attempts, default=0)) == ""

    def kills(self) -> int:
        """Count the attempts with which the process alone died since the last picture was finished."""
        return sum(end == "" for end in self._ends_since_last_picture())

    def deaths(self) -> int:
        """Count those too with which the whole daemon or the machine went down: perhaps for other reasons."""
        return sum(end in {"", LOST} for end in self._ends_since_last_picture())

    def _ends_since_last_picture(self) -> list[str]:
        attempts = self.attempts()
        ends: list[str] = []
        if not {"", LOST} & set(attempts.values()):
            return ends
        finished = finished_by_its_end = len(self.finished_images())
        for number in sorted(attempts, reverse=True):
            if finished_by_its_end < finished:
                break
            ends.append(attempts[number])
            mark = self._mark(number, attempts[number])
            # One that lost its content to a power cut says nothing against counting the one before it.
            finished_by_its_end = finished if mark is None else mark.finished_images
        return ends

    def _mark(self, number: int, end: str) -> AttemptMark | None:
        name = f"attempt.{number}.{end}" if end else f"attempt.{number}"
        try:
            return AttemptMark.model_validate_json((self.folder / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def end_last_attempt(self, how: str) -> None:
        """Note how the last attempt ended: `interrupted` by a stop, `failed`, or `lost` with the whole daemon."""
        attempts = self.attempts()
        last = max(attempts, default=0)
        if attempts.get(last) == "":
            (self.folder / f"attempt.{last}").rename(self.folder / f"attempt.{last}.{how}")
            sync_folder(self.folder)

    def attempts(self) -> dict[int, str]:
        """Give each attempt's end by its number: `interrupted`, `failed`, `lost`, or "" for one that died."""
        try:
            with os.scandir(self.folder) as listing:
                marks = [item.name.split(".") for item in listing if item.name.startswith("attempt.")]
        except FileNotFoundError:
            # It moved on meanwhile.
            return {}
        return {int(mark[1]): (mark[2] if len(mark) > 2 else "") for mark in marks if mark[1].isdecimal()}  # noqa: PLR2004

    def is_concluded(self) -> bool:
        """Say whether it is written down how the job ended."""
        return (self.folder / OUTCOME).is_file()

    def conclude(self, outcome: Outcome) -> None:
        """Write how the job ended. The move to `rendered` is the spool's."""
        write_durably(self.folder / OUTCOME, outcome.to_bytes())
