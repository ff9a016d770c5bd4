"""A result goes back into the inbox whole, once, also from one file system to another."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import files_of
from qwen_image_daemon.outbox.retrying import PART, retry, retryable

ID = "20261123-101500-001-aaaaaa"
OTHER = "20261123-101500-002-bbbbbb"
FILES = {"job.toml", "ERROR.txt", "photos/boat.png", "result.json"}


def result(folder: Path) -> Path:
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def far_inbox(tmp_path: Path) -> Iterator[Path]:
    """Give an inbox on another file system than the outbox."""
    memory = Path("/dev/shm")  # noqa: S108  the one other file system that every Linux has
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_failed_and_cancelled_results_are_found_however_deep(outbox: Path) -> None:
    failed = result(outbox / "failed" / "anna" / "sea" / f"boat-{ID}")
    (failed / f"looks-like-{OTHER}").mkdir()
    cancelled = result(outbox / "cancelled" / f"my-harbour-{OTHER}")
    (outbox / "2026-11-23" / f"done-{ID}").mkdir(parents=True)
    assert sorted(retryable(outbox)) == [(ID, "boat", failed), (OTHER, "my-harbour", cancelled)]


def test_nothing_is_found_where_there_is_nothing(outbox: Path) -> None:
    assert list(retryable(outbox)) == []


def test_a_result_is_moved_by_one_rename(outbox: Path, inbox: Path) -> None:
    folder = result(outbox / "failed" / f"boat-{ID}")
    target = retry(folder, inbox)
    assert target == inbox / f"boat-{ID}"
    assert files_of(target) == FILES
    assert not folder.exists()


def test_a_result_is_copied_to_another_file_system_and_leaves_nothing_behind(
    outbox: Path, far_inbox: Path
) -> None:
    folder = result(outbox / "failed" / f"boat-{ID}")
    half = far_inbox / f"boat-{ID}{PART}"
    half.mkdir()
    (half / "of-a-killed-one").touch()
    target = retry(folder, far_inbox)
    assert files_of(target) == FILES
    assert [path.name for path in far_inbox.iterdir()] == [f"boat-{ID}"]
    assert list((outbox / "failed").iterdir()) == []


def aside(outbox: Path) -> Path:
    return result(outbox / "failed" / f".retried-boat-{ID}")


def test_a_retry_that_was_killed_when_its_copy_was_whole_goes_on_from_there(outbox: Path, inbox: Path) -> None:
    left = aside(outbox)
    result(inbox / f"boat-{ID}{PART}")
    assert list(retryable(outbox)) == [(ID, "boat", left)]
    assert files_of(retry(left, inbox)) == FILES
    assert list((outbox / "failed").iterdir()) == []
    assert [path.name for path in inbox.iterdir()] == [f"boat-{ID}"]


def test_a_retry_that_was_killed_before_the_original_was_deleted_sends_no_second_one(
    outbox: Path, inbox: Path
) -> None:
    left = aside(outbox)
    result(inbox / f"boat-{ID}")
    retry(left, inbox)
    assert [path.name for path in inbox.iterdir()] == [f"boat-{ID}"]
    assert not left.exists()


def test_where_nobody_can_know_whether_it_was_taken_nothing_is_deleted(outbox: Path, inbox: Path) -> None:
    left = aside(outbox)
    with pytest.raises(FileNotFoundError, match="taken, or cleared away"):
        retry(left, inbox)
    assert files_of(left) == FILES


def test_an_inbox_that_is_not_there_leaves_the_result_where_it_is(outbox: Path, tmp_path: Path) -> None:
    folder = result(outbox / "failed" / f"boat-{ID}")
    with pytest.raises(FileNotFoundError):
        retry(folder, tmp_path / "none")
    assert files_of(folder) == FILES
