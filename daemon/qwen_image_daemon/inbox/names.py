"""Which names in the inbox are a job, a picture, or nobody's business. Compared without case."""

import re
from pathlib import PurePosixPath

JOB_SUFFIXES = frozenset({".toml", ".json"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
WAITING_SUFFIX = ".waiting.txt"

# What clients, file managers and sync programs leave while they work, or for themselves.
_IGNORED = re.compile(
    r"""
    [.~].*                          # hidden files, editors' and rsync's temporary ones, ~$office locks
    | .*\.(part|partial|filepart|crdownload|download|tmp|swp)
    | .*~                           # editors' backups
    | thumbs\.db | desktop\.ini
    | \#recycle | @eadir | __macosx # folders of file servers and archives
    | .*\.sync-conflict-.*          # a copy that Syncthing could not merge: somebody must look at it
    | .*\.waiting\.txt              # our own notes
    """,
    re.VERBOSE | re.IGNORECASE,
)

# What our own result folders hold beside the job, for those that are moved back into the inbox.
_OUR_RESULTS = frozenset({"result.json", "error.txt", "job.log"})


def is_ignored(name: str) -> bool:
    """Say whether a file or folder name is not meant for us."""
    return _IGNORED.fullmatch(name) is not None or name.casefold() in _OUR_RESULTS


def is_job(path: str) -> bool:
    """Say whether a path is a job file by its name."""
    return PurePosixPath(path).suffix.casefold() in JOB_SUFFIXES
