"""Locks that end with their holder, also when it is killed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Another process holds the lock. `str()` is that process's id, as far as it said."""


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` as an exclusive lock for the block. Raises Held at once where another process has it."""
    path.touch()
    # Held by a descriptor that cannot write: an open writer would keep an operator from remounting read-only.
    with path.open(encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(file.read().strip()) from None
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield


def is_held(path: Path) -> bool:
    """Say whether a process holds the lock."""
    try:
        with path.open("rb") as file:
            # Shared: two that ask at the same time must not take each other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
