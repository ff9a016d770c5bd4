"""Which names in the inbox are a job, and which are nobody's business. Compared without case."""

import re

from qwen_image_daemon.jobs.parsing import syntax_of
from qwen_image_daemon.jobs.paths import is_ignored_name

WAITING_SUFFIX = ".waiting.txt"
"""Our own notes beside jobs that wait."""

_UNDECODABLE = re.compile("[\udc80-\udcff]")

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
    """Give a path as it can be written down: bytes that are no UTF-8 become %XX. Records and results are UTF-8."""
    return _UNDECODABLE.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", path)
