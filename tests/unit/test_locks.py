"""Locks that end with their holder."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_image_daemon.spool.locks import Held, is_held, lock

HOLDER = """
import sys
from pathlib import Path
from qwen_image_daemon.spool.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_once_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    with lock(path):
        assert is_held(path)
        with pytest.raises(Held, match=f"^{os.getpid()}$"), lock(path):
            pass
    assert not is_held(path)
    with lock(path):
        pass


def test_a_lock_that_was_never_taken_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "daemon.lock")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(path)
        with pytest.raises(Held, match=f"^{holder.pid}$"), lock(path):
            pass
        holder.kill()
    assert not is_held(path)


def test_asking_does_not_look_like_holding_to_another_that_asks(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    path.touch()
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_held(path)
