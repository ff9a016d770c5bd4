"""How files arrive: slowly, in the wrong order, beside bad ones."""

import io
import json
import shutil
from pathlib import Path
from typing import TextIO

from PIL import Image

from driving import Box, eventually
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT
from qwen_image_daemon.spool.spool import Spool

HARBOUR = Path(__file__).parents[2] / "jobs_example" / "harbour.jpg"


def picture(colour: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (96, 64), colour).save(file, "PNG")
    return file.getvalue()


def test_a_bad_job_comes_back_with_what_to_fix_and_the_daemon_goes_on(box: Box) -> None:
    with box.running("--dry-run") as daemon:
        box.drop("1-good.toml", 'prompt = "one"')
        box.drop("2-bad.toml", 'promt = "two"\nguidance_scale = 3.5')
        box.drop("3-good.json", '{"prompt": "three"}')
        assert box.result("1-good").status == "succeeded"
        assert box.result("3-good").status == "succeeded"
        bad = box.result("2-bad")
        assert daemon.stop() == 0
    letter = (box.folder_of(bad) / "ERROR.txt").read_text()
    assert "2-bad.toml, line 1: promt: no such setting.\n  Did you mean prompt?" in letter
    assert "line 2: guidance_scale" in letter
    assert "true_cfg_scale" in letter
    assert (box.folder_of(bad) / "2-bad.toml").read_text() == 'promt = "two"\nguidance_scale = 3.5'
    assert box.leftovers() == []


def test_a_file_that_is_written_slowly_is_taken_once_and_whole(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", settle_seconds=1.5)
    with box.running("--dry-run") as daemon:
        box.wait_for_state("idle")
        with (box.inbox / "slow.toml").open("w") as file:
            # Without its last line it would be refused; other jobs come and go while it is being written.
            file.write("num_images = 2\n")
            for tick in range(5):
                box.move_in(f"tick{tick}.toml", 'prompt = "tick"')
                eventually(lambda name=f"tick{tick}": keeps_writing(file, box, name), "a tick")  # type: ignore[misc]
            file.write('prompt = "a red circle"\nseed = 5\n')
        result = box.result("slow")
        daemon.stop()
    assert result.status == "succeeded"
    assert [image.seed for image in result.images] == [5, 6]
    assert len(box.results()) == 6


def keeps_writing(file: TextIO, box: Box, name: str) -> bool:
    file.write("# still writing\n")
    file.flush()
    return any(result.name == name for result in box.results())


def test_a_job_waits_for_its_picture_and_says_so_beside_it(box: Box) -> None:
    note = box.inbox / "late.toml.waiting.txt"
    with box.running("--dry-run") as daemon:
        box.drop("late.toml", 'prompt = "a boat"\nimage = "photos/boat.png"')
        eventually(note.exists, "the note of what it waits for")
        assert "photos/boat.png" in note.read_text()
        eventually(lambda: box.status().get("waiting"), "the waiting job in the status")
        box.drop("photos/boat.png", picture())
        result = box.result("late")
        eventually(lambda: not note.exists(), "the note to go away")
        daemon.stop()
    assert result.status == "succeeded"
    assert result.effective is not None
    assert result.effective.task == "image-to-image"
    assert (box.inbox / "photos" / "boat.png").exists()


def test_a_file_that_was_renamed_into_place_is_taken_at_once(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", settle_seconds=3600)
    with box.running("--dry-run") as daemon:
        # What was there before its first look may have been written in place.
        eventually((Spool(box.spool).state / TAKE_IN_REPORT).exists, "the take-in to look")
        box.move_in("whole.toml", 'prompt = "whole"')
        assert box.result("whole").status == "succeeded"
        daemon.stop()


def test_a_preallocated_picture_is_not_taken_before_its_end_is_written(box: Box) -> None:
    content = HARBOUR.read_bytes()
    with box.running("--dry-run") as daemon:
        with (box.inbox / "photo.jpg").open("wb") as file:
            file.truncate(len(content))
        box.drop("photo.toml", 'prompt = "a harbour"\nimage = "photo.jpg"')
        waiting = eventually(lambda: box.status().get("waiting"), "the job to wait")
        assert "still being written" in waiting["photo.toml"]
        box.drop("photo.jpg", content)
        assert box.result("photo").status == "succeeded"
        daemon.stop()


def test_a_file_that_is_no_picture_is_refused_before_any_model_is_needed(tiny_box: Box) -> None:
    tiny_box.drop("fake.png", b"not a picture at all")
    tiny_box.drop("job.toml", 'prompt = "x"\nimage = "fake.png"')
    with tiny_box.running() as daemon:
        result = tiny_box.result("job")
        loaded = [event for event in daemon.events() if event["event"] == "model.loaded"]
        daemon.stop()
    assert result.status == "refused"
    assert "no PNG, JPEG or WEBP" in result.problems[0].what
    assert (tiny_box.folder_of(result) / "fake.png").read_bytes() == b"not a picture at all"
    assert loaded == []


def test_jobs_are_taken_by_priority_and_then_in_the_order_of_their_names(box: Box) -> None:
    for number in (10, 9, 1):
        box.drop(f"page{number}.toml", 'prompt = "x"')
    box.drop("zz-urgent.toml", 'prompt = "x"\npriority = 5')
    assert box.call("run", "--dry-run", "--once").returncode == 0
    started = sorted((result.started_at, result.name) for result in box.results() if result.started_at)
    accepted = [name for _, name in started]
    # The first may begin before the urgent one is accepted: they are taken in one after the other.
    assert accepted.index("zz-urgent") <= 3
    assert [name for name in accepted if name != "zz-urgent"] == ["page1", "page9", "page10"]


def test_a_failed_folder_that_is_moved_back_into_the_inbox_is_tried_again(box: Box) -> None:
    box.drop("again.json", json.dumps({"prompt": "x", "seed": -1}))
    assert box.call("run", "--dry-run", "--once").returncode == 1
    [folder] = box.failed.iterdir()
    (folder / "again.json").write_text(json.dumps({"prompt": "x", "seed": 1}))
    shutil.move(folder, box.inbox / "again")
    assert box.call("run", "--dry-run", "--once").returncode == 0
    assert [result.status for result in box.results()] == ["succeeded"]
