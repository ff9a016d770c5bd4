"""The durable queue: states are folders, changes are renames, broken files are survived."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qwen_image_daemon.cli.watching import describe
from qwen_image_daemon.render.renderer import StageSeconds
from qwen_image_daemon.service.board import MOST_ITEMS, Board, summary
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import ErrorReport, FileRecord, ImageRecord, Outcome
from qwen_image_daemon.spool.reports import RENDER_REPORT, LoadingModel, RenderReport
from rooms import Rooms

NOW = datetime(2026, 5, 17, 8, 30, tzinfo=UTC)
REPORT = ErrorReport(kind="Test", what="It broke.", fix="Mend it.")


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def image(index: int) -> ImageRecord:
    file = FileRecord(path=f"{index:04d}.png", size_bytes=3, sha256="")
    seconds = StageSeconds(encode=0, denoise=0, decode=0)
    return ImageRecord(file=file, seed=index, steps=2, seconds=seconds, save_seconds=0)


def test_a_job_walks_through_the_folders_and_is_found_in_each(rooms: Rooms) -> None:
    spool = rooms.spool
    entry = rooms.admit("job")
    record = entry.record()
    steps: list[tuple[Callable[[], Entry], Path]] = [
        (lambda: entry, spool.queue),
        (lambda: spool.take(Entry(spool.queue / entry.id)), spool.active),
        (lambda: spool.put_back(Entry(spool.active / entry.id)), spool.queue),
        (lambda: spool.take(Entry(spool.queue / entry.id)), spool.active),
        (
            lambda: spool.finish(Entry(spool.active / entry.id), Outcome(status="succeeded", finished_at=NOW)),
            spool.rendered,
        ),
        (lambda: spool.file_done(Entry(spool.rendered / entry.id)), spool.shelf("succeeded")),
    ]
    for step, state in steps:
        assert step().folder.parent == state
        found = spool.find(entry.id)
        assert found is not None
        assert found.folder.parent == state
        assert found.record() == record
    assert spool.find("another") is None


def test_a_picture_counts_only_with_its_record(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    assert entry.finished_images() == {}
    entry.keep_image(3, "png", b"abc", image(3), {})
    (entry.folder / "images" / "0004.png").write_bytes(b"abc")
    (entry.folder / "images" / "0005.json").write_bytes(b"{")
    assert entry.finished_images() == {3: image(3)}
    assert not (entry.folder / "images" / "0005.json").exists()


def test_attempts_are_counted_with_how_they_ended(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    assert (entry.attempts(), entry.first_attempt_at()) == ({}, None)
    assert entry.begin_attempt(NOW) == 1
    entry.end_last_attempt("failed")
    assert entry.begin_attempt(NOW + timedelta(hours=1)) == 2
    entry.end_last_attempt("interrupted")
    entry.end_last_attempt("failed")
    assert entry.begin_attempt(NOW + timedelta(hours=2)) == 3
    assert entry.attempts() == {1: "failed", 2: "interrupted", 3: ""}
    assert entry.first_attempt_at() == NOW


def test_an_attempt_mark_that_lost_its_content_still_counts(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    entry.begin_attempt(NOW)
    (entry.folder / "attempt.1").write_bytes(b"")
    assert entry.attempts() == {1: ""}
    assert entry.first_attempt_at() is None


def test_a_kill_counts_until_a_picture_was_finished_after_it(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    assert entry.kills() == 0
    entry.begin_attempt(NOW)
    entry.keep_image(0, "png", b"abc", image(0), {})
    assert entry.kills() == 1
    entry.begin_attempt(NOW)
    assert entry.kills() == 2
    entry.end_last_attempt("interrupted")
    assert entry.kills() == 1
    entry.begin_attempt(NOW)
    entry.keep_image(1, "png", b"abc", image(1), {})
    # The death of the third attempt is the only one since.
    assert entry.kills() == 1
    entry.begin_attempt(NOW)
    entry.keep_image(2, "png", b"abc", image(2), {})
    entry.end_last_attempt("interrupted")
    assert entry.kills() == 0


def test_a_kill_whose_mark_lost_its_content_counts(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    for number in (1, 2):
        entry.begin_attempt(NOW)
        (entry.folder / f"attempt.{number}").write_bytes(b"")
    assert entry.kills() == 2


def test_what_is_given_up_keeps_its_finished_pictures(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    entry.begin_attempt(NOW)
    entry.keep_image(1, "png", b"abc", image(1), {})
    entry.keep_image(0, "png", b"abc", image(0), {})
    outcome = rooms.spool.quarantine(entry, REPORT, NOW).outcome()
    assert [picture.seed for picture in outcome.images] == [0, 1]
    assert (outcome.status, outcome.attempts, outcome.started_at, outcome.error) == ("failed", 1, NOW, REPORT)


def test_unfinished_copies_are_thrown_away_at_the_start(rooms: Rooms) -> None:
    for _ in range(2):
        rooms.spool.begin(NOW)
    assert rooms.spool.discard_unfinished_copies() == 2
    assert rooms.spool.entries(rooms.spool.tmp) == []


def test_the_sequence_goes_on_after_a_restart(rooms: Rooms) -> None:
    assert rooms.spool.next_sequence() == 1
    rooms.admit("a", sequence=7)
    (rooms.admit("torn", sequence=9).folder / "job.json").write_bytes(b"")
    assert rooms.spool.next_sequence() == 8


# The board.


def test_the_board_counts_jobs_by_where_they_are(rooms: Rooms) -> None:
    spool = rooms.spool
    for number in range(3):
        rooms.admit(f"queued{number}", sequence=number)
    spool.take(rooms.admit("active"))
    for name, end in (("rendered", False), ("done", True)):
        entry = spool.finish(spool.take(rooms.admit(name)), Outcome(status="succeeded", finished_at=NOW))
        if end:
            spool.file_done(entry)
    status = Board(spool).update("rendering", ())
    counts = status.counts
    assert (counts.queued, counts.rendering, counts.rendered, counts.succeeded, counts.failed) == (3, 1, 1, 1, 0)
    names = [(item.name, item.status) for item in status.queue]
    assert names == [
        ("active", "rendering"),
        ("rendered", "rendered"),
        ("queued0", "queued"),
        ("queued1", "queued"),
        ("queued2", "queued"),
    ]
    assert summary(status).startswith("rendering; 3 queued, 1 succeeded, 0 failed")


def test_the_board_says_how_far_the_loading_of_a_model_is(rooms: Rooms) -> None:
    """In the status, in its line for systemd, and in what the status command prints."""
    loading = LoadingModel(
        name="qwen-image",
        stage="verify",
        part="a.safetensors",
        done_bytes=5 * 10**9,
        total_bytes=10**10,
        began_at=NOW,
    )
    report = RenderReport(activity="loading", model_name="qwen-image", loading=loading)
    (rooms.spool.state / RENDER_REPORT).write_bytes(report.to_bytes())

    status = Board(rooms.spool).update(None, ())

    told = "comparing the files of qwen-image with their hashes: a.safetensors, 5.00 of 10.00 GB (50 %)"
    assert (status.state, status.loading) == ("loading", loading)
    assert summary(status).startswith(f"{told}; 0 queued")
    assert told in describe(status, running=True)


def test_the_boards_list_is_limited_and_its_counts_are_not(rooms: Rooms) -> None:
    for number in range(MOST_ITEMS + 5):
        entry = rooms.spool.queue / f"id-{number:04d}"
        entry.mkdir()
        if number == 0:
            record = rooms.admit("job").record()
        copy = record.model_copy(update={"id": entry.name, "sequence": number + 2})
        (entry / "job.json").write_bytes(copy.to_bytes())
    status = Board(rooms.spool).update("idle", ())
    assert len(status.queue) == MOST_ITEMS
    assert status.counts.queued == MOST_ITEMS + 6


def test_a_status_that_cannot_be_written_does_not_end_the_service(rooms: Rooms) -> None:
    board = Board(rooms.spool)
    (rooms.spool.state / ".status.json.tmp").mkdir()
    assert board.update("idle", ("No disk.",)).trouble == ("No disk.",)


def test_reports_of_another_version_are_passed_over(rooms: Rooms) -> None:
    (rooms.spool.state / "render.json").write_text('{"activity": "dancing"}')
    (rooms.spool.state / "take-in.json").write_bytes(b"")
    assert Board(rooms.spool).update(None, ()).state == "starting"


def test_files_of_others_are_no_jobs(rooms: Rooms) -> None:
    (rooms.spool.queue / "notes.txt").write_text("x")
    (rooms.spool.queue / ".hidden").mkdir()
    assert rooms.spool.entries(rooms.spool.queue) == []
