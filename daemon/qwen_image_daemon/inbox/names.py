"""Which names in the inbox are a job, a recipe, a picture or a request, and which are nobody's business.

Compared without case.
"""

import re
from pathlib import PurePosixPath

from qwen_image_daemon.jobs.parsing import syntax_of
from qwen_image_daemon.jobs.paths import IMAGE_SUFFIXES, is_ignored_name

WAITING_SUFFIX = ".waiting.txt"
"""Our own notes beside jobs that wait."""
RESULT = "result.json"
"""What a result folder holds that is moved back into the inbox, to be tried again."""
CANCEL_SUFFIX = ".cancel"
PAUSE_NAMES = frozenset({"pause", "pause.txt"})
"""A file of such a name in the inbox itself halts rendering. Windows likes to add the suffix."""

_UNDECODABLE = re.compile("[\udc80-\udcff]")
_RECIPE_STEM = "recipe"
_CONFLICT = ".sync-conflict-"

# What else our own result folders hold beside the job, for those that are moved back into the inbox.
_OUR_RESULTS = frozenset({"error.txt", "cancelled.txt", "job.log"})


def is_ignored(name: str) -> bool:
    """Say whether a file or folder name is not meant for us."""
    plain = name.casefold()
    if plain in _OUR_RESULTS or plain.endswith(WAITING_SUFFIX):
        return True
    # Conflicts are no drops either, but somebody must hear of them.
    return is_ignored_name(name) and not is_conflict(name)


def is_conflict(path: str) -> bool:
    """Say whether a file is a copy that Syncthing could not merge: somebody must look at it."""
    name = PurePosixPath(path).name
    return _CONFLICT in name.casefold() and not name.startswith((".", "~"))


def is_job(path: str) -> bool:
    """Say whether a path is a job file by its name."""
    name = PurePosixPath(path).name.casefold()
    return syntax_of(path) is not None and name != RESULT and not is_recipe(path) and not is_conflict(path)


def is_recipe(path: str) -> bool:
    """Say whether a path is a recipe by its name."""
    return syntax_of(path) is not None and PurePosixPath(path).stem.casefold() == _RECIPE_STEM


def is_picture(path: str) -> bool:
    """Say whether a path is a source picture by its name."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES and not is_conflict(path)


def is_cancel(path: str) -> bool:
    """Say whether a path asks for a job to be cancelled."""
    return path.casefold().endswith(CANCEL_SUFFIX)


def printable(path: str) -> str:
    """Give a path as it can be written down: bytes that are no UTF-8 become %XX. Records and results are UTF-8."""
    return _UNDECODABLE.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", path)
