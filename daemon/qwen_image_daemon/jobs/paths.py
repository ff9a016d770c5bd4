"""Which file names a job may give, and which names in the inbox are never a person's drop."""

import re
from pathlib import PurePosixPath

from qwen_image_daemon.jobs.quoting import is_control, quoted

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_NAME_BYTES = 255
"""The longest file name that Linux file systems take."""

# In this order: a network path is absolute too.
_FORBIDDEN_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://"), "it is an address; the daemon fetches nothing."),
    (re.compile(r"//|\\\\"), "it is a network path; only files below the job file's folder are read."),
    (re.compile(r"[A-Za-z]:"), "it names a drive; only files below the job file's folder are read."),
    (re.compile(r"/"), "it is an absolute path; only files below the job file's folder are read."),
    (re.compile(r".*\\", re.DOTALL), "a path has / between folder and file, not a backslash."),
    (re.compile(r".*:", re.DOTALL), "a path holds no colon."),
)

# What systems, editors, browsers and copying programs leave behind while they work, without case.
_IGNORED = re.compile(
    r"""
    [.~].*                          # hidden files, editors' and rsync's temporary ones, ~$office locks
    | .*\.(?:part|partial|filepart|crdownload|download|tmp|swp)
    | .*~                           # editors' backups
    | thumbs\.db | desktop\.ini
    | \#recycle | @eadir | __macosx # folders of file servers and archives
    | .*\.sync-conflict-.*          # a copy that Syncthing could not merge: somebody must look at it
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def is_ignored_name(name: str) -> bool:
    """Say whether a file or folder of this name is a by-product of some program and no drop."""
    return _IGNORED.fullmatch(name) is not None


def fault_of_image_path(path: str) -> tuple[str, str] | None:
    """Give fault and cure of a source picture's path; None where it is a plain path below the job file's folder.

    This looks at the text alone. Links and special files are the opener's concern.
    """
    name = re.split(r"[/\\]", path)[-1]
    beside = "Put the picture beside the job file, or in a folder beside it, and write"
    cure = f"{beside} {quoted(name)}." if name and not is_control(name[0]) else f"{beside} its name."
    if any(is_control(character) for character in path):
        return (
            "the path holds a control character.",
            'A backslash in double quotes makes one ("C:\\new"): write / between folder and file.',
        )
    what = _fault_of_form(path) or _fault_of_components(path.split("/"))
    if what is not None:
        return what, cure
    if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
        return (
            f"{quoted(name)} is no picture that can be read.",
            f"Use a PNG, JPEG or WEBP file, whose name ends in {', '.join(IMAGE_SUFFIXES)}.",
        )
    return None


def fault_of_list_path(path: str, suffixes: tuple[str, ...]) -> tuple[str, str] | None:
    """Give fault and cure of the path of a list beside the job file; None where it is a plain path."""
    cure = f"Put the list beside the job file, and write its name, which ends in {' or '.join(suffixes)}."
    if any(is_control(character) for character in path):
        return "the path holds a control character.", cure
    what = _fault_of_form(path) or _fault_of_components(path.split("/"))
    if what is None and PurePosixPath(path).suffix.lower() not in suffixes:
        what = f"{quoted(PurePosixPath(path).name)} is no list that can be read."
    return None if what is None else (what, cure)


def _fault_of_form(path: str) -> str | None:
    return next((what for form, what in _FORBIDDEN_FORMS if form.match(path)), None)


def _fault_of_components(components: list[str]) -> str | None:
    if ".." in components:
        return "it leads out of the job file's folder (..)."
    for component in components:
        if not component.strip():
            return "a folder's or file's name is missing in it."
        if component == ".":
            return "it holds a needless dot."
        if is_ignored_name(component):
            return f"{quoted(component)} is a hidden or temporary name, which the daemon passes over."
        if len(component.encode()) > MAX_NAME_BYTES:
            return f"a name in it is longer than {MAX_NAME_BYTES} bytes."
    return None
