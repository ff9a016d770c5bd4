"""pause, resume, cancel, retry and list as a person uses them: what they print, leave, and end with."""

import json
from pathlib import Path

import pytest

from driving import Box
from qwen_image_daemon.spool.control import Controls
from rooms import SMALL, Rooms


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


@pytest.fixture
def rooms(box: Box) -> Rooms:
    """Give the same folders, with a spool as a daemon leaves it."""
    return Rooms(box.root)


@pytest.mark.parametrize("command", ["pause", "resume", "list", "cancel"])
def test_where_no_daemon_has_run_that_is_said_and_nothing_is_made(box: Box, command: str) -> None:
    done = box.call(command, *(["x"] if command == "cancel" else []))
    assert (done.returncode, done.stdout) == (2, "")
    assert "No daemon has run" in done.stderr
    assert not box.spool.exists()


def test_a_pause_and_its_end_without_a_daemon_hold_from_the_next_start_on(box: Box, rooms: Rooms) -> None:
    controls = Controls(rooms.spool)
    done = box.call("pause")
    assert done.returncode == 0
    assert "holds from the next start on" in done.stdout
    assert controls.paused_by() == ("command",)
    controls.pause("inbox")
    (box.inbox / "PAUSE").touch()
    assert box.call("resume").returncode == 0
    assert controls.paused_by() == ()
    assert not (box.inbox / "PAUSE").exists()


def test_a_pause_file_that_cannot_be_deleted_is_told(box: Box, rooms: Rooms) -> None:
    Controls(rooms.spool).pause("inbox")
    (box.inbox / "PAUSE").mkdir()
    done = box.call("resume")
    assert done.returncode == 1
    assert "PAUSE" in done.stderr
    assert Controls(rooms.spool).paused_by() == ("inbox",)


def test_cancel_names_the_job_and_says_when_it_will_be(box: Box, rooms: Rooms) -> None:
    entry = rooms.admit("boat")
    rooms.admit("harbour", sequence=2)
    done = box.call("cancel", "boat")
    assert done.returncode == 0
    assert f"{entry.id} (boat) is cancelled. No daemon is running" in done.stdout
    controls = Controls(rooms.spool)
    assert controls.cancelled() == [entry.id]
    assert controls.cancelled_by(entry.id).startswith("the command `cancel` (")


def test_cancel_asks_back_where_it_is_not_clear_which(box: Box, rooms: Rooms) -> None:
    for number in (1, 2):
        rooms.admit("boat", sequence=number)
    done = box.call("cancel", "boat")
    assert done.returncode == 2
    assert done.stderr.startswith("boat could be 2 jobs. Say which, by its id:\n")
    assert box.call("cancel", "ship").returncode == 2
    assert Controls(rooms.spool).cancelled() == []


def test_a_job_for_later_stays_in_the_queue_and_the_list_says_until_when(box: Box) -> None:
    box.drop("gift.toml", f'prompt = "x"\nnot_before = 2999-12-24T20:00:00+01:00\n{SMALL}')
    assert box.call("run", "--dry-run", "--once").returncode == 1
    [line] = box.call("list").stdout.splitlines()
    assert line.startswith("queued")
    assert line.endswith("gift  waits until 2999-12-24 20:00+01:00")
    [item] = json.loads(box.call("list", "--json").stdout)["jobs"]
    assert item["not_before"] == "2999-12-24T20:00:00+01:00"


def test_list_shows_what_is_there_and_what_failed(box: Box, rooms: Rooms) -> None:
    assert box.call("list").stdout == "No jobs.\n"
    box.drop("bad.toml", "promt = 1")
    assert box.call("run", "--dry-run", "--once").returncode == 1
    queued = rooms.admit("late", sequence=8)
    first = rooms.admit("urgent", f'prompt = "x"\npriority = 3\n{SMALL}', sequence=9)
    lines = box.call("list").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["queued", first.id, "urgent"],
        ["queued", queued.id, "late"],
        ["refused", box.result("bad").id, "bad"],
    ]
    listed = json.loads(box.call("list", "--json").stdout)
    assert [job["id"] for job in listed["jobs"]] == [first.id, queued.id]
    assert [job["name"] for job in listed["ended"]] == ["bad"]


def test_retry_sends_a_failed_job_in_again(box: Box) -> None:
    box.drop("bad.toml", 'promt = "x"')
    assert box.call("run", "--dry-run", "--once").returncode == 1
    [folder] = box.failed.iterdir()
    (folder / "bad.toml").write_text(f'prompt = "x"\n{SMALL}')
    done = box.call("retry", "bad")
    assert done.returncode == 0
    assert "is in the inbox again" in done.stdout
    assert box.call("run", "--dry-run", "--once").returncode == 0
    assert [result.status for result in box.results()] == ["succeeded"]


def test_retry_says_which_jobs_there_are(box: Box) -> None:
    box.drop("bad.toml", 'promt = "x"')
    assert box.call("run", "--dry-run", "--once").returncode == 1
    done = box.call("retry", "good")
    assert done.returncode == 2
    assert f"good: no such job. There are:\n  {box.result('bad').id}  bad\n" in done.stderr
