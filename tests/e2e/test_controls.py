"""Holding, dropping and repeating jobs from outside, while the daemon runs and while it does not."""

from driving import Box, eventually
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.spool import Spool

SMALL = "width = 64\nheight = 64\n"
LONG = f'prompt = "long"\nnum_images = 20\nnum_inference_steps = 10\nseed = 7\n{SMALL}'
QUICK = f'prompt = "quick"\n{SMALL}'


def slow(box: Box) -> Box:
    box._environment["RENDER__DRY_RUN_STEP_SECONDS"] = "0.2"
    return box


def test_a_pause_is_shown_and_a_single_run_under_it_says_so_and_ends_with_one(box: Box) -> None:
    assert box.call("run", "--dry-run", "--once").returncode == 0
    assert box.call("pause").returncode == 0
    box.drop("held.toml", QUICK)
    done = box.call("run", "--dry-run", "--once")
    assert done.returncode == 1
    assert "Paused by the command `pause`; `resume` goes on." in done.stdout
    assert box.results() == []
    with box.running("--dry-run") as daemon:
        status = box.wait_for_state("paused")
        assert (status["note"], status["trouble"]) == ("Paused by the command `pause`; `resume` goes on.", [])
        assert status["counts"]["queued"] == 1
        assert "Paused by the command `pause`" in box.call("status").stdout
        assert "Resumed. The next image is begun." in box.call("resume").stdout
        assert box.result("held").status == "succeeded"
        assert daemon.stop() == 0


def test_a_job_that_is_cancelled_while_it_is_drawn_comes_out_with_what_it_has(box: Box) -> None:
    slow(box).drop("long.toml", LONG)
    box.drop("quick.toml", QUICK)
    with box.running("--dry-run") as daemon:
        [picture] = eventually(lambda: list(box.spool.glob("active/*/images/0000.json")), "the first picture")
        assert "It ends at its next step." in box.call("cancel", picture.parents[1].name).stdout
        result = box.result("long")
        assert box.result("quick").status == "succeeded"
        assert daemon.stop() == 0
    assert result.status == "cancelled"
    assert 1 <= len(result.images) < 20
    assert (box.folder_of(result) / "CANCELLED.txt").exists()
    assert box.status()["counts"]["cancelled"] == 1
    assert box.leftovers() == []


def test_a_cancelled_job_does_no_harm_to_the_exit_code_of_a_single_run(box: Box) -> None:
    assert box.call("run", "--dry-run", "--once").returncode == 0
    Controls(Spool(box.spool)).pause("command")
    box.drop("unwanted.toml", QUICK)
    assert box.call("run", "--dry-run", "--once").returncode == 1
    [entry] = Spool(box.spool).entries(box.spool / "queue")
    Controls(Spool(box.spool)).cancel(entry.id)
    assert box.call("run", "--dry-run", "--once").returncode == 0
    assert box.result("unwanted").status == "cancelled"


def test_an_idle_model_is_let_go_of_with_its_process_and_the_next_job_loads_it_again(box: Box) -> None:
    box._environment["RENDER__UNLOAD_AFTER_SECONDS"] = "0.5"
    box.drop("first.toml", QUICK)
    with box.running("--dry-run") as daemon:
        assert box.result("first").status == "succeeded"
        eventually(lambda: "render.renewed" in daemon.log.read_text(), "the renewal")
        eventually(lambda: "No model is loaded" in str(box.status().get("note")), "the free card in the status")
        idle = box.status()
        assert (idle["state"], idle["model"], idle["memory"], idle["trouble"]) == ("idle", None, None, [])
        box.drop("second.toml", QUICK)
        assert box.result("second").status == "succeeded"
        assert daemon.stop() == 0
        log = daemon.log.read_text()
    assert log.count("model.loaded") == 2
    assert "loop.died" not in log
    assert box.leftovers() == []
