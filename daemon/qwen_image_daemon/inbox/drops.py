"""What kinds of drop a listing holds: job files, job folders, pictures in recipe folders. Decides purely."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from qwen_image_daemon.inbox.names import RESULT, is_job, is_picture, is_recipe

DropKind = Literal["file", "folder", "picture", "misplaced"]
"""A job file; a folder that is one job; a picture for a recipe; a job file beside a recipe, which is refused."""

JOB_STEM = "job"
"""A folder whose only job file is called `job.toml` or `job.json` is one job."""


@dataclass(frozen=True, slots=True)
class Drop:
    """One thing that becomes one job. Paths are relative to the inbox, with forward slashes."""

    kind: DropKind
    path: str
    """What is claimed, and taken away: a file, or a folder."""
    job_file: str
    """The file that says what to do: the drop itself, the folder's job file, or the recipe."""

    @property
    def folder(self) -> str:
        """The folder that it was dropped into; empty for the inbox itself."""
        return self.path.rpartition("/")[0]

    @property
    def title(self) -> str:
        """What to call the job where it does not name itself."""
        stem = PurePosixPath(self.job_file).stem
        named_by_folder = self.kind == "folder" and stem.casefold() == JOB_STEM
        return PurePosixPath(self.path).name if named_by_folder else PurePosixPath(self.witness).stem

    @property
    def witness(self) -> str:
        """The file by whose content the drop is recognised after a restart."""
        return self.path if self.kind == "picture" else self.job_file


@dataclass(frozen=True, slots=True)
class Drops:
    """All drops of one listing."""

    drops: tuple[Drop, ...]
    members: Mapping[str, tuple[str, ...]]
    """All files of each job folder, also those in folders below it."""
    recipes: tuple[str, ...]


def sort_out(paths: Iterable[str]) -> Drops:
    """Tell the drops of a listing apart. The outermost job folder and the nearest recipe above a picture count."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        files[path.rpartition("/")[0]].append(path)
    homes: dict[str, tuple[str | None, str | None]] = {"": (None, _recipe_in(files[""]))}
    drops: list[Drop] = []
    members: defaultdict[str, list[str]] = defaultdict(list)
    for folder, names in files.items():
        job_folder, recipe = _home(folder, files, homes)
        if job_folder is None:
            drops += (drop for path in names if (drop := _drop(path, recipe)) is not None)
        else:
            members[job_folder] += names
    for folder in members:
        [job_file] = _job_files(files[folder])
        drops.append(Drop("folder", folder, job_file))
    recipes = tuple(path for names in files.values() for path in names if is_recipe(path))
    return Drops(tuple(drops), {folder: tuple(sorted(names)) for folder, names in members.items()}, recipes)


def _home(
    folder: str, files: Mapping[str, list[str]], homes: dict[str, tuple[str | None, str | None]]
) -> tuple[str | None, str | None]:
    """Give the outermost job folder and the nearest recipe that a folder lies in; None where there is none."""
    if folder not in homes:
        job_folder, recipe = _home(folder.rpartition("/")[0], files, homes)
        own = files.get(folder, [])
        recipe = _recipe_in(own) or recipe
        # In a recipe folder pictures are drops of their own, but for those of a job that comes back.
        if job_folder is None and _is_job_folder(own) and (recipe is None or _is_returned(own)):
            job_folder = folder
        homes[folder] = job_folder, recipe
    return homes[folder]


def _recipe_in(names: list[str]) -> str | None:
    return min(filter(is_recipe, names), default=None)


def _job_files(names: list[str]) -> list[str]:
    return [path for path in names if is_job(path)]


def _is_job_folder(names: list[str]) -> bool:
    job_files = _job_files(names)
    if len(job_files) != 1:
        return False
    return _is_returned(names) or PurePosixPath(job_files[0]).stem.casefold() == JOB_STEM


def _is_returned(names: list[str]) -> bool:
    return any(path.rpartition("/")[2].casefold() == RESULT for path in names)


def _drop(path: str, recipe: str | None) -> Drop | None:
    if is_recipe(path):
        return None
    if is_job(path):
        return Drop("file" if recipe is None else "misplaced", path, path)
    if recipe is not None and is_picture(path):
        return Drop("picture", path, recipe)
    return None
