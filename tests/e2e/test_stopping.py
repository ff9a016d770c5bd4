"""Stops, kills and starts: nothing is lost, nothing is done twice."""

import os
import signal

import pytest

from driving import Box, eventually

LONG = 'prompt = "long"\nnum_images = 4\nnum_inference_steps = 20\nseed = 7'


def slow(box: Box, step_seconds: float) -> Box:
    box._environment["RENDER__DRY_RUN_STEP_SECONDS"] = str(step_seconds)
    return box


def drawing(box: Box) -> bool:
    return bool(box.status().get("current"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("inline", [False, True])
def test_a_stop_finishes_the_image_and_the_next_start_goes_on_with_the_next(
    box: Box, how: signal.Signals, *, inline: bool
) -> None:
    slow(box, 0.05)
    arguments = ["--dry-run", *(["--inline"] if inline else [])]
    box.drop("long.toml", LONG)
    with box.running(*arguments) as daemon:
        eventually(lambda: drawing(box), "the job to be drawn")
        daemon.signal(how)
        assert daemon.process.wait(30) == 0
    before = [path.read_bytes() for path in sorted(box.spool.glob("queue/*/images/*.png"))]
    assert 1 <= len(before) < 4
    assert box.status()["state"] == "stopped"
    slow(box, 0)
    assert box.call("run", *arguments, "--once").returncode == 0
    result = box.result("long")
    assert [image.seed for image in result.images] == [7, 8, 9, 10]
    for index, content in enumerate(before):
        assert (box.folder_of(result) / f"long-{index + 1}.png").read_bytes() == content
    assert box.leftovers() == []


def test_a_second_stop_leaves_the_image_at_the_next_step(box: Box) -> None:
    slow(box, 1.0)
    box.drop("long.toml", LONG)
    with box.running("--dry-run") as daemon:
        eventually(lambda: drawing(box), "the job to be drawn")
        daemon.signal(signal.SIGTERM)
        box.wait_for_state("stopping")
        daemon.signal(signal.SIGTERM)
        # The image alone would take 20 seconds more.
        assert daemon.process.wait(10) == 0
    assert list(box.spool.glob("queue/*/images/*.png")) == []
    slow(box, 0)
    assert box.call("run", "--dry-run", "--once").returncode == 0
    assert len(box.result("long").images) == 4


def test_sigterm_in_the_middle_of_a_real_image_loses_nothing(tiny_box: Box) -> None:
    # The tiny model is quick: large pictures and many steps give time to interrupt it.
    job = 'prompt = "a red circle"\nnum_images = 2\nnum_inference_steps = 100\nseed = 3\nwidth = 256\nheight = 256'
    tiny_box.drop("real.toml", job)
    with tiny_box.running() as daemon:
        eventually(lambda: (tiny_box.status().get("current") or {}).get("step"), "a step to be done")
        assert daemon.stop() == 0
    assert len(list(tiny_box.spool.glob("queue/*/images/*.json"))) == 1
    tiny_box.drop("undisturbed.toml", job)
    assert tiny_box.call("run", "--once").returncode == 0
    interrupted = tiny_box.result("real")
    assert [image.seed for image in interrupted.images] == [3, 4]
    undisturbed = tiny_box.result("undisturbed")
    assert [image.file.sha256 for image in interrupted.images] == [
        image.file.sha256 for image in undisturbed.images
    ]


def test_a_daemon_that_is_killed_in_the_middle_of_a_job_goes_on_after_a_restart(box: Box) -> None:
    slow(box, 0.05)
    box.drop("long.toml", LONG)
    with box.running("--dry-run") as daemon:
        eventually(lambda: list(box.spool.glob("active/*/images/0000.json")), "the first image")
        daemon.signal(signal.SIGKILL)
        daemon.process.wait()
    slow(box, 0)
    assert box.call("run", "--dry-run", "--once").returncode == 0
    assert [image.seed for image in box.result("long").images] == [7, 8, 9, 10]
    assert box.result("long").attempts == 2
    assert box.leftovers() == []


@pytest.mark.parametrize("loop", ["take-in", "render", "give-out"])
def test_a_loop_that_is_killed_is_started_again(box: Box, loop: str) -> None:
    slow(box, 0.02)
    with box.running("--dry-run") as daemon:
        box.drop("first.toml", LONG)
        eventually(lambda: drawing(box), "the job to be drawn")
        os.kill(daemon.children()[loop], signal.SIGKILL)
        box.drop("second.toml", 'prompt = "second"')
        assert len(box.result("first").images) == 4
        assert box.result("second").status == "succeeded"
        assert daemon.stop() == 0
    assert len(box.results()) == 2


def test_a_second_daemon_on_the_same_folders_says_that_there_is_one(box: Box) -> None:
    with box.running("--dry-run"):
        box.wait_for_state("idle")
        second = box.call("run", "--dry-run", "--once")
    assert second.returncode == 2
    assert "Another daemon" in second.stderr


def test_the_status_shows_each_job_with_its_state_and_times(box: Box) -> None:
    slow(box, 0.05)
    box.drop("first.toml", LONG)
    with box.running("--dry-run") as daemon:
        eventually(lambda: drawing(box), "the first job to be drawn")
        box.drop("second.toml", 'prompt = "second"\npriority = 3')
        items = eventually(lambda: box.status()["queue"] if len(box.status()["queue"]) == 2 else None, "two jobs")
        current = box.status()["current"]
        daemon.stop()
    assert [(item["name"], item["status"], item["priority"], item["images"]) for item in items] == [
        ("first", "rendering", 0, 4),
        ("second", "queued", 3, 1),
    ]
    assert items[0]["received_at"] <= items[0]["started_at"] <= items[1]["received_at"]
    assert items[1]["started_at"] is None
    assert current["name"] == "first"
    assert current["images"] == 4


@pytest.mark.parametrize(
    ("how", "told"),
    [(signal.SIGKILL, "signal SIGKILL at 2"), (signal.SIGSTOP, "it hung: no step was done for 4 seconds")],
)
def test_a_job_that_takes_the_renderer_down_twice_comes_back_with_what_is_known_and_all_others_are_done(
    box: Box, how: signal.Signals, told: str
) -> None:
    box._environment["RENDER__STEP_TIMEOUT_SECONDS"] = "4"
    slow(box, 0.1)
    box.drop("killer.toml", 'prompt = "killer"\nnum_inference_steps = 100\nwidth = 64\nheight = 64')
    with box.running("--dry-run") as daemon:
        [first] = eventually(lambda: list(box.spool.glob("active/*/attempt.1")), "the first attempt")
        box.drop("other.toml", 'prompt = "x"\nnum_inference_steps = 2\nwidth = 64\nheight = 64')
        eventually(lambda: list(box.spool.glob("queue/*/dropped/other.toml")), "the other job")
        os.kill(daemon.children()["render"], how)
        eventually(first.with_name("attempt.2").exists, "the second attempt")
        assert box.result("other").status == "succeeded"
        os.kill(daemon.children()["render"], how)
        killer = box.result("killer")
        assert daemon.stop() == 0
    assert (killer.status, killer.attempts) == ("failed", 2)
    letter = (box.folder_of(killer) / "ERROR.txt").read_text()
    assert "The render process died 2 times while it worked on this job" in letter
    assert told in letter
    assert "Memory at the last report" in letter
    assert '"event": "job.started"' in letter


def test_an_outbox_that_hangs_is_told_of_and_stops_no_rendering(box: Box) -> None:
    box._environment["SERVICE__SHARE_TIMEOUT_SECONDS"] = "4"
    with box.running("--dry-run") as daemon:
        box.wait_for_state("idle")
        os.kill(daemon.children()["give-out"], signal.SIGSTOP)
        box.drop("job.toml", 'prompt = "x"\nwidth = 64\nheight = 64')
        eventually(lambda: list(box.spool.glob("rendered/*/outcome.json")), "the job to be drawn meanwhile")
        # A stopped process dies of the kill, which one that waits for a server would not.
        assert box.result("job").status == "succeeded"
        eventually(lambda: "loop.answers_again" in {event["event"] for event in daemon.events()}, "the end of it")
        assert daemon.stop() == 0
    [hung] = [event for event in daemon.events() if event["event"] == "loop.hung"]
    assert (hung["name"], hung["silent_seconds"]) == ("give-out", 4.0)
