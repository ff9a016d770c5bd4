"""Which names in the inbox are a job, and which are nobody's business. Compared without case."""

from pathlib import PurePosixPath

from qwen_image_daemon.jobs.parsing import syntax_of
from qwen_image_daemon.jobs.paths import MAX_NAME_BYTES, is_ignored_name
from qwen_image_daemon.jobs.quoting import is_control

WAITING_SUFFIX = ".waiting.txt"
"""Our own notes beside jobs that wait."""

# What our own result folders hold beside the job, for those that are moved back into the inbox.
_OUR_RESULTS = frozenset({"result.json", "error.txt", "job.log"})


def is_ignored(name: str) -> bool:
    """Say whether a file or folder name is not meant for us."""
    plain = name.casefold()
    return is_ignored_name(name) or plain in _OUR_RESULTS or plain.endswith(WAITING_SUFFIX)


def is_job(path: str) -> bool:
    """Say whether a path is a job file by its name."""
    return syntax_of(path) is not None


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
    stem = name.removesuffix(suffix).encode()[: MAX_NAME_BYTES - len(suffix.encode())]
    return f"{stem.decode(errors='ignore')}{suffix}"
