"""The index of the queue: its order, when it lists anew, and what it does with what cannot be read."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.waiting import WaitingJobs
from rooms import SMALL, Rooms


@dataclass
class Clock:
    """Monotonic seconds, as the test says; every look at it costs so much."""

    now: float = 0.0
    cost: float = 0.0

    def __call__(self) -> float:
        self.now += self.cost
        return self.now


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def names(waiting: WaitingJobs) -> list[str]:
    return [job.name for job in waiting.refresh()]


def test_jobs_wait_by_priority_then_arrival_and_leave_when_they_are_taken(rooms: Rooms) -> None:
    waiting = WaitingJobs(rooms.spool, clock=Clock())
    for number, (name, priority) in enumerate([("a", 0), ("b", 3), ("c", 3), ("d", -1)]):
        rooms.admit(name, f'prompt = "x"\npriority = {priority}\n{SMALL}', sequence=number)
    assert names(waiting) == ["b", "c", "a", "d"]
    rooms.spool.take(Entry(rooms.spool.queue / waiting.refresh()[0].id))
    assert names(waiting) == ["c", "a", "d"]


def test_a_job_that_took_the_process_down_waits_behind_all_others(rooms: Rooms) -> None:
    suspect = rooms.admit("suspect", f'prompt = "x"\npriority = 9\n{SMALL}')
    rooms.admit("idle", f'prompt = "x"\npriority = -9\n{SMALL}', sequence=2)
    suspect.begin_attempt(datetime.now(UTC))
    waiting = WaitingJobs(rooms.spool, clock=Clock())
    assert names(waiting) == ["idle", "suspect"]
    suspect.end_last_attempt("interrupted")
    waiting.put_back(suspect)
    assert names(waiting) == ["suspect", "idle"]


def test_a_waiting_job_is_read_only_once(rooms: Rooms) -> None:
    waiting = WaitingJobs(rooms.spool, clock=Clock())
    entry = rooms.admit("job")
    assert names(waiting) == ["job"]
    (entry.folder / "job.json").write_bytes(b"")
    assert names(waiting) == ["job"]
    assert waiting.unreadable == []


def test_the_queue_is_listed_only_as_often_as_a_twentieth_of_the_time_allows(rooms: Rooms) -> None:
    clock = Clock(cost=1.0)
    waiting = WaitingJobs(rooms.spool, clock=clock)
    waiting.refresh()
    clock.cost = 0.0
    rooms.admit("late")
    clock.now += 19.0
    assert names(waiting) == []
    clock.now += 1.0
    assert names(waiting) == ["late"]
    rooms.admit("later", sequence=2)
    waiting.expire()
    assert names(waiting) == ["late", "later"]


def test_a_job_that_was_taken_is_gone_before_the_next_listing_and_comes_back_when_it_is_put_back(
    rooms: Rooms,
) -> None:
    clock = Clock(cost=1.0)
    waiting = WaitingJobs(rooms.spool, clock=clock)
    for number, name in enumerate("abc"):
        rooms.admit(name, sequence=number)
    taken = rooms.spool.take(Entry(rooms.spool.queue / waiting.refresh()[1].id))
    waiting.forget(taken.id)
    waiting.forget("unknown")
    assert names(waiting) == ["a", "c"]
    waiting.put_back(rooms.spool.put_back(taken))
    assert names(waiting) == ["a", "b", "c"]


def test_a_long_queue_is_read_bit_by_bit_and_counted_whole(rooms: Rooms) -> None:
    record = rooms.admit("first", sequence=0).record()
    for number in range(1, 150):
        copy = record.model_copy(update={"name": f"{number:03d}", "sequence": number})
        folder = rooms.spool.queue / f"id-{number}"
        folder.mkdir()
        (folder / "job.json").write_bytes(copy.to_bytes())
    waiting = WaitingJobs(rooms.spool, reading_seconds=50, clock=Clock(cost=1.0))
    assert 0 < len(waiting.refresh()) < 150
    assert waiting.count == 150
    while waiting.behind:
        waiting.refresh()
    assert names(waiting) == ["first", *(f"{number:03d}" for number in range(1, 150))]


def test_an_unreadable_job_is_told_apart_from_one_that_moved_on(rooms: Rooms) -> None:
    waiting = WaitingJobs(rooms.spool, clock=Clock())
    torn, empty = rooms.admit("torn"), rooms.admit("empty")
    (torn.folder / "job.json").write_bytes(b"{")
    (empty.folder / "job.json").unlink()
    assert names(waiting) == []
    assert {entry.id for entry in waiting.unreadable} == {torn.id, empty.id}
    for entry in (torn, empty):
        shutil.rmtree(entry.folder)
    waiting.refresh()
    assert waiting.unreadable == []


def test_a_job_that_the_disk_does_not_give_is_withheld_and_not_given_up(rooms: Rooms) -> None:
    waiting = WaitingJobs(rooms.spool, clock=Clock())
    rooms.admit("good")
    entry = rooms.admit("job", sequence=2)
    content = (entry.folder / "job.json").read_bytes()
    (entry.folder / "job.json").unlink()
    (entry.folder / "job.json").mkdir()
    assert names(waiting) == ["good"]
    assert waiting.unreadable == []
    assert "Is a directory" in waiting.withheld[entry.id]
    (entry.folder / "job.json").rmdir()
    (entry.folder / "job.json").write_bytes(content)
    assert names(waiting) == ["good", "job"]
    assert waiting.withheld == {}
