"""Signs that a quiet file is not whole yet: somebody has it open for writing, or its end is still all zeros."""

import errno
import fcntl
import os
import signal
from pathlib import Path

from qwen_image_daemon.inbox.beneath import open_beneath
from qwen_image_daemon.inbox.listing import Stamp
from qwen_image_daemon.inbox.names import is_picture
from qwen_image_daemon.spool.durable import opened

_PICTURE_TAIL = 4096
_TEXT_TAIL = 16
"""No text ends so, in whatever encoding; a preallocated job file of which a part is written does."""


def sign_of_writing(root: Path, relative: str, expected: Stamp) -> str | None:
    """Say why a file that looks quiet is not whole yet, or None where nothing speaks against it.

    Raises ChangedMeanwhile or OSError.
    """
    with opened(open_beneath(root, relative, expected)) as descriptor:
        if _is_open_for_writing(descriptor):
            return "is still open for writing"
        if is_picture(relative) and expected.size == 0:
            return "is still empty"
        tail = _PICTURE_TAIL if is_picture(relative) else _TEXT_TAIL
        if expected.size and not any(os.pread(descriptor, tail, max(0, expected.size - tail))):
            return "is still being written: its end is nothing but zeros"
        return None


def _is_open_for_writing(descriptor: int) -> bool:
    """Ask the kernel for a read lease, which it grants only while no process of this machine can write.

    An SMB client's open file is one that the Samba server here holds open. Where the kernel grants no leases
    (another owner's file without CAP_LEASE, a network file system), this says no: the settling has to do.
    """
    try:
        # A lease that is broken while we hold it sends a signal; the usual one, SIGIO, would end us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
