"""The take-in loop over real folders, inline: what is dropped, killed half way, wrong, or in the way."""

import hashlib
import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from driving import eventually
from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.handover import hand_over
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.inbox.taking import TakeIn
from qwen_image_daemon.inbox.waiting_notes import WaitingNotes
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.settings import InboxSettings
from qwen_image_daemon.spool.entry import DROPPED, Entry
from qwen_image_daemon.spool.identity import new_id
from qwen_image_daemon.spool.records import FileRecord, JobRecord
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT, TakeInReport
from rooms import CATALOGUE, QUICK, Rooms, job_of, picture, running

JOB = 'prompt = "a red circle"'


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def claims(rooms: Rooms) -> Claims:
    return Claims(rooms.inbox, rooms.spool.identity)


def report(rooms: Rooms) -> TakeInReport:
    return TakeInReport.model_validate_json((rooms.spool.state / TAKE_IN_REPORT).read_bytes())


def only_job(rooms: Rooms) -> JobRecord:
    [record] = rooms.queued()
    assert rooms.spool.entries(rooms.spool.tmp) == []
    assert rooms.rendered() == []
    assert rooms.left_in_inbox() == set()
    assert rooms.taken() == ["job.toml"]
    return record


# Where a take-in can be killed, as SPOOL.md lists it.


def claimed(rooms: Rooms) -> Entry:
    entry = rooms.spool.begin(datetime.now(UTC))
    assert claims(rooms).claim("job.toml", "job.toml", entry.id) is None
    return entry


def killed_before_the_claim(_rooms: Rooms) -> None:
    pass


def killed_after_the_claim(rooms: Rooms) -> None:
    claimed(rooms)


def killed_while_the_claim_was_written(rooms: Rooms) -> None:
    claimed(rooms)
    [claim] = (rooms.inbox / ".claims").iterdir()
    claim.write_bytes(b"")


def killed_while_copying(rooms: Rooms) -> None:
    entry = claimed(rooms)
    (entry.folder / DROPPED / "job.toml").write_text(JOB[:7])


def killed_after_copying(rooms: Rooms) -> None:
    entry = claimed(rooms)
    (entry.folder / DROPPED / "job.toml").write_text(JOB)
    (entry.folder / "job.json").write_text("{}")


def committed(rooms: Rooms) -> Entry:
    entry = claimed(rooms)
    content = (rooms.inbox / "job.toml").read_bytes()
    (entry.folder / DROPPED / "job.toml").write_bytes(content)
    job = job_of(JOB)
    record = JobRecord(
        id=entry.id,
        name="job",
        sequence=1,
        received_at=datetime.now(UTC),
        source=FileRecord(path="job.toml", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
        requested=job,
        effective=resolve(job, CATALOGUE, seed=1),
    )
    return rooms.spool.commit(entry, record)


def killed_after_the_commit(rooms: Rooms) -> None:
    committed(rooms)


def killed_after_the_hand_over(rooms: Rooms) -> None:
    assert hand_over(rooms.inbox, "job.toml", committed(rooms).id)


def killed_before_the_claim_was_released(rooms: Rooms) -> None:
    entry = committed(rooms)
    hand_over(rooms.inbox, "job.toml", entry.id)
    rooms.spool.let_in(entry)


@pytest.mark.parametrize(
    "kill",
    [
        killed_before_the_claim,
        killed_after_the_claim,
        killed_while_the_claim_was_written,
        killed_while_copying,
        killed_after_copying,
        killed_after_the_commit,
        killed_after_the_hand_over,
        killed_before_the_claim_was_released,
    ],
)
def test_a_take_in_that_was_killed_anywhere_leaves_exactly_one_job(
    rooms: Rooms, kill: Callable[[Rooms], None]
) -> None:
    rooms.drop("job.toml", JOB)
    kill(rooms)
    rooms.take_in()
    assert only_job(rooms).to_do().prompt == "a red circle"
    rooms.take_in()
    only_job(rooms)


def test_a_new_file_under_the_name_of_one_that_is_queued_is_a_second_job(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    first = committed(rooms).id
    rooms.drop("job.toml", 'prompt = "a blu circle"')
    rooms.take_in()
    assert [record.to_do().prompt for record in rooms.queued()] == ["a red circle", "a blu circle"]
    assert rooms.queued()[0].id == first
    assert rooms.left_in_inbox() == set()


def test_the_same_file_dropped_again_is_a_new_run(rooms: Rooms) -> None:
    for _ in range(2):
        rooms.drop("job.toml", JOB)
        rooms.take_in()
    assert len({record.id for record in rooms.queued()}) == 2
    assert rooms.taken() == ["job.toml", "job.toml"]


def test_another_hosts_claim_is_left_alone_and_reported(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    claimed(rooms)
    [claim] = (rooms.inbox / ".claims").iterdir()
    document = json.loads(claim.read_bytes()) | {"owner": "another", "host": "another-box"}
    claim.write_text(json.dumps(document))
    rooms.take_in()
    assert rooms.queued() == []
    assert report(rooms).waiting == {
        "job.toml": "is claimed by another daemon, on another-box. If that one is gone for good: "
        "qwen-image-daemon free-claims"
    }
    assert json.loads(claim.read_bytes()) == document
    assert rooms.spool.entries(rooms.spool.tmp) == []


def test_a_job_gets_its_own_copy_of_a_picture_in_a_folder_beside_it(rooms: Rooms) -> None:
    content = picture()
    rooms.drop("shelf/photos/boat.png", content)
    rooms.drop("shelf/boat.toml", 'prompt = "x"\nimage = "photos/boat.png"')
    rooms.take_in()
    [record] = rooms.queued()
    [source] = record.inputs
    assert (source.path, source.size_bytes) == ("photos/boat.png", len(content))
    assert source.sha256 == hashlib.sha256(content).hexdigest()
    entry = rooms.spool.find(record.id)
    assert entry is not None
    assert entry.input_path("photos/boat.png").read_bytes() == content
    assert rooms.left_in_inbox() == {"shelf/photos/boat.png"}
    assert record.source.path == "shelf/boat.toml"
    # 3:2 like the picture, for the job gives no size.
    assert (record.to_do().width, record.to_do().height) == (192, 128)


def test_jobs_are_taken_in_natural_order(rooms: Rooms) -> None:
    for name in ("b10", "B9", "a", "b1"):
        rooms.drop(f"{name}.toml", JOB)
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["a", "b1", "B9", "b10"]


def test_other_files_stay_where_they_are(rooms: Rooms) -> None:
    others = {"notes.txt", "boat.png", ".hidden.toml", "job.toml.part", "~job.toml", "archive/photo.jpg"}
    for name in others:
        rooms.drop(name, JOB)
    rooms.take_in()
    assert rooms.queued() == []
    assert rooms.left_in_inbox() == others


def refused(rooms: Rooms) -> tuple[Entry, str]:
    [entry] = rooms.rendered()
    assert rooms.queued() == []
    assert entry.outcome().status == "refused"
    return entry, " ".join(f"{problem.where}: {problem.what}" for problem in entry.outcome().problems)


def test_a_job_file_that_is_too_long_is_refused_and_kept_where_it_was_taken(rooms: Rooms) -> None:
    content = f'prompt = "x"\n{"# long" * 12_000}'
    assert len(content) > 70 * 1024
    rooms.drop("long.toml", content)
    rooms.take_in()
    entry, problems = refused(rooms)
    assert "long.toml" in problems
    assert entry.dropped_files() == []
    [kept] = (rooms.inbox / ".taken").iterdir()
    assert kept.read_text() == content
    assert entry.record().source.size_bytes == len(content)


def test_a_picture_with_too_many_bytes_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, QUICK.model_copy(update={"max_image_bytes": 100}))
    rooms.drop("boat.png", picture())
    rooms.drop("job.toml", 'prompt = "x"\nimage = "boat.png"')
    rooms.take_in()
    entry, problems = refused(rooms)
    assert "the limit is 100" in problems
    assert not entry.input_path("boat.png").exists()
    assert (rooms.inbox / "boat.png").exists()


def test_a_picture_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, QUICK.model_copy(update={"max_image_pixels": 100 * 100}))
    rooms.drop("boat.png", picture((101, 100)))
    rooms.drop("job.toml", 'prompt = "x"\nimage = "boat.png"')
    rooms.take_in()
    assert "101×100 pixels; the limit is 10,000" in refused(rooms)[1]


def strange_exif() -> bytes:
    # Orientation 6, and an XResolution that is a text: Pillow raises TypeError when it turns the picture.
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0")
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=b"Exif\0\0" + tiff)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"no picture", "no PNG, JPEG or WEBP"),
        (b"GIF89a" + b"\1" * 50, "no PNG, JPEG or WEBP"),
        (picture((300, 300))[:-60], "cannot be decoded"),
        (strange_exif(), "cannot be decoded"),
    ],
    ids=["text", "gif", "truncated", "strange-exif"],
)
def test_a_picture_that_cannot_be_decoded_refuses_its_job_and_no_other(
    rooms: Rooms, content: bytes, what: str
) -> None:
    rooms.drop("boat.png", content)
    rooms.drop("job.toml", 'prompt = "x"\nimage = "boat.png"')
    rooms.drop("other.toml", JOB)
    rooms.take_in()
    [entry] = rooms.rendered()
    assert what in entry.outcome().problems[0].what
    assert entry.input_path("boat.png").read_bytes() == content
    assert [record.name for record in rooms.queued()] == ["other"]


def upright(size: tuple[int, int]) -> bytes:
    """Give a JPEG that lies on its side, of this size when it is turned upright."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (size[1], size[0]), "teal").save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_source_is_drawn_in_its_own_upright_size_where_that_is_asked_for(rooms: Rooms) -> None:
    rooms.drop("a.jpg", upright((96, 160)))
    rooms.drop("job.toml", f'{JOB}\nimage = "a.jpg"\nsize = "source"')
    rooms.take_in()
    [record] = rooms.queued()
    assert (record.to_do().width, record.to_do().height) == (96, 160)


def test_a_source_whose_size_cannot_be_drawn_is_refused_with_sizes_that_can(rooms: Rooms) -> None:
    rooms.drop("a.jpg", upright((100, 160)))
    rooms.drop("job.toml", f'{JOB}\nimage = "a.jpg"\nsize = "source"')
    rooms.take_in()
    [entry] = rooms.rendered()
    [problem] = entry.outcome().problems
    assert problem.where == "job.toml: size"
    assert problem.what == "the picture has 100×160 pixels, and the model draws multiples of 16 only."
    assert problem.fix.startswith("Scale or crop the picture to 96×160 or 112×160, or leave size out")


def test_a_job_that_waits_says_for_what_and_the_note_goes_when_the_picture_comes(rooms: Rooms) -> None:
    rooms.drop("late.toml", 'prompt = "x"\nimage = "boat.png"')
    rooms.take_in()
    note = rooms.inbox / "late.toml.waiting.txt"
    assert note.read_text().startswith("late.toml waits for the picture boat.png, which is not there yet.\n")
    assert report(rooms).waiting == {"late.toml": "waits for the picture boat.png, which is not there yet"}
    rooms.drop("boat.png", picture())
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["late"]
    assert not note.exists()
    assert report(rooms).waiting == {}


def test_the_note_of_a_job_that_was_taken_back_goes_away(rooms: Rooms) -> None:
    rooms.drop("late.toml", 'prompt = "x"\nimage = "boat.png"')
    rooms.take_in()
    (rooms.inbox / "late.toml").unlink()
    rooms.take_in()
    assert rooms.left_in_inbox() == set()


def test_a_note_whose_name_would_be_too_long_is_left_out(rooms: Rooms) -> None:
    name = "l" * 250 + ".toml"
    rooms.drop(name, 'prompt = "x"\nimage = "boat.png"')
    rooms.take_in()
    assert rooms.left_in_inbox() == {name}
    assert set(report(rooms).waiting) == {name}


def test_a_picture_that_is_still_zeros_at_its_end_is_waited_for(rooms: Rooms) -> None:
    rooms.drop("boat.png", picture() + b"\0" * 5000)
    rooms.drop("job.toml", 'prompt = "x"\nimage = "boat.png"')
    rooms.take_in()
    assert "still being written" in report(rooms).waiting["job.toml"]


@pytest.mark.parametrize(
    "name",
    [
        b"f\xfcr.toml",
        b"new\nline.toml",
        "Ü".encode() * 120 + b".toml",
        "🐈.toml".encode(),
        b"%41%zz.toml",
        # Each of their bytes is written down as three.
        b"\xff" * 250 + b".toml",
        b"\n" * 250 + b".toml",
    ],
)
@pytest.mark.parametrize("content", [JOB, "promt = 1", 'prompt = "x"\nimage = "none.png"'])
def test_a_job_file_may_be_called_anything(rooms: Rooms, name: bytes, content: str) -> None:
    path = rooms.drop(os.fsdecode(name), content)
    rooms.take_in()
    waits = "none.png" in content
    assert path.exists() is waits
    assert len(report(rooms).waiting) == int(waits)
    for entry in (*rooms.rendered(), *rooms.spool.entries(rooms.spool.queue)):
        record = entry.record()
        record.source.path.encode()
        assert [file.read_text() for file in entry.dropped_files()] == [content]
    assert len(rooms.queued()) + len(rooms.rendered()) == int(not waits)


def test_a_file_with_an_undecodable_name_is_handed_over_after_a_kill(rooms: Rooms) -> None:
    name = os.fsdecode(b"f\xfcr.toml")
    path = rooms.drop("job.toml", JOB)
    entry = committed(rooms)
    claims(rooms).release("job.toml")
    path.rename(rooms.inbox / name)
    claims(rooms).claim(name, name, entry.id)
    rooms.take_in()
    assert len(rooms.queued()) == 1
    assert rooms.left_in_inbox() == set()


# Surroundings that fail.


def test_a_spool_that_cannot_be_written_leaves_the_drop_and_says_why(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    rooms.spool.queue.rmdir()
    rooms.spool.queue.write_text("in the way")
    with running(partial(take_in, rooms.intake)):
        eventually(lambda: (rooms.spool.state / TAKE_IN_REPORT).exists() and report(rooms).trouble, "the trouble")
        assert (rooms.inbox / "job.toml").read_text() == JOB
        rooms.spool.queue.unlink()
        rooms.spool.queue.mkdir()
        eventually(rooms.queued, "the job")
        eventually(lambda: report(rooms).trouble is None, "the trouble to go")
    only_job(rooms)


def test_a_drain_over_a_spool_that_cannot_be_written_gives_up_and_keeps_everything(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    rooms.spool.queue.rmdir()
    rooms.spool.queue.write_text("in the way")
    with pytest.raises(GaveUp, match="Not a directory"):
        rooms.take_in()
    assert rooms.left_in_inbox() == {"job.toml"}
    assert rooms.spool.entries(rooms.spool.tmp) == []


def test_a_claim_that_cannot_be_made_leaves_nothing_behind(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    looker = TakeIn(rooms.intake, claims(rooms), lambda: datetime.now(UTC))
    (rooms.inbox / ".claims").rmdir()
    for _ in range(3):
        with pytest.raises(OSError, match="No such file"):
            looker.look({"job.toml"}, now=0.0)
    assert rooms.spool.entries(rooms.spool.tmp) == []


@pytest.mark.parametrize("gone", [".taken", ".claims"])
def test_our_own_folders_in_the_inbox_may_be_cleared_away_while_we_run(rooms: Rooms, gone: str) -> None:
    with running(partial(take_in, rooms.intake)):
        rooms.drop("first.toml", JOB)
        eventually(rooms.queued, "the first job")
        eventually(lambda: rooms.left_in_inbox() == set(), "the first hand-over")
        shutil.rmtree(rooms.inbox / gone)
        rooms.drop("second.toml", JOB)
        eventually(lambda: len(rooms.queued()) == 2, "the second job")
        eventually(lambda: rooms.left_in_inbox() == set(), "the second hand-over")
        rooms.drop("third.toml", JOB)
        eventually(lambda: len(rooms.queued()) == 3, "the third job")
    assert [record.name for record in rooms.queued()] == ["first", "second", "third"]


def test_a_hand_over_makes_the_folder_that_it_needs(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    shutil.rmtree(rooms.inbox / ".taken")
    hand_over(rooms.inbox, "job.toml", "id")
    assert rooms.left_in_inbox() == set()
    hand_over(rooms.inbox, "job.toml", "id")


def test_an_inbox_that_is_deleted_and_made_again_is_watched_again(rooms: Rooms) -> None:
    with running(partial(take_in, rooms.intake)):
        rooms.drop("first.toml", JOB)
        eventually(rooms.queued, "the first job")
        eventually(lambda: rooms.left_in_inbox() == set(), "the hand-over")
        rooms.inbox.rename(rooms.root / "old")
        rooms.inbox.mkdir(exist_ok=True)
        rooms.drop("second.toml", JOB)
        eventually(lambda: len(rooms.queued()) == 2, "the second job")


def test_an_inbox_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    shutil.rmtree(rooms.inbox)
    rooms.inbox.write_text("in the way")
    with running(partial(take_in, rooms.intake)):
        eventually(lambda: (rooms.spool.state / TAKE_IN_REPORT).exists() and report(rooms).trouble, "the trouble")
        rooms.inbox.unlink()
        rooms.inbox.mkdir(exist_ok=True)
        rooms.drop("job.toml", JOB)
        eventually(rooms.queued, "the job")


def test_a_pause_between_looks_that_is_set_long_is_announced(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, InboxSettings(settle_seconds=0.03, rescan_seconds=7200))
    announced: list[float] = []
    control = LoopControl(beat=announced.append, drain=True)
    take_in(rooms.intake, control)
    assert min(announced) > 7200


def test_a_stop_is_heard_between_two_drops_of_one_look(rooms: Rooms) -> None:
    for number in range(5):
        rooms.drop(f"{number}.toml", JOB)
    rooms.drop("waits.toml", 'prompt = "x"\nimage = "boat.png"')
    WaitingNotes(rooms.inbox).update({"waits.toml": "waits"})
    looker = TakeIn(rooms.intake, claims(rooms), lambda: datetime.now(UTC))
    answers = iter([True, True, False])
    names = {path.name for path in rooms.inbox.glob("*.toml")}
    look = looker.look(names, now=0.0, go_on=lambda: next(answers))
    assert look.taken == 2
    assert (rooms.inbox / "waits.toml.waiting.txt").exists()


def test_a_flood_is_taken_in_pieces_so_that_requests_are_heard_meanwhile(rooms: Rooms) -> None:
    for number in range(5):
        rooms.drop(f"{number}.toml", JOB)
    looker = TakeIn(rooms.intake, claims(rooms), lambda: datetime.now(UTC))
    names = {path.name for path in rooms.inbox.glob("*.toml")}
    looks = [looker.look(names, now=0.0, most=2) for _ in range(3)]
    assert [(look.taken, look.unsettled) for look in looks] == [(2, True), (2, True), (1, False)]


def test_what_lay_in_taken_for_long_is_deleted_by_the_time_in_its_name(rooms: Rooms) -> None:
    long_ago, now = datetime.now(UTC) - timedelta(days=15), datetime.now(UTC)
    taken = rooms.inbox / ".taken"
    (taken / f"{new_id(long_ago)}-old.toml").write_text("x")
    rooms.drop(f".taken/{new_id(long_ago)}-folder/job.toml", "x")
    (taken / f"{new_id(now)}-new.toml").write_text("x")
    (taken / "somebody's notes.txt").write_text("x")
    rooms.take_in()
    assert sorted(path.name.rpartition("-")[2] for path in taken.iterdir()) == ["new.toml", "somebody's notes.txt"]


def test_the_oldest_of_too_much_that_was_taken_is_deleted(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, QUICK.model_copy(update={"taken_bytes": 250}))
    now = datetime.now(UTC)
    for age in range(4):
        name = f"{new_id(now - timedelta(hours=age))}-{age}.toml"
        (rooms.inbox / ".taken" / name).write_bytes(b"x" * 100)
    rooms.take_in()
    assert sorted(path.name[27:] for path in (rooms.inbox / ".taken").iterdir()) == ["0.toml", "1.toml"]


def test_a_job_that_was_handed_over_runs_even_if_our_folders_were_cleared_away_meanwhile(rooms: Rooms) -> None:
    rooms.drop("job.toml", JOB)
    killed_after_the_hand_over(rooms)
    for folder in (".taken", ".claims"):
        shutil.rmtree(rooms.inbox / folder)
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["job"]
