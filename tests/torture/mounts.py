"""Small file systems in files, mounted for a while. Needs root and a kernel with loop devices."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOLS = ("mount", "umount", "mkfs.ext4")
_UNMOUNT_SECONDS = 5.0
WITHOUT_WATERMARK = {"SPOOL__MIN_FREE_BYTES": "0", "SPOOL__MIN_FREE_INODES": "0"}
"""Settings for a spool on a small disk: accepting would stop long before it is full."""


def lacking(*tools: str) -> str:
    """Say what is missing for a scenario that mounts file systems; empty where nothing is."""
    if os.geteuid() != 0:
        return "needs root, to mount file systems"
    return lacking_tools(*TOOLS, *tools)


def lacking_tools(*tools: str) -> str:
    """Say which programs are missing; empty where none is."""
    # Debian keeps some of them out of an ordinary user's path.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def ext4(image: Path, mebibytes: int, *, inodes: int | None = None) -> Path:
    """Make an ext4 in a sparse file, with nothing kept back for root."""
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    some = ["-N", str(inodes)] if inodes is not None else []
    _run("mkfs.ext4", "-q", "-F", "-m", "0", *some, str(image))
    return image


def xfs(image: Path, mebibytes: int) -> Path:
    """Make an XFS whose files can share blocks, in a sparse file."""
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    _run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(image))
    return image


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """Mount a file system's image for the block."""
    point.mkdir(parents=True, exist_ok=True)
    mount(image, point)
    try:
        yield point
    finally:
        unmount(point)


def mount(image: Path, point: Path) -> None:
    """Mount a file system's image."""
    _run("mount", "-o", "loop", str(image), str(point))


def unmount(point: Path) -> None:
    """Unmount; where something is open for long, leave it to the last that closes it."""
    end = time.monotonic() + _UNMOUNT_SECONDS
    while time.monotonic() < end:
        if subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    _run("umount", "--lazy", str(point))


def remount(point: Path, how: str) -> None:
    """Remount, `ro` or `rw`. What is open for writing at this moment hinders it: it is tried again."""
    end = time.monotonic() + _UNMOUNT_SECONDS
    while subprocess.run(
        ["mount", "-o", f"remount,{how}", str(point)], capture_output=True, check=False
    ).returncode:
        if time.monotonic() > end:
            _run("mount", "-o", f"remount,{how}", str(point))
        time.sleep(0.01)


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OSError(f"{' '.join(command)}: {ran.stderr.strip()}")
