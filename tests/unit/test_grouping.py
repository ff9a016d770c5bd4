"""Jobs for what is loaded go first, but nobody waits for them for ever."""

from dataclasses import replace
from datetime import UTC, datetime

from qwen_image_daemon.render.grouping import Grouping, Setup
from qwen_image_daemon.spool.waiting import WaitingJob

PLAIN = WaitingJob(
    id="",
    name="",
    sequence=0,
    priority=0,
    suspect=False,
    model="image",
    images=1,
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    started_at=None,
)
LOADED = Setup("image")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def jobs(*setups: Setup) -> list[WaitingJob]:
    """Give jobs in the order of their arrival, named 1, 2, 3."""
    return [
        replace(PLAIN, id=str(number), name=str(number), sequence=number, model=setup.model, loras=setup.loras)
        for number, setup in enumerate(setups, start=1)
    ]


EDIT, WITH_LORA = Setup("edit"), Setup("image", ("paper",))


def order(grouping: Grouping, waiting: list[WaitingJob], at_hand: Setup | None) -> str:
    """Give the names of all jobs as they are chosen one after the other."""
    left, chosen = list(waiting), ""
    while (job := grouping.choose(left, at_hand)) is not None:
        left.remove(job)
        at_hand = Setup.of(job)
        chosen += job.name
    return chosen


def test_jobs_for_what_is_loaded_go_first_then_those_for_the_same_model() -> None:
    waiting = jobs(EDIT, LOADED, WITH_LORA, EDIT, LOADED)
    assert order(Grouping(600), waiting, LOADED) == "25314"
    assert order(Grouping(600), waiting, WITH_LORA) == "32514"


def test_where_nothing_is_loaded_the_oldest_is_next() -> None:
    assert order(Grouping(600), jobs(EDIT, LOADED, EDIT), None) == "132"


def test_without_patience_the_order_is_that_of_arrival() -> None:
    assert order(Grouping(0), jobs(EDIT, LOADED, EDIT, LOADED), LOADED) == "1234"


def test_a_job_of_higher_priority_is_never_passed_over() -> None:
    urgent, *others = jobs(EDIT, LOADED)
    assert order(Grouping(600), [replace(urgent, priority=5), *others], LOADED) == "12"


def test_the_one_whose_turn_it_is_waits_no_longer_than_its_patience() -> None:
    clock = Clock()
    grouping = Grouping(600, clock)
    waiting = jobs(EDIT, *[LOADED] * 9)
    for now in (0, 300, 599):
        clock.now = now
        job = grouping.choose(waiting, LOADED)
        assert job is not None
        assert job.model == "image"
        assert grouping.note(job, LOADED) == (
            f"{job.name} goes before older jobs because image is loaded; "
            f"they wait for that at most {600 - now} s more."
        )
        waiting.remove(job)
    clock.now = 600
    assert grouping.choose(waiting, LOADED) == waiting[0]
    # With the edit model loaded, its jobs go first for a while in their turn.
    assert grouping.choose(waiting[1:], EDIT) == waiting[1]
    assert grouping.note(waiting[1], EDIT) is None


def test_jobs_that_took_the_process_down_are_not_brought_forward() -> None:
    first, second = jobs(EDIT, LOADED)
    assert Grouping(600).choose([first, replace(second, suspect=True)], LOADED) == first
