"""The render loop over a real spool, inline, on renderers that fail in every way that the seam allows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Self

import pytest
import structlog
from PIL import Image

from driving import eventually
from qwen_image_daemon.jobs.families import DEMO
from qwen_image_daemon.logs import configure_logs
from qwen_image_daemon.loop_control import GaveUp, LoopControl, Renewed, Stopping
from qwen_image_daemon.outbox.letters import letter_for
from qwen_image_daemon.render.dry_run import DryRunRenderer
from qwen_image_daemon.render.interruptions import Interruptions
from qwen_image_daemon.render.loop import render_jobs
from qwen_image_daemon.render.pace import Pace
from qwen_image_daemon.render.renderer import (
    BadPicture,
    DeviceLost,
    Loading,
    ModelUnavailable,
    OutOfMemory,
    Progress,
    Renderer,
    Rendering,
    RenderRequest,
    RequestRefused,
)
from qwen_image_daemon.render.warm_models import OpenModel
from qwen_image_daemon.settings import LogSettings, ModelSettings, OutboxSettings, RenderSettings
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.entry import INPUTS, Entry
from qwen_image_daemon.spool.records import FileRecord, Outcome
from qwen_image_daemon.spool.reports import RENDER_DEATH, RENDER_REPORT, CurrentJob, RenderDeath, RenderReport
from rooms import CLEAN_UP, INFO, MEMORY, SMALL, Drawer, Opener, Rooms, picture, running

FOUR = f'prompt = "x"\nnum_images = 4\nseed = 10\n{SMALL}'
SETTINGS = RenderSettings(attempts=3, retry_pause_seconds=0.01)


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


@pytest.fixture
def daemon_logs() -> Iterator[None]:
    """Log as the daemon does, for one test."""
    before = structlog.get_config()
    configure_logs(LogSettings(format="json"), loop="render")
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def drain(rooms: Rooms, open_model: OpenModel, stopping: Stopping | None = None) -> None:
    control = LoopControl(stopping=stopping or Stopping(), no_more=lambda: True, drain=True)
    render_jobs(rooms.spool, SETTINGS, OutboxSettings(), open_model, control)


def draw(rooms: Rooms, drawer: Drawer) -> None:
    drain(rooms, lambda *_: drawer)


def outcome(rooms: Rooms, name: str) -> Outcome:
    [found] = [entry.outcome() for entry in rooms.rendered() if entry.record().name == name]
    return found


def report(rooms: Rooms) -> RenderReport:
    return RenderReport.model_validate_json((rooms.spool.state / RENDER_REPORT).read_bytes())


def mark(entry: Entry, times: int) -> None:
    for _ in range(times):
        entry.begin_attempt(datetime.now(UTC))


def raising(
    error: Exception, on: Callable[[RenderRequest], bool] = lambda _: True
) -> Callable[[RenderRequest], None]:
    def before(request: RenderRequest) -> None:
        if on(request):
            raise error

    return before


def test_a_job_that_is_drawn_says_what_was_measured(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    draw(rooms, Drawer())
    done = outcome(rooms, "job")
    assert done.status == "succeeded"
    assert [image.seed for image in done.images] == [10, 11, 12, 13]
    assert [image.steps for image in done.images] == [2] * 4
    assert (done.memory_before, done.memory_after, done.model) == (MEMORY, MEMORY, INFO)
    assert (done.clean_up_before, done.clean_up_after) == (CLEAN_UP, CLEAN_UP)
    assert done.attempts == 1
    assert done.started_at is not None
    assert done.started_at <= done.finished_at


def test_a_failed_job_says_how_memory_was_cleared_after_it(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    draw(rooms, Drawer(raising(RequestRefused("No.", "Fix."))))
    assert outcome(rooms, "job").clean_up_after == CLEAN_UP


def test_the_status_tells_what_jobs_leave_in_use(rooms: Rooms) -> None:
    def work(control: LoopControl) -> None:
        render_jobs(rooms.spool, SETTINGS, OutboxSettings(), lambda *_: Drawer(), control)

    rooms.admit("one", FOUR)
    rooms.admit("two", FOUR)
    with running(work):
        eventually(lambda: len(rooms.rendered()) == 2, "both jobs")
        eventually(lambda: report(rooms).activity == "idle", "the idling in the report")
    floor = report(rooms).memory_floor
    assert floor is not None
    assert report(rooms).memory == MEMORY
    assert (floor.model, floor.arrangement, floor.jobs) == ("demo", None, 2)
    assert 0 < floor.host_bytes <= floor.host_first_bytes


@pytest.mark.parametrize("error", [BadPicture("NaN.", "Fix."), OutOfMemory("Full.", "Fix."), RuntimeError("odd")])
def test_what_may_pass_is_tried_as_often_as_the_settings_say_and_then_given_up(
    rooms: Rooms, error: Exception
) -> None:
    rooms.admit("bad", f'prompt = "x"\nseed = 7\n{SMALL}')
    rooms.admit("good", sequence=2)
    drawer = Drawer(raising(error, lambda request: request.seed == 7))
    draw(rooms, drawer)
    bad = outcome(rooms, "bad")
    assert sorted(drawer.drawn) == [1, 7, 7, 7]
    assert (bad.status, bad.attempts) == ("failed", 3)
    assert bad.error is not None
    assert str(error) in bad.error.what
    [entry] = [entry for entry in rooms.rendered() if entry.record().name == "bad"]
    assert "It was tried 3 times." in letter_for(entry.record(), bad)[1]
    assert outcome(rooms, "good").status == "succeeded"


def test_what_passes_at_the_second_try_succeeds(rooms: Rooms) -> None:
    rooms.admit("job")
    drawer = Drawer(raising(BadPicture("NaN.", "Fix."), lambda _: len(drawer.drawn) == 1))
    draw(rooms, drawer)
    assert (outcome(rooms, "job").status, outcome(rooms, "job").attempts) == ("succeeded", 2)


def test_what_cannot_pass_fails_at_once(rooms: Rooms) -> None:
    rooms.admit("job")
    drawer = Drawer(raising(RequestRefused("Too large.", "Smaller.")))
    draw(rooms, drawer)
    failed = outcome(rooms, "job")
    assert drawer.drawn == [1]
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error is not None
    assert (failed.error.kind, failed.error.fix) == ("RequestRefused", "Smaller.")


class Unloadable(Drawer):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.tries = 0

    def __enter__(self) -> Self:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize("error", [OutOfMemory("Full.", "Fix."), RuntimeError("odd")])
def test_a_model_that_fails_while_it_is_loaded_is_not_tried_for_ever(rooms: Rooms, error: Exception) -> None:
    rooms.admit("job")
    drawer = Unloadable(error)
    draw(rooms, drawer)
    assert drawer.tries == 3
    assert (outcome(rooms, "job").status, outcome(rooms, "job").attempts) == ("failed", 3)


def test_a_model_that_is_not_there_is_trouble_and_no_jobs_fault(rooms: Rooms) -> None:
    rooms.admit("job")
    with pytest.raises(GaveUp, match=r"No checkpoint\. Put it there\."):
        draw(rooms, Unloadable(ModelUnavailable("No checkpoint.", "Put it there.")))
    assert [record.name for record in rooms.queued()] == ["job"]
    assert report(rooms).activity == "troubled"
    assert report(rooms).trouble == "No checkpoint. Put it there."
    draw(rooms, Drawer())
    assert outcome(rooms, "job").attempts == 1


def test_a_model_that_is_not_there_does_not_hold_up_the_jobs_of_another(rooms: Rooms) -> None:
    rooms.admit("first", f'prompt = "x"\nmodel = "other"\n{SMALL}', sequence=1)
    rooms.admit("second", sequence=2)
    opener = Opener({"other": Unloadable(ModelUnavailable("No checkpoint.", "Put it there.")), "demo": Drawer()})
    with pytest.raises(GaveUp, match="No checkpoint"):
        drain(rooms, opener)
    assert outcome(rooms, "second").status == "succeeded"
    assert [record.name for record in rooms.queued()] == ["first"]
    assert opener.opened == ["other", "demo"]


def test_a_disk_that_fails_is_trouble_and_no_jobs_fault(rooms: Rooms) -> None:
    rooms.admit("job")
    with pytest.raises(GaveUp, match="No space left"):
        draw(rooms, Drawer(raising(OSError(28, "No space left on device"))))
    [entry] = rooms.spool.entries(rooms.spool.queue)
    assert entry.attempts() == {1: "interrupted"}


def test_a_picture_that_cannot_be_written_puts_its_job_back_and_keeps_the_others(rooms: Rooms) -> None:
    entry = rooms.admit("job", FOUR)
    (entry.folder / "images").mkdir()
    (entry.folder / "images" / "0002.png").mkdir()
    drawer = Drawer()
    with pytest.raises(GaveUp, match="Is a directory"):
        draw(rooms, drawer)
    assert set(entry.finished_images()) >= {0, 1}
    (entry.folder / "images" / "0002.png").rmdir()
    draw(rooms, Drawer())
    assert [image.seed for image in outcome(rooms, "job").images] == [10, 11, 12, 13]


def test_trouble_is_no_reason_to_die_where_not_even_the_report_can_be_written(rooms: Rooms) -> None:
    rooms.admit("job")

    def break_the_report(_: RenderRequest) -> None:
        (rooms.spool.state / RENDER_REPORT).unlink()
        (rooms.spool.state / RENDER_REPORT).mkdir()
        raise OSError(28, "No space left on device")

    with pytest.raises(GaveUp, match="No space left"):
        draw(rooms, Drawer(break_the_report))
    assert [record.name for record in rooms.queued()] == ["job"]


def test_a_lost_device_ends_the_process_and_the_next_goes_on_with_the_next_picture(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    with pytest.raises(DeviceLost):
        draw(rooms, Drawer(raising(DeviceLost("Gone.", "Restart."), lambda request: request.seed == 12)))
    [entry] = rooms.spool.entries(rooms.spool.active)
    assert entry.attempts() == {1: ""}
    drawer = Drawer()
    draw(rooms, drawer)
    assert drawer.drawn == [12, 13]
    assert [image.seed for image in outcome(rooms, "job").images] == [10, 11, 12, 13]


def test_a_failed_job_brings_the_pictures_that_were_finished(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    draw(rooms, Drawer(raising(RequestRefused("No.", "Fix."), lambda request: request.seed == 12)))
    assert [image.seed for image in outcome(rooms, "job").images] == [10, 11]


# What a killed process left.


def killed(rooms: Rooms, times: int, text: str = FOUR) -> Entry:
    entry = rooms.admit("killer", text)
    with pytest.raises(DeviceLost):
        draw(rooms, Drawer(raising(DeviceLost("Gone.", "Restart."), lambda request: request.seed == 11)))
    entry = Entry(rooms.spool.active / entry.id)
    mark(entry, times - 1)
    return entry


def test_a_job_that_killed_the_process_once_is_tried_again(rooms: Rooms) -> None:
    killed(rooms, 1)
    draw(rooms, Drawer())
    assert (outcome(rooms, "killer").status, outcome(rooms, "killer").attempts) == ("succeeded", 2)


def test_a_job_that_killed_the_process_twice_is_given_up_with_what_was_finished(rooms: Rooms) -> None:
    put_down_a_death(rooms, killed(rooms, 2), None, datetime.now(UTC))
    rooms.admit("next", sequence=2)
    drawer = Drawer()
    draw(rooms, drawer)
    given_up = outcome(rooms, "killer")
    assert (given_up.status, given_up.attempts) == ("failed", 2)
    assert given_up.error is not None
    assert given_up.error.kind == "KilledTheRenderer"
    assert [image.seed for image in given_up.images] == [10]
    assert given_up.started_at is not None
    assert drawer.drawn == [1]
    assert outcome(rooms, "next").status == "succeeded"


def test_interrupted_attempts_do_not_count_as_kills(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    for _ in range(5):
        mark(entry, 1)
        entry.end_last_attempt("interrupted")
    rooms.spool.take(entry)
    draw(rooms, Drawer())
    assert outcome(rooms, "job").status == "succeeded"


def test_a_job_that_was_concluded_when_the_process_died_is_not_drawn_again(rooms: Rooms) -> None:
    entry = rooms.spool.take(rooms.admit("job"))
    mark(entry, 2)
    entry.conclude(Outcome(status="succeeded", finished_at=datetime.now(UTC)))
    drawer = Drawer()
    draw(rooms, drawer)
    assert drawer.drawn == []
    assert outcome(rooms, "job").status == "succeeded"


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 100, b'{"version": 1}', None])
@pytest.mark.parametrize("state", ["queue", "active"])
def test_a_job_whose_record_is_unreadable_is_given_up_with_its_file_and_holds_up_nobody(
    rooms: Rooms, content: bytes | None, state: str
) -> None:
    entry = rooms.admit("torn")
    (entry.folder / "job.json").unlink()
    if content is not None:
        (entry.folder / "job.json").write_bytes(content)
    if state == "active":
        rooms.spool.take(entry)
    rooms.admit("good", sequence=2)
    draw(rooms, Drawer())
    torn = next(found for found in rooms.rendered() if found.id == entry.id)
    assert torn.outcome().status == "failed"
    assert [file.name for file in torn.dropped_files()] == ["torn.toml"]
    assert torn.record().source.path == "torn.toml"
    assert outcome(rooms, "good").status == "succeeded"


def test_a_stray_file_in_the_queue_holds_up_nobody(rooms: Rooms) -> None:
    (rooms.spool.queue / "notes.txt").write_text("what is this?")
    rooms.admit("job")
    draw(rooms, Drawer())
    assert outcome(rooms, "job").status == "succeeded"


@pytest.mark.parametrize("content", [None, b"", b"no picture", picture((300, 300))[:-60]])
def test_a_lost_copy_of_a_picture_fails_its_job_alone(rooms: Rooms, content: bytes | None) -> None:
    entry = rooms.admit("job", f'prompt = "x"\nimage = "boat.png"\n{SMALL}')
    if content is not None:
        (entry.folder / INPUTS / "boat.png").write_bytes(content)
    rooms.admit("good", sequence=2)
    draw(rooms, Drawer())
    assert outcome(rooms, "job").status == "failed"
    assert "boat.png" in (outcome(rooms, "job").error or pytest.fail("no reason")).what
    assert outcome(rooms, "good").status == "succeeded"


# Warming up.


def warming(rooms: Rooms, opener: OpenModel, *models: str) -> Callable[[LoopControl], None]:
    """Give a loop that warms up models first."""
    settings = SETTINGS.model_copy(update={"warm_up": models})

    def work(control: LoopControl) -> None:
        render_jobs(rooms.spool, settings, OutboxSettings(), opener, control)

    return work


def says(rooms: Rooms, activity: str) -> bool:
    return (rooms.spool.state / RENDER_REPORT).exists() and report(rooms).activity == activity


def test_a_model_to_warm_up_is_loaded_and_draws_once_at_the_usual_size_before_any_job(rooms: Rooms) -> None:
    asked: list[RenderRequest] = []
    opener = Opener({"demo": Drawer(asked.append)})
    with running(warming(rooms, opener, "demo")):
        eventually(lambda: says(rooms, "idle"), "the idling in the report")
        assert report(rooms).model == INFO
        assert report(rooms).memory == MEMORY
        rooms.admit("job", FOUR)
        eventually(rooms.rendered, "the job")
    assert opener.opened == ["demo"]
    usual = DEMO.sizes["1:1"]
    assert (asked[0].width, asked[0].height, asked[0].num_inference_steps) == (usual.width, usual.height, 2)
    assert [request.seed for request in asked[1:]] == [10, 11, 12, 13]


def test_a_model_that_cannot_be_warmed_up_is_left_to_its_jobs_and_the_others_are_drawn(rooms: Rooms) -> None:
    drawer = Drawer()

    def open_model(name: str, *_: object) -> Renderer:
        if name == "other":
            raise ModelUnavailable("It is not there.", "Fetch it.")
        return drawer

    with running(warming(rooms, open_model, "other")):
        rooms.admit("job", FOUR)
        eventually(rooms.rendered, "the job")
    assert outcome(rooms, "job").status == "succeeded"


def test_a_stop_does_not_wait_for_a_warm_up(rooms: Rooms) -> None:
    stopping = Stopping()
    drawer = Drawer(lambda _: stopping.ask())
    warming(rooms, lambda *_: drawer, "demo")(LoopControl(stopping=stopping))
    assert drawer.drawn == [0]


def test_nothing_is_warmed_up_for_a_single_run_or_while_somebody_paused_the_daemon(rooms: Rooms) -> None:
    opener = Opener({"demo": Drawer()})
    warming(rooms, opener, "demo")(LoopControl(no_more=lambda: True, drain=True))
    Controls(rooms.spool).pause("command")
    with running(warming(rooms, opener, "demo")):
        eventually(lambda: says(rooms, "paused"), "the pause in the report")
    assert opener.opened == []


# Several models.


def test_a_model_that_stands_by_is_not_loaded_again(rooms: Rooms) -> None:
    opener = Opener({"other": Drawer(), "demo": Drawer()})
    settings = SETTINGS.model_copy(update={"warm_models": 2, "group_seconds": 0.0})
    for number, model in enumerate(["other", "demo", "other", "demo"]):
        rooms.admit(f"job{number}", f'prompt = "x"\nmodel = "{model}"\n{SMALL}', sequence=number)
    control = LoopControl(no_more=lambda: True, drain=True)
    render_jobs(rooms.spool, settings, OutboxSettings(), opener, control)
    assert opener.opened == ["other", "demo"]
    assert len(rooms.rendered()) == 4


# Letting go.


def test_where_a_model_idled_the_status_says_that_it_goes_and_then_that_the_card_is_free(rooms: Rooms) -> None:
    def work(control: LoopControl, unload_after_seconds: float = 3600) -> None:
        settings = SETTINGS.model_copy(update={"unload_after_seconds": unload_after_seconds})
        render_jobs(rooms.spool, settings, OutboxSettings(), lambda *_: Drawer(), control)

    rooms.admit("job", FOUR)
    with pytest.raises(Renewed):
        work(LoopControl(), unload_after_seconds=0.01)
    assert outcome(rooms, "job").status == "succeeded"
    told = report(rooms)
    assert (told.activity, told.model, told.memory) == ("starting", None, None)
    assert "replaced: its model was not needed" in str(told.note)

    with running(work):
        eventually(lambda: says(rooms, "idle"), "the idling in the report")
        assert report(rooms).model is None
        assert "No model is loaded, and the card is free" in str(report(rooms).note)
        rooms.admit("second", FOUR)
        eventually(lambda: len(rooms.rendered()) == 2, "the next job")


# Order, models, stops.


def test_jobs_are_drawn_by_priority_then_arrival(rooms: Rooms) -> None:
    for number, (name, priority) in enumerate({"a": 0, "b": 0, "urgent": 5, "idle": -5}.items()):
        text = f'prompt = "x"\npriority = {priority}\nseed = {100 + number}\n{SMALL}'
        rooms.admit(name, text, sequence=number)
    drawer = Drawer()
    draw(rooms, drawer)
    assert drawer.drawn == [102, 100, 101, 103]


def test_jobs_for_the_loaded_model_go_first_so_that_models_change_seldom(rooms: Rooms) -> None:
    """And the status says why."""
    notes: list[str | None] = []
    for number, model in enumerate(["demo", "demo", "other", "other", "demo"]):
        rooms.admit(f"job{number}", f'prompt = "x"\nmodel = "{model}"\n{SMALL}', sequence=number)
    look = Drawer(lambda _: notes.append(report(rooms).note))
    opener = Opener({"demo": look, "other": look})
    drain(rooms, opener)
    assert opener.opened == ["demo", "other"]
    assert len(rooms.rendered()) == 5
    assert [note is not None for note in notes] == [False, False, True, False, False]
    assert str(notes[2]).startswith(
        "job4 goes before older jobs because demo is loaded; they wait for that at most "
    )


def test_without_grouping_jobs_are_drawn_strictly_in_their_order(rooms: Rooms) -> None:
    for number, model in enumerate(["demo", "other", "demo"]):
        rooms.admit(f"job{number}", f'prompt = "x"\nmodel = "{model}"\n{SMALL}', sequence=number)
    opener = Opener({"demo": Drawer(), "other": Drawer()})
    control = LoopControl(stopping=Stopping(), no_more=lambda: True, drain=True)
    settings = RenderSettings(group_seconds=0)
    render_jobs(rooms.spool, settings, OutboxSettings(), opener, control)
    assert opener.opened == ["demo", "other", "demo"]


def test_a_model_stays_warm_after_a_failed_job(rooms: Rooms) -> None:
    rooms.admit("bad", f'prompt = "x"\nseed = 7\n{SMALL}')
    rooms.admit("good", sequence=2)
    drawer = Drawer(raising(RequestRefused("No.", "Fix."), lambda request: request.seed == 7))
    opener = Opener({"demo": drawer})
    drain(rooms, opener)
    assert opener.opened == ["demo"]


def test_a_stop_lets_the_picture_be_finished_and_the_next_start_draws_the_rest(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    stopping = Stopping()
    first = Drawer(lambda request: stopping.ask() if request.seed == 11 else None)
    drain(rooms, lambda *_: first, stopping)
    [entry] = rooms.spool.entries(rooms.spool.queue)
    assert set(entry.finished_images()) == {0, 1}
    assert entry.attempts() == {1: "interrupted"}
    second = Drawer()
    draw(rooms, second)
    assert second.drawn == [12, 13]
    assert len(outcome(rooms, "job").images) == 4


def test_a_second_stop_leaves_the_picture_at_the_next_step(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    stopping = Stopping()

    def stop_twice(request: RenderRequest) -> None:
        if request.seed == 11:
            stopping.ask()
            stopping.ask()

    drain(rooms, lambda *_: Drawer(stop_twice), stopping)
    [entry] = rooms.spool.entries(rooms.spool.queue)
    assert set(entry.finished_images()) == {0}


def test_a_picture_whose_record_is_torn_is_drawn_again(rooms: Rooms) -> None:
    entry = killed(rooms, 1)
    (entry.folder / "images" / "0000.json").write_bytes(b"")
    drawer = Drawer()
    draw(rooms, drawer)
    assert drawer.drawn == [10, 11, 12, 13]


def test_progress_and_the_estimated_end_are_reported_while_a_job_is_drawn(rooms: Rooms) -> None:
    rooms.admit("job", 'prompt = "x"\nnum_images = 3\nwidth = 64\nheight = 64\nnum_inference_steps = 10\n')
    seen: list[RenderReport] = []
    control = LoopControl(
        no_more=lambda: True,
        drain=True,
        beat=lambda _: seen.append(report(rooms)) if (rooms.spool.state / RENDER_REPORT).exists() else None,
    )
    model = ModelSettings(family="demo", source="none")
    render_jobs(rooms.spool, SETTINGS, OutboxSettings(), lambda *_: DryRunRenderer(model, 0.03), control)
    current = [found.current for found in seen if found.current is not None]
    assert {found.activity for found in seen} >= {"loading", "rendering"}
    assert current
    assert all(found.name == "job" and found.images == 3 and found.steps == 10 for found in current)
    estimates = [found.eta_seconds for found in current if found.eta_seconds is not None]
    assert estimates
    assert all(estimate >= 0 for estimate in estimates)
    assert seen[-1].model is not None
    assert seen[-1].memory is not None


def test_before_its_first_step_the_end_is_estimated_by_the_pace_of_such_pictures(rooms: Rooms) -> None:
    record = rooms.admit("job", FOUR).record()
    pace = Pace(record, 4, 2, datetime.now(UTC))
    known = Progress("encode", 0, 2, expected_seconds=90.0, note="drawn on the CPU")
    assert pace.at(0, Progress("encode", 0, 2)).eta_seconds is None
    assert pace.at(0, known).eta_seconds == 360.0
    assert pace.at(0, known).note == "drawn on the CPU"
    estimate = pace.at(0, replace(known, step=1)).eta_seconds
    assert estimate is not None
    assert estimate < 90


def test_a_step_that_is_expected_to_take_long_is_no_hang(rooms: Rooms) -> None:
    allowed: list[float] = []
    control = LoopControl(no_more=lambda: True, drain=True, beat=allowed.append)
    interruptions = Interruptions(SETTINGS, control, Controls(rooms.spool), lambda: None)
    for expected in (None, 40.0, 36_000.0):
        interruptions.at_step("job", Progress("denoise", 1, 50, expected_seconds=expected))
    assert allowed == [600.0, 600.0, pytest.approx(3 * 36_000 / 50)]


@pytest.mark.usefixtures("daemon_logs")
def test_the_jobs_own_log_tells_its_course_and_no_other_jobs(rooms: Rooms) -> None:
    rooms.admit("one", f'prompt = "x"\nnum_images = 2\n{SMALL}')
    rooms.admit("two", sequence=2)
    draw(rooms, Drawer())
    for entry in rooms.rendered():
        events = [json.loads(line) for line in entry.log_file.read_text().splitlines()]
        names = [event["event"] for event in events]
        images = 2 if entry.record().name == "one" else 1
        expected = ["job.started", *["image.rendered"] * images, "job.succeeded"]
        assert [name for name in names if not name.startswith("model.")] == expected


@pytest.mark.parametrize(("format_", "suffix"), [("png", "png"), ("webp", "webp"), ("jpeg", "jpg")])
def test_pictures_are_written_in_the_format_that_was_asked_for(rooms: Rooms, format_: str, suffix: str) -> None:
    rooms.admit("job", f'prompt = "x"\n{SMALL}[output]\nformat = "{format_}"')
    draw(rooms, Drawer())
    [entry] = rooms.rendered()
    with Image.open(entry.folder / "images" / f"0000.{suffix}") as drawn:
        assert drawn.size == (64, 64)
    assert outcome(rooms, "job").images[0].file.path == f"0000.{suffix}"


def test_a_source_that_had_to_be_fitted_is_told_in_the_result(rooms: Rooms) -> None:
    entry = rooms.admit("job", f'prompt = "x"\nimage = "boat.png"\n{SMALL}')
    (entry.folder / INPUTS / "boat.png").write_bytes(picture((96, 64)))
    record = entry.record()
    inputs = (FileRecord(path="boat.png", size_bytes=1, sha256=""),)
    (entry.folder / "job.json").write_bytes(record.model_copy(update={"inputs": inputs}).to_bytes())
    sizes: list[tuple[int, int]] = []
    draw(rooms, Drawer(lambda request: sizes.append(request.source.size) if request.source else None))
    assert sizes == [(64, 64)]
    assert outcome(rooms, "job").adjustments == ("boat.png, 96×64, was scaled to 64×43 and padded to 64×64",)


def test_a_job_whose_time_is_over_fails_once_with_what_it_has_and_the_others_go_on(rooms: Rooms) -> None:
    """The first picture is there from an attempt that was interrupted."""
    stopping = Stopping()
    entry = rooms.admit("slow", FOUR.replace("num_images = 4", "num_images = 2"), sequence=1)

    def stop_after(_: RenderRequest) -> None:
        stopping.ask()

    drain(rooms, lambda *_: Drawer(stop_after), stopping)
    record = entry.record()
    assert record.requested is not None
    hurried = record.requested.model_copy(update={"timeout_seconds": 1e-9})
    (entry.folder / "job.json").write_bytes(record.model_copy(update={"requested": hurried}).to_bytes())
    rooms.admit("other", sequence=2)
    drawer = Drawer()
    draw(rooms, drawer)
    ended = outcome(rooms, "slow")
    assert ended.error is not None
    assert (ended.status, ended.error.kind, ended.attempts) == ("failed", "TookTooLong", 2)
    assert [image.seed for image in ended.images] == [10]
    assert drawer.drawn.count(11) == 1
    assert "timeout_seconds" in letter_for(record, ended)[1]
    assert outcome(rooms, "other").status == "succeeded"


def test_the_words_of_a_style_are_drawn_and_a_style_without_words_says_so(rooms: Rooms) -> None:
    prompts: list[str] = []
    rooms.admit("latin", f'prompt = "a fox"\nstyle = "makers"\n{SMALL}', sequence=1)
    rooms.admit("cyrillic", f'prompt = "лиса"\nstyle = "makers"\n{SMALL}', sequence=2)
    draw(rooms, Drawer(lambda request: prompts.append(request.prompt)))
    assert prompts == ["a fox, Ultra HD, 4K, cinematic composition.", "лиса"]
    assert outcome(rooms, "latin").adjustments == ()
    [adjustment] = outcome(rooms, "cyrillic").adjustments
    assert 'style "makers" has no words in the prompt\'s language' in adjustment


# What people ask: pauses, and the end of a job.


def drawing_until(seed: int, ask: Callable[[], None]) -> Drawer:
    """Give a drawer that does what is asked before one picture."""
    return Drawer(lambda request: ask() if request.seed == seed else None)


def test_a_pause_lets_the_picture_be_finished_and_begins_no_other(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    controls = Controls(rooms.spool)
    first = drawing_until(11, lambda: controls.pause("command"))
    with pytest.raises(GaveUp, match=r"Paused by the command `pause`.*left in the queue: 1"):
        draw(rooms, first)
    assert first.drawn == [10, 11]
    [entry] = rooms.spool.entries(rooms.spool.queue)
    assert set(entry.finished_images()) == {0, 1}
    assert entry.attempts() == {1: "interrupted"}
    controls.resume("command")
    second = Drawer()
    draw(rooms, second)
    assert second.drawn == [12, 13]
    assert outcome(rooms, "job").status == "succeeded"


def test_a_paused_loop_says_who_paused_it_and_goes_on_when_nobody_does(rooms: Rooms) -> None:
    controls = Controls(rooms.spool)
    controls.pause("inbox")
    rooms.admit("job")
    drawer = Drawer()

    def work(control: LoopControl) -> None:
        render_jobs(rooms.spool, SETTINGS, OutboxSettings(), lambda *_: drawer, control)

    def paused() -> bool:
        return (rooms.spool.state / RENDER_REPORT).exists() and report(rooms).activity == "paused"

    with running(work):
        eventually(paused, "the pause in the report")
        assert "PAUSE in the inbox" in (report(rooms).note or "")
        assert report(rooms).trouble is None
        assert drawer.drawn == []
        controls.resume("inbox")
        eventually(rooms.rendered, "the job")
        eventually(lambda: report(rooms).activity == "idle", "the end of the pause in the report")
        assert report(rooms).note is None


def test_a_pause_with_nothing_to_do_holds_up_no_single_run(rooms: Rooms) -> None:
    Controls(rooms.spool).pause("command")
    draw(rooms, Drawer())


def test_a_job_that_is_cancelled_before_its_start_is_never_begun(rooms: Rooms) -> None:
    entry = rooms.admit("unwanted", FOUR)
    rooms.admit("wanted", sequence=2)
    controls = Controls(rooms.spool)
    controls.cancel(entry.id, by="anna")
    drawer = Drawer()
    draw(rooms, drawer)
    assert drawer.drawn == [1]
    end = outcome(rooms, "unwanted")
    assert (end.status, end.cancelled_by, end.images, end.attempts) == ("cancelled", "anna", (), 0)
    assert controls.cancelled() == []


def test_a_job_that_is_cancelled_while_it_is_drawn_ends_at_the_next_step_with_what_it_has(rooms: Rooms) -> None:
    entry = rooms.admit("unwanted", FOUR)
    rooms.admit("wanted", sequence=2)
    controls = Controls(rooms.spool)
    drawer = drawing_until(11, lambda: controls.cancel(entry.id))
    draw(rooms, drawer)
    assert drawer.drawn == [10, 11, 1]
    end = outcome(rooms, "unwanted")
    assert (end.status, [image.seed for image in end.images], end.attempts) == ("cancelled", [10], 1)
    assert outcome(rooms, "wanted").status == "succeeded"
    assert controls.cancelled() == []


def test_a_long_job_does_not_hold_up_the_end_of_another(rooms: Rooms) -> None:
    rooms.admit("long", FOUR)
    entry = rooms.admit("unwanted", sequence=2)
    controls = Controls(rooms.spool)
    still_there: list[bool] = []

    def cancel_and_look(request: RenderRequest) -> None:
        still_there.append(rooms.spool.queue.joinpath(entry.id).exists())
        if request.seed == 10:
            controls.cancel(entry.id)

    draw(rooms, Drawer(cancel_and_look))
    assert still_there == [True, False, False, False]
    assert outcome(rooms, "unwanted").status == "cancelled"
    assert outcome(rooms, "long").status == "succeeded"


def test_a_paused_daemon_still_lets_go_of_cancelled_jobs(rooms: Rooms) -> None:
    controls = Controls(rooms.spool)
    controls.pause("command")
    controls.cancel(rooms.admit("unwanted").id)
    draw(rooms, Drawer())
    assert outcome(rooms, "unwanted").status == "cancelled"


def test_what_is_cancelled_too_late_is_done_and_the_request_is_forgotten(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    draw(rooms, Drawer())
    controls = Controls(rooms.spool)
    controls.cancel(entry.id)
    draw(rooms, Drawer())
    assert outcome(rooms, "job").status == "succeeded"
    assert controls.cancelled() == []


def test_a_job_that_killed_the_process_twice_and_was_cancelled_is_cancelled(rooms: Rooms) -> None:
    entry = killed(rooms, 2)
    Controls(rooms.spool).cancel(entry.id)
    draw(rooms, Drawer())
    assert outcome(rooms, "killer").status == "cancelled"


# Suspects, and what is known of a death.


def test_a_suspect_is_drawn_after_all_others_whatever_its_priority(rooms: Rooms) -> None:
    suspect = rooms.admit("suspect", f'prompt = "x"\nseed = 7\npriority = 9\n{SMALL}')
    mark(rooms.spool.take(suspect), 1)
    rooms.admit("plain", sequence=2)
    drawer = Drawer()
    draw(rooms, drawer)
    assert drawer.drawn == [1, 7]


def test_deaths_with_a_finished_picture_between_them_end_no_job(rooms: Rooms) -> None:
    rooms.admit("job", FOUR)
    for seed in (11, 12, 13):
        with pytest.raises(DeviceLost):
            draw(
                rooms,
                Drawer(raising(DeviceLost("Gone.", "Restart."), lambda request, at=seed: request.seed == at)),
            )
    draw(rooms, Drawer())
    assert (outcome(rooms, "job").status, outcome(rooms, "job").attempts) == ("succeeded", 4)


def put_down_a_death(rooms: Rooms, entry: Entry, silent_seconds: float | None, when: datetime) -> None:
    current = CurrentJob(
        id=entry.id, name="killer", image=2, images=4, stage="denoise", step=1, steps=2, started_at=when
    )
    death = RenderDeath(
        how="signal SIGKILL",
        died_at=when,
        silent_seconds=silent_seconds,
        last_report=RenderReport(activity="rendering", current=current, memory=MEMORY),
    )
    (rooms.spool.state / RENDER_DEATH).write_bytes(death.to_bytes())


def known_of_the_death(rooms: Rooms) -> str:
    draw(rooms, Drawer())
    [entry] = [found for found in rooms.rendered() if found.record().name == "killer"]
    report = entry.outcome().error
    assert report is not None
    name, letter = letter_for(entry.record(), entry.outcome())
    assert name == "ERROR.txt"
    assert all(line in letter for line in report.details)
    return "\n".join(report.details)


@pytest.mark.usefixtures("daemon_logs")
def test_a_killers_report_says_how_the_process_died_where_it_was_and_what_was_logged_last(rooms: Rooms) -> None:
    put_down_a_death(rooms, killed(rooms, 2), None, datetime.now(UTC))
    known = known_of_the_death(rooms)
    assert "signal SIGKILL at 2" in known
    assert "picture 2 of 4, step 1 of 2" in known
    assert "Memory at the last report: none: 0.00 GiB held by tensors" in known
    assert '"event": "job.started"' in known
    assert '"event": "job.renderer_died"' in known


def test_a_killers_report_says_that_it_hung_and_for_how_long(rooms: Rooms) -> None:
    put_down_a_death(rooms, killed(rooms, 2), 600.0, datetime.now(UTC))
    assert "it hung: no step was done for 600 seconds (step_timeout_seconds)" in known_of_the_death(rooms)


def test_the_story_of_an_earlier_death_is_not_told_of_this_one(rooms: Rooms) -> None:
    put_down_a_death(rooms, killed(rooms, 5), None, datetime.now(UTC) - timedelta(hours=1))
    known = known_of_the_death(rooms)
    assert "The last death: not known; the whole daemon, or the machine, went down with it." in known
    assert "SIGKILL" not in known


def test_two_deaths_of_the_whole_daemon_are_nobodys_fault_and_many_are(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    for _ in range(4):
        draw_and_lose_the_machine(rooms)
        assert rooms.rendered() == []
    assert (Entry(rooms.spool.active / entry.id).kills(), Entry(rooms.spool.active / entry.id).deaths()) == (1, 4)
    draw_and_lose_the_machine(rooms)
    draw(rooms, Drawer())
    given_up = outcome(rooms, "job")
    assert given_up.error is not None
    assert "died 5 times" in given_up.error.what


def draw_and_lose_the_machine(rooms: Rooms) -> None:
    with pytest.raises(DeviceLost):
        draw(rooms, Drawer(raising(DeviceLost("Gone.", "Restart."), lambda _: True)))


# Pauses between tries, and faults of the saver's thread.


TOMORROW = datetime.now(UTC) + timedelta(days=1)


def test_a_job_for_later_lets_others_go_first_and_is_said_to_wait(rooms: Rooms) -> None:
    rooms.admit("later", f'prompt = "x"\npriority = 9\nnot_before = {TOMORROW.isoformat()}\n{SMALL}')
    with running(partial(render_jobs, rooms.spool, SETTINGS, OutboxSettings(), lambda *_: Drawer())):
        written = rooms.spool.state / RENDER_REPORT
        eventually(lambda: written.exists() and "Jobs for later: 1" in (report(rooms).note or ""), "the note")
        rooms.admit("now", sequence=2)
        eventually(rooms.rendered, "the job that need not wait")
    assert outcome(rooms, "now").status == "succeeded"
    assert [record.name for record in rooms.queued()] == ["later"]


def test_a_job_that_waits_for_its_next_try_holds_up_no_other(rooms: Rooms) -> None:
    rooms.admit("bad", f'prompt = "x"\nseed = 7\n{SMALL}')
    for number in range(3):
        rooms.admit(f"good{number}", sequence=2 + number)
    drawer = Drawer(raising(BadPicture("NaN.", "Fix."), lambda request: request.seed == 7))
    settings = RenderSettings(attempts=2, retry_pause_seconds=0.3)
    control = LoopControl(no_more=lambda: True, drain=True)
    render_jobs(rooms.spool, settings, OutboxSettings(), lambda *_: drawer, control)
    assert drawer.drawn == [7, 1, 1, 1, 7]
    assert outcome(rooms, "bad").attempts == 2


class Unwritable(Image.Image):
    """A picture that no encoder takes, by a fault of its own."""

    def save(self, *_: object, **__: object) -> None:
        raise SyntaxError("unencodable")

    def tobytes(self, *_: object, **__: object) -> bytes:
        raise SyntaxError("unencodable")


class DrawerOfTheUnwritable(Drawer):
    """Draws what cannot be encoded for one seed."""

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        rendering = super().render(request, progress)
        if request.seed == 7:
            rendering.image.__class__ = Unwritable
        return rendering


def test_a_picture_that_cannot_be_encoded_is_the_fault_of_its_own_job(rooms: Rooms) -> None:
    rooms.admit("bad", f'prompt = "x"\nseed = 7\n{SMALL}')
    rooms.admit("good", sequence=2)
    draw(rooms, DrawerOfTheUnwritable())
    bad = outcome(rooms, "bad")
    assert (bad.status, bad.attempts) == ("failed", 3)
    assert bad.error is not None
    assert "unencodable" in bad.error.what
    assert (outcome(rooms, "good").status, outcome(rooms, "good").attempts) == ("succeeded", 1)
    assert rooms.spool.entries(rooms.spool.active) == []


def test_a_job_that_the_disk_does_not_give_is_trouble_and_is_not_given_up(rooms: Rooms) -> None:
    entry = rooms.admit("job")
    content = (entry.folder / "job.json").read_bytes()
    (entry.folder / "job.json").unlink()
    (entry.folder / "job.json").mkdir()
    rooms.admit("good", sequence=2)
    with pytest.raises(GaveUp, match="Is a directory"):
        draw(rooms, Drawer())
    assert outcome(rooms, "good").status == "succeeded"
    (entry.folder / "job.json").rmdir()
    (entry.folder / "job.json").write_bytes(content)
    draw(rooms, Drawer())
    assert outcome(rooms, "job").status == "succeeded"


class LoadingDrawer(Drawer):
    """A renderer whose loading gets on, step by step."""

    def __init__(self, tell: Callable[[Loading], None], look: Callable[[], None]) -> None:
        super().__init__(lambda _: look())
        self.tell = tell
        self.look = look

    def __enter__(self) -> Self:
        """Fetch two thirds of something."""
        self.tell(Loading("fetch", 2_000_000_000, 3_000_000_000))
        self.look()
        return self


def test_how_far_loading_is_is_reported_until_something_is_drawn(rooms: Rooms) -> None:
    rooms.admit("job")
    seen: list[RenderReport] = []

    drain(rooms, lambda _, tell, __: LoadingDrawer(tell, lambda: seen.append(report(rooms))))

    loading, drawing = seen
    assert (loading.activity, loading.model_name) == ("loading", "demo")
    assert loading.loading is not None
    assert loading.loading.told() == "fetching demo from the hub, 2.00 of 3.00 GB (66 %)"
    assert (drawing.activity, drawing.loading) == ("rendering", None)


def test_a_stop_while_a_model_is_fetched_leaves_the_job_in_the_queue(rooms: Rooms) -> None:
    rooms.admit("job")
    stopping = Stopping()

    def stopped(_: str, tell: Callable[[Loading], None], __: Callable[[], bool]) -> Renderer:
        stopping.ask()
        return LoadingDrawer(tell, lambda: pytest.fail("It was loaded all the same."))

    drain(rooms, stopped, stopping)

    [job] = rooms.queued()
    assert job.name == "job"
    assert rooms.spool.entries(rooms.spool.queue)[0].attempts() == {}


def test_loading_that_gets_on_is_no_hang(rooms: Rooms) -> None:
    """Each step of it announces the next one within the time that a loading may stand still."""
    rooms.admit("job")
    beats: list[float] = []
    control = LoopControl(stopping=Stopping(), no_more=lambda: True, drain=True, beat=beats.append)
    settings = RenderSettings(load_timeout_seconds=4321.0)

    def loaded(_: str, tell: Callable[[Loading], None]) -> Renderer:
        beats.clear()
        return LoadingDrawer(tell, lambda: None)

    def opened(name: str, tell: Callable[[Loading], None], _: Callable[[], bool]) -> Renderer:
        drawer = loaded(name, tell)
        tell(Loading("arrange"))
        assert beats == [4321.0]
        return drawer

    render_jobs(rooms.spool, settings, OutboxSettings(), opened, control)
