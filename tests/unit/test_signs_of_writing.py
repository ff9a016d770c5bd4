"""A file that looks quiet may not be whole: somebody writes, or its end is not filled yet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_image_daemon.inbox.arrival import sign_of_writing
from qwen_image_daemon.inbox.listing import Stamp


def sign(folder: Path, name: str) -> str | None:
    return sign_of_writing(folder, name, Stamp.of((folder / name).lstat()))


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("pic.png", b"", False),
        ("pic.png", b"\0" * 10, False),
        ("pic.png", b"x" * 5000 + b"\0" * 4096, False),
        ("pic.png", b"\0" * 5000 + b"x", True),
        ("pic.png", b"x" * 100 + b"\0" * 4095, True),
        ("job.toml", b"", True),
        ("job.toml", b"\0" * 300, False),
        ("job.toml", b'prompt = "a red ci' + b"\0" * 40, False),
        ("job.toml", 'prompt = "x"'.encode("utf-16-le"), True),
        ("job.toml", b'prompt = "x"\n', True),
    ],
)
def test_a_tail_of_zeros_tells_a_file_that_is_not_filled_yet(
    tmp_path: Path, name: str, content: bytes, *, whole: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert (sign(tmp_path, name) is None) is whole


def test_a_file_is_not_whole_while_any_process_has_it_open_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('prompt = "x"')
    with path.open("ab"):
        assert sign(tmp_path, path.name) == "is still open for writing"
    assert sign(tmp_path, path.name) is None
    with path.open("rb"):
        assert sign(tmp_path, path.name) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_where_the_kernel_grants_no_lease_nothing_speaks_against_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('prompt = "x"')
    path.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    asks = (
        "import os, sys; from pathlib import Path; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from qwen_image_daemon.inbox.arrival import sign_of_writing;"
        "from qwen_image_daemon.inbox.listing import Stamp; folder = Path(sys.argv[1]);"
        "print(sign_of_writing(folder, 'job.toml', Stamp.of((folder / 'job.toml').lstat())))"
    )
    # The packages are imported as root: another user may not be able to read them.
    preload = "import qwen_image_daemon.inbox.arrival\n"
    with path.open("ab"):
        answer = subprocess.run(
            [sys.executable, "-c", preload + asks, str(tmp_path)], capture_output=True, text=True, check=True
        )
    assert answer.stdout == "None\n"
