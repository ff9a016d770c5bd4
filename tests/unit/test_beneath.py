"""Reading the inbox without being led out of it, held up, or given half a file."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_image_daemon.inbox.beneath import (
    ChangedMeanwhile,
    copy_beneath,
    open_beneath,
    read_beneath,
)
from qwen_image_daemon.inbox.listing import Stamp
from qwen_image_daemon.spool.durable import opened


def dropped(path: Path, content: bytes = b"content") -> Stamp:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Stamp.of(path.stat())


def into_link(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside)


def into_folder_link(path: Path, outside: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(outside.parent)


def into_pipe(path: Path, _outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def into_folder(path: Path, _outside: Path) -> None:
    path.unlink()
    path.mkdir()


def into_another_file(path: Path, _outside: Path) -> None:
    path.rename(path.with_name("old"))
    path.write_bytes(b"content")


def into_nothing(path: Path, _outside: Path) -> None:
    path.unlink()


def into_a_file_where_the_folder_was(path: Path, _outside: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"")


@pytest.mark.parametrize(
    "turn",
    [
        into_link,
        into_folder_link,
        into_pipe,
        into_folder,
        into_another_file,
        into_nothing,
        into_a_file_where_the_folder_was,
    ],
)
def test_what_turned_into_something_else_is_not_opened(tmp_path: Path, turn: Callable[[Path, Path], None]) -> None:
    outside = tmp_path / "outside" / "job.toml"
    dropped(outside, b"secret")
    inbox = tmp_path / "inbox"
    stamp = dropped(inbox / "folder" / "job.toml")
    turn(inbox / "folder" / "job.toml", outside)
    with pytest.raises(ChangedMeanwhile):
        open_beneath(inbox, "folder/job.toml", stamp)


def test_a_link_is_not_followed_even_where_its_target_has_the_expected_stamp(tmp_path: Path) -> None:
    stamp = dropped(tmp_path / "outside.toml")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "job.toml").symlink_to(tmp_path / "outside.toml")
    with pytest.raises(ChangedMeanwhile):
        read_beneath(inbox, "job.toml", stamp, 100)


def test_a_folder_link_is_not_followed_even_where_its_target_has_the_expected_stamp(tmp_path: Path) -> None:
    stamp = dropped(tmp_path / "outside" / "job.toml")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(ChangedMeanwhile):
        read_beneath(inbox, "folder/job.toml", stamp, 100)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR])
def test_what_is_no_file_is_not_opened_even_where_it_was_expected(tmp_path: Path, kind: int) -> None:
    thing = tmp_path / "job.toml"
    try:
        thing.mkdir() if kind == stat.S_IFDIR else os.mknod(thing, kind | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device file takes privileges")
    with pytest.raises(ChangedMeanwhile):
        read_beneath(tmp_path, "job.toml", Stamp.of(thing.lstat()), 100)


def test_a_folder_of_the_same_name_as_its_file_is_walked_as_a_folder(tmp_path: Path) -> None:
    stamp = dropped(tmp_path / "a" / "a" / "a")
    assert read_beneath(tmp_path, "a/a/a", stamp, 100) == b"content"


def test_a_file_that_grew_since_the_listing_is_neither_read_nor_copied(tmp_path: Path) -> None:
    stamp = dropped(tmp_path / "job.toml")
    dropped(tmp_path / "job.toml", b"content and more")
    with pytest.raises(ChangedMeanwhile):
        read_beneath(tmp_path, "job.toml", stamp, 100)
    with pytest.raises(ChangedMeanwhile):
        copy_beneath(tmp_path, "job.toml", stamp, tmp_path / "copy")


def test_reading_ends_at_the_limit(tmp_path: Path) -> None:
    stamp = dropped(tmp_path / "job.toml", b"x" * 1000)
    assert read_beneath(tmp_path, "job.toml", stamp, 10) == b"x" * 10


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 7])
def test_a_copy_is_the_same_and_says_its_size_and_hash(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    stamp = dropped(tmp_path / "pic.png", content)
    record = copy_beneath(tmp_path, "pic.png", stamp, tmp_path / "new" / "folder" / "copy.png")
    assert (tmp_path / "new" / "folder" / "copy.png").read_bytes() == content
    assert (record.path, record.size_bytes) == ("pic.png", size)
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_names_that_are_no_utf8_can_be_opened(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.toml")
    stamp = dropped(tmp_path / name)
    assert read_beneath(tmp_path, name, stamp, 100) == b"content"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    stamp = dropped(tmp_path / "a" / "b" / "job.toml")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        read_beneath(tmp_path, "a/b/job.toml", stamp, 10)
        with pytest.raises(ChangedMeanwhile):
            open_beneath(tmp_path, "a/none/job.toml", stamp)
        with opened(open_beneath(tmp_path, "a/b/job.toml", stamp)):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
