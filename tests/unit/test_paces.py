"""Estimates rest on what was drawn, and say nothing where nothing was."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.resolution import EffectiveParameters, resolve
from qwen_image_daemon.render.renderer import StageSeconds
from qwen_image_daemon.spool.paces import Paces, steps_run
from qwen_image_daemon.spool.records import FileRecord, ImageRecord, Outcome
from rooms import CATALOGUE, SMALL, Rooms, job_of


def drawn(rooms: Rooms, text: str, seconds: StageSeconds) -> None:
    """Put a job on the shelf of those that succeeded, with one picture that took so long."""
    entry = rooms.spool.take(rooms.admit("job", text))
    image = ImageRecord(
        file=FileRecord(path="0000.png", size_bytes=1, sha256=""),
        seed=1,
        steps=2,
        seconds=seconds,
        save_seconds=0.5,
    )
    outcome = Outcome(status="succeeded", finished_at=datetime.now(UTC), images=(image,))
    rooms.spool.file_done(rooms.spool.finish(entry, outcome))


def wanted(text: str) -> EffectiveParameters:
    return resolve(job_of(text), CATALOGUE, seed=1, source=Size(64, 64))


def test_nothing_is_estimated_where_nothing_was_drawn(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    drawn(rooms, f'prompt = "x"\nmodel = "other"\n{SMALL}', StageSeconds(encode=0.1, denoise=0.2, decode=0.3))
    assert Paces(rooms.spool).seconds(wanted(f'prompt = "x"\n{SMALL}')) is None


def test_an_estimate_follows_steps_pixels_passes_and_pictures(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    # Two steps with guidance of 64 × 64 pixels in 0.4 s; besides, 0.1 + 0.3 + 0.5 s a picture.
    drawn(rooms, f'prompt = "x"\n{SMALL}', StageSeconds(encode=0.1, denoise=0.4, decode=0.3))
    paces = Paces(rooms.spool)
    assert paces.pictures("demo") == 1
    assert paces.seconds(wanted(f'prompt = "x"\n{SMALL}')) == pytest.approx(0.4 + 0.9)
    three = f'prompt = "x"\nnum_images = 3\ntrue_cfg_scale = 1.0\n{SMALL}'
    assert paces.seconds(wanted(three)) == pytest.approx(3 * (0.2 + 0.9))
    larger = 'prompt = "x"\nnum_inference_steps = 4\nwidth = 128\nheight = 64\n'
    assert paces.seconds(wanted(larger)) == pytest.approx(0.4 * 2 * 2 + 0.9)


def test_a_strength_runs_the_last_steps_only() -> None:
    assert steps_run(wanted(f'prompt = "x"\nimage = "a.png"\nstrength = 0.3\n{SMALL}'.replace("= 2", "= 10"))) == 3


def test_what_cannot_be_read_does_not_count(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    (rooms.spool.shelf("succeeded") / "20261125-101500-001-aaaaaa").mkdir()
    assert Paces(rooms.spool).pictures("demo") == 0
