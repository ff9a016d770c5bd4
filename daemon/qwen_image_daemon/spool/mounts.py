"""Which file system a folder is on, and whether other machines may write there without our kernel's knowledge."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from qwen_image_daemon.spool.records import Record

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")

# Of these the kernel reports only what this machine does; what other machines do brings no event.
# fmt: off
_SHARED_TYPES = frozenset({
    "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse", "gfs", "gfs2", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "panfs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs",
    "vmhgfs",
})
# fmt: on


class Mount(Record):
    """A mounted file system, as the kernel lists it."""

    point: str
    """Where it is mounted."""
    type: str
    """Its type, for example `ext4`, `cifs` or `fuse.sshfs`; empty where the kernel does not say."""
    source: str
    """What is mounted: a device, or a server's address."""

    @property
    def is_shared(self) -> bool:
        """Say whether others may change it without a file event here: a network or user-space file system."""
        # fuseblk is a local disk (ntfs-3g, exfat) under a user-space driver.
        return self.type.partition(".")[0] in _SHARED_TYPES


def mount_of(path: Path) -> Mount:
    """Say on which mounted file system a path is, or would be if it existed. Touches no file system but /proc."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would ask a server that may not answer
    try:
        lines = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        # No Linux: the mount point is all that can be known.
        point = next(parent for parent in (path, *path.parents) if parent.is_mount())
        return Mount(point=str(point), type="", source="")
    return mount_among(lines, path)


def mount_among(lines: Iterable[str], path: Path) -> Mount:
    """Find the mounted file system of an absolute path in the kernel's list (man 5 proc: /proc/PID/mountinfo)."""
    over = [mount for line in lines if path.is_relative_to((mount := _parsed(line)).point)]
    # A later mount over the same point hides the earlier one.
    return max(reversed(over), key=lambda mount: len(mount.point))


def _parsed(line: str) -> Mount:
    # man 5 proc: id parent major:minor root mount-point options [tags…] - type source options
    before, _, after = line.partition(" - ")
    kind, source, *_ = after.split(" ")
    return Mount(point=_plain(before.split(" ")[4]), type=kind, source=_plain(source))


def _plain(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
