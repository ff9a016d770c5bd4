"""What can be asked for, through the inbox: pictures in all their roles, LoRAs, jobs to be done once."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from example_catalogue import EVERYTHING
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.jobs.catalogue import Catalogue, Lora
from qwen_image_daemon.loop_control import LoopControl
from qwen_image_daemon.lora_folder import LoraFolder, NamedLora
from qwen_image_daemon.settings import SpoolSettings
from qwen_image_daemon.spool.records import JobRecord, Outcome
from rooms import Rooms, picture


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def taken_in(rooms: Rooms, catalogue: Catalogue = EVERYTHING) -> None:
    intake = Intake(rooms.inbox, rooms.spool, catalogue, rooms.settings, SpoolSettings())
    take_in(intake, LoopControl(drain=True))


def accepted(rooms: Rooms) -> JobRecord:
    assert [entry.outcome().problems for entry in rooms.rendered()] == []
    [record] = rooms.queued()
    return record


def refused(rooms: Rooms) -> str:
    assert rooms.queued() == []
    [entry] = rooms.rendered()
    assert entry.outcome().status == "refused"
    return "\n".join(f"{problem.where}: {problem.what}\n  {problem.fix}" for problem in entry.outcome().problems)


def mask(size: tuple[int, int], grey: int = 255, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, grey).save(file, "PNG")
    return file.getvalue()


def cut_out(alpha: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (96, 64), (200, 10, 10, alpha)).save(file, "PNG")
    return file.getvalue()


def test_every_picture_of_a_job_is_waited_for_and_copied_with_its_hash(rooms: Rooms) -> None:
    rooms.drop("job.toml", 'prompt = "x"\nimages = ["a.png", "sub/b.png"]')
    rooms.drop("a.png", picture())
    taken_in(rooms)
    assert rooms.queued() == []
    assert "waits for the picture sub/b.png" in (rooms.inbox / "job.toml.waiting.txt").read_text()
    rooms.drop("sub/b.png", picture((64, 64), "red"))
    taken_in(rooms)
    record = accepted(rooms)
    assert [file.path for file in record.inputs] == ["a.png", "sub/b.png"]
    assert all(len(file.sha256) == 64 for file in record.inputs)
    effective = record.to_do()
    assert (effective.task, effective.model, effective.images) == (
        "edit", "qwen-image-edit-plus", ("a.png", "sub/b.png"),
    )  # fmt: skip
    assert (effective.width, effective.height) == (1584, 1056)


def test_a_picture_in_two_roles_is_copied_once(rooms: Rooms) -> None:
    rooms.drop("job.toml", 'prompt = "x"\nimages = ["a.png", "a.png"]')
    rooms.drop("a.png", picture())
    taken_in(rooms)
    assert [file.path for file in accepted(rooms).inputs] == ["a.png"]


@pytest.mark.parametrize(
    ("lines", "mask_file", "complaint"),
    [
        ('image = "a.png"', mask((64, 64)), "job.toml: mask: the mask has 64×64 pixels, and the picture 96×64"),
        ('image = "a.png"', mask((96, 64), 127), "job.toml: mask: the mask is black all over"),
        ('image = "a.png"', mask((96, 64), 100, "I;16"), "job.toml: mask: the mask is black all over"),
        ('control_image = "a.png"', mask((64, 64)), "job.toml: mask: the mask has 64×64 pixels"),
    ],
)
def test_a_mask_that_is_none_is_refused_before_any_time_is_spent(
    rooms: Rooms, lines: str, mask_file: bytes, complaint: str
) -> None:
    rooms.drop("job.toml", f'prompt = "x"\nmask = "m.png"\n{lines}')
    rooms.drop("a.png", picture())
    rooms.drop("m.png", mask_file)
    taken_in(rooms)
    assert complaint in refused(rooms)


@pytest.mark.parametrize("mask_file", [mask((96, 64)), mask((48, 32), 128), mask((96, 64), 65535, "I;16")])
def test_a_mask_of_the_pictures_shape_is_taken_at_any_scale(rooms: Rooms, mask_file: bytes) -> None:
    rooms.drop("job.toml", 'prompt = "x"\nimage = "a.png"\nmask = "m.png"')
    rooms.drop("a.png", picture())
    rooms.drop("m.png", mask_file)
    taken_in(rooms)
    effective = accepted(rooms).to_do()
    assert (effective.task, effective.mask, effective.mask_from_alpha) == ("inpaint", "m.png", False)


def test_without_a_mask_something_must_be_transparent(rooms: Rooms) -> None:
    rooms.drop("job.toml", 'task = "inpaint"\nprompt = "x"\nimage = "a.png"')
    rooms.drop("a.png", cut_out(255))
    taken_in(rooms)
    assert "job.toml: mask: the job names no mask, and nothing in the picture is transparent." in refused(rooms)


def test_what_is_transparent_is_the_mask_of_an_inpaint_job_without_one(rooms: Rooms) -> None:
    rooms.drop("job.toml", 'task = "inpaint"\nprompt = "x"\nimage = "a.png"')
    rooms.drop("a.png", cut_out(0))
    taken_in(rooms)
    assert accepted(rooms).to_do().mask_from_alpha


def test_a_picture_that_is_far_too_long_is_refused_where_the_result_takes_its_shape(rooms: Rooms) -> None:
    rooms.drop("job.toml", 'task = "layered"\nimage = "a.png"')
    rooms.drop("a.png", picture((900, 100)))
    taken_in(rooms)
    assert "job.toml: image: the picture has 900×100 pixels: one side is more than 8 times the other." in refused(
        rooms
    )


def test_a_lora_is_known_from_the_moment_that_its_file_is_in_the_folder(rooms: Rooms, tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    shelf = LoraFolder(folder, {"fast": NamedLora("Lightning-8steps.safetensors", Lora(None, 8))})
    catalogue = replace(EVERYTHING, loras=shelf)
    rooms.drop("early.toml", 'prompt = "x"\nloras = ["fsat"]')
    taken_in(rooms, catalogue)
    assert "It has none: put .safetensors files into its lora_folder." in refused(rooms)
    folder.mkdir()
    for name in ("Lightning-8steps.safetensors", "faces.safetensors", "notes.txt", ".half.safetensors"):
        (folder / name).write_bytes(b"")
    rooms.drop("job.toml", 'prompt = "x"\nloras = ["fast", { name = "faces", weight = 0.5 }]')
    taken_in(rooms, catalogue)
    [record] = rooms.queued()
    effective = record.to_do()
    assert [(lora.name, lora.weight) for lora in effective.loras] == [("fast", 1.0), ("faces", 0.5)]
    assert (effective.num_inference_steps, effective.true_cfg_scale) == (8, 1.0)


def test_what_the_settings_say_of_a_lora_holds_under_its_files_name_too(tmp_path: Path) -> None:
    (tmp_path / "Lightning.safetensors").write_bytes(b"")
    shelf = LoraFolder(tmp_path, {"fast": NamedLora("Lightning.safetensors", Lora(None, 8))})
    assert shelf() == {"fast": Lora(None, 8), "Lightning": Lora(None, 8)}


def outcomes(rooms: Rooms) -> list[Outcome]:
    return [entry.outcome() for entry in rooms.rendered()]


def test_a_job_to_be_done_once_is_answered_with_the_earlier_one(rooms: Rooms) -> None:
    text = 'prompt = "x"\non_exists = "skip"\nimage = "a.png"'
    rooms.drop("a.png", picture())
    rooms.drop("first.toml", text)
    taken_in(rooms)
    first = accepted(rooms)
    rooms.drop("second.toml", text)
    taken_in(rooms)
    [outcome] = outcomes(rooms)
    assert (outcome.status, outcome.earlier) == ("duplicate", first.id)
    assert len(rooms.queued()) == 1


def test_another_picture_under_the_same_name_makes_another_job(rooms: Rooms) -> None:
    text = 'prompt = "x"\non_exists = "skip"\nimage = "a.png"'
    for name, colour in (("first", "red"), ("second", "blue")):
        rooms.drop("a.png", picture(colour=colour))
        rooms.drop(f"{name}.toml", text)
        taken_in(rooms)
    assert len(rooms.queued()) == 2


def test_a_job_to_be_done_once_can_be_refused_the_second_time(rooms: Rooms) -> None:
    text = 'prompt = "x"\non_exists = "refuse"'
    rooms.drop("first.toml", text)
    taken_in(rooms)
    first = accepted(rooms)
    rooms.drop("second.toml", text)
    taken_in(rooms)
    [outcome] = outcomes(rooms)
    assert outcome.status == "refused"
    assert outcome.problems[0].where == "second.toml: on_exists"
    assert first.id in outcome.problems[0].what


def test_a_job_that_may_be_repeated_is_drawn_again(rooms: Rooms) -> None:
    for name in ("first", "second"):
        rooms.drop(f"{name}.toml", 'prompt = "x"')
        taken_in(rooms)
    assert len(rooms.queued()) == 2


def test_a_job_to_be_done_once_that_failed_is_done_again(rooms: Rooms) -> None:
    text = 'prompt = "x"\non_exists = "skip"'
    rooms.drop("first.toml", text)
    taken_in(rooms)
    [entry] = rooms.spool.entries(rooms.spool.queue)
    rooms.spool.finish(rooms.spool.take(entry), Outcome(status="failed", finished_at=datetime.now(UTC)))
    rooms.drop("second.toml", text)
    taken_in(rooms)
    assert len(rooms.queued()) == 1
