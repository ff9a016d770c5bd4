"""How far loading is, told out of many threads: not too often, and with the caller's own exceptions."""

import threading
from itertools import count

import pytest

from qwen_image_daemon.render.renderer import Loading, RenderStopped
from qwen_image_daemon.render.telling import Count, Telling


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fetching(done: int, part: str | None = None) -> Loading:
    return Loading("fetch", done, 100, part)


def test_numbers_are_told_when_someone_may_look_again_and_at_the_end() -> None:
    told: list[Loading] = []
    clock = Clock()
    telling = Telling(told.append, clock)

    for done, moment in ((0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.31), (100, 0.32)):
        clock.now = 100.0 + moment
        telling(fetching(done))

    assert [loading.done_bytes for loading in told] == [0, 3, 100]


def test_another_stage_is_told_at_once_and_another_part_in_its_time() -> None:
    """Threads take turns with their files, a thousand times a second."""
    told: list[Loading] = []
    telling = Telling(told.append, Clock())
    first, turn, second, last = (
        fetching(1, "a"),
        fetching(2, "b"),
        Loading("read", 2, 100, "b"),
        Loading("arrange"),
    )

    for step in (first, turn, second, last):
        telling(step)

    assert told == [first, second, last]


def test_the_same_again_is_told_when_someone_may_look_again() -> None:
    """It is no news, but a sign of life, and the caller's chance to stop."""
    told: list[Loading] = []
    clock = Clock()
    telling = Telling(told.append, clock)

    for moment in (0.0, 0.1, 0.2, 0.3):
        clock.now = 100.0 + moment
        telling(Loading("arrange"))

    assert len(told) == 2


def test_what_is_raised_elsewhere_while_the_caller_hears_is_not_its_own() -> None:
    telling = Telling(lambda _: heard.append(telling.is_callers_own()))
    heard: list[bool] = []

    telling(fetching(1))

    assert heard == [False]


def test_what_the_caller_raises_is_known_for_its_own() -> None:
    def stop(_: Loading) -> None:
        raise RenderStopped

    telling = Telling(stop)
    assert not telling.is_callers_own()
    with pytest.raises(RenderStopped):
        telling(fetching(1))
    assert telling.is_callers_own()


def test_the_caller_hears_from_one_thread_at_a_time() -> None:
    inside, most = 0, 0

    def hear(_: Loading) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.001)
        inside -= 1

    telling = Telling(hear, count(1).__next__)
    threads = [
        threading.Thread(
            target=lambda part: [telling(fetching(step, part)) for step in range(5)], args=(str(number),)
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_bytes_of_several_threads_are_added_up() -> None:
    told: list[Loading] = []
    counted = Count(Loading("verify", 0, 400), told.append)
    threads = [threading.Thread(target=lambda: [counted.add(1, "file") for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert told[0] == Loading("verify", 0, 400)
    assert max(loading.done_bytes for loading in told) == 400
    assert {loading.part for loading in told[1:]} == {"file"}


def test_fewer_bytes_than_before_are_no_news_and_more_than_all_are_all() -> None:
    told: list[Loading] = []
    counted = Count(Loading("fetch", 0, 10), told.append)

    for done in (4, 3, 8, 20):
        counted.reach(done)

    assert [loading.done_bytes for loading in told] == [0, 4, 8, 10]
