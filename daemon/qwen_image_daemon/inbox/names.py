"""Which names in the inbox are a job, a recipe, a picture or a request, and which are nobody's business.

Compared without case.
"""

from pathlib import PurePosixPath

from qwen_image_daemon.jobs.parsing import syntax_of
from qwen_image_daemon.jobs.paths import IMAGE_SUFFIXES, MAX_NAME_BYTES, is_ignored_name
from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.spool.control import CANCEL_SUFFIX

WAITING_SUFFIX = ".waiting.txt"
"""Our own notes beside jobs that wait."""
RESULT = "result.json"
"""What a result folder holds that is moved back into the inbox, to be tried again."""
PAUSE_NAMES = frozenset({"pause", "pause.txt"})
"""A file of such a name in the inbox itself halts rendering. Windows likes to add the suffix."""

_RECIPE_STEM = "recipe"
_LONGEST_SUFFIX = 32
_CONFLICT = ".sync-conflict-"

# What else our own result folders hold beside the job, for those that are moved back into the inbox.
_OUR_RESULTS = frozenset({"error.txt", "cancelled.txt", "already-sent.txt", "job.log"})


def is_ignored(name: str) -> bool:
    """Say whether a file or folder name is not meant for us."""
    plain = name.casefold()
    if plain in _OUR_RESULTS or plain.endswith(WAITING_SUFFIX):
        return True
    # Conflicts are no drops either, but somebody must hear of them.
    return is_ignored_name(name) and not is_conflict(name)


def is_conflict(path: str) -> bool:
    """Say whether a file is a copy that Syncthing could not merge: somebody must look at it."""
    name = PurePosixPath(path)
    is_ours = syntax_of(path) is not None or name.suffix.lower() in IMAGE_SUFFIXES
    return is_ours and _CONFLICT in name.name.casefold() and not name.name.startswith((".", "~"))


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
    """Give a path as it can be written down: what is no UTF-8, or steers instead of being drawn, becomes %XX.

    Records and results are UTF-8, and letters, status and notes are read in terminals, which would obey.
    """
    return "".join(_written_out(character) if is_control(character) else character for character in path)


def _written_out(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogateescape"))


def kept_name(path: str) -> str:
    """Give the printable name under which a file is kept, short enough for file systems, with its suffix whole."""
    name = PurePosixPath(printable(path)).name
    suffix = PurePosixPath(name).suffix
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        suffix = ""
    stem = name.removesuffix(suffix).encode()[: MAX_NAME_BYTES - len(suffix.encode())]
    return f"{stem.decode(errors='ignore')}{suffix}"


def kept_path(path: str) -> str:
    """Give the printable path of folders that mirrors another, each name short enough for file systems."""
    return "/".join(kept_name(part) for part in path.split("/") if part)
