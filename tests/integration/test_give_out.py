"""Giving out: a result is whole or not there, is there once, and no result holds up another."""

import hashlib
import io
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from driving import eventually, files_of, read_result
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.outbox.clearing import discard_unfinished
from qwen_image_daemon.outbox.loop import give_out
from qwen_image_daemon.outbox.publishing import publish, result_folder
from qwen_image_daemon.outbox.results import JobResult
from qwen_image_daemon.render.loop import render_jobs
from qwen_image_daemon.render.renderer import Progress, Rendering, RenderRequest, RequestRefused
from qwen_image_daemon.service.board import Board
from qwen_image_daemon.settings import OutboxSettings, RenderSettings
from qwen_image_daemon.spool.control import BY_FILE, Controls
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.identity import new_id
from qwen_image_daemon.spool.places import MARKER, Place
from qwen_image_daemon.spool.records import JobRecord
from rooms import SMALL, Drawer, Rooms, picture, running

CONFIG = Path(__file__).parents[2] / "config"
TWO = f'prompt = "x"\nnum_images = 2\nseed = 5\n{SMALL}'


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    rooms = Rooms(tmp_path)
    Place("outbox", rooms.outbox, rooms.spool).enter()
    (rooms.outbox / "failed").mkdir()
    return rooms


def draw(rooms: Rooms, drawer: Drawer | None = None) -> None:
    control = LoopControl(no_more=lambda: True, drain=True)
    render_jobs(rooms.spool, RenderSettings(), OutboxSettings(), lambda *_: drawer or Drawer(), control)


def drain(rooms: Rooms) -> None:
    give_out(rooms.outlet, LoopControl(no_more=lambda: True, drain=True))


def results(rooms: Rooms) -> list[tuple[Path, JobResult]]:
    folders = sorted(path.parent for path in rooms.outbox.glob("[!.]*/*/result.json"))
    return [(folder, read_result(folder)) for folder in folders]


def only_result(rooms: Rooms) -> tuple[Path, JobResult]:
    [found] = results(rooms)
    assert [path.name for path in rooms.outbox.glob(".*")] == [MARKER]
    return found


def rendered(rooms: Rooms, name: str = "job", text: str = TWO) -> Entry:
    rooms.admit(name, text)
    draw(rooms)
    [entry] = rooms.rendered()
    return entry


def refuse_second(request: RenderRequest) -> None:
    if request.seed == 6:
        raise RequestRefused("No.", "Fix.")


def test_a_result_holds_exactly_what_it_says_with_sizes_and_hashes(rooms: Rooms) -> None:
    rendered(rooms)
    drain(rooms)
    folder, result = only_result(rooms)
    described = [image.file for image in result.images] + list(result.files)
    assert {file.path for file in described} | {"result.json"} == files_of(folder)
    assert files_of(folder) == {"job-1.png", "job-2.png", "job.toml", "job.log", "result.json"}
    for file in described:
        content = (folder / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size_bytes, file.sha256)
    assert folder.parent.name == f"{result.received_at:%Y-%m-%d}"
    assert result.job_file == "job.toml"
    assert rooms.rendered() == []


@pytest.mark.parametrize("text", [TWO, f'prompt = "y"\nseed = 6\n{SMALL}'])
def test_results_and_status_are_as_the_published_schemas_say(rooms: Rooms, text: str) -> None:
    rooms.admit("job", text)
    rooms.drop("bad.toml", "promt = 1")
    rooms.take_in()
    Board(rooms.spool).update("idle", ())
    draw(rooms, Drawer(refuse_second))
    drain(rooms)
    schema = Draft202012Validator(json.loads((CONFIG / "result.schema.json").read_bytes()))
    found = [folder / "result.json" for folder, _ in results(rooms)]
    assert len(found) == 2
    for path in found:
        schema.validate(json.loads(path.read_bytes()))
    status = Draft202012Validator(json.loads((CONFIG / "status.schema.json").read_bytes()))
    status.validate(json.loads((rooms.outbox / "status.json").read_bytes()))


def test_the_result_is_written_last(rooms: Rooms) -> None:
    entry = rendered(rooms)
    (entry.folder / "job.log").unlink()
    # The second picture cannot be copied: nothing may look like a result then.
    (entry.folder / "images" / "0001.png").unlink()
    with pytest.raises(OSError, match="No such file"):
        publish(entry, rooms.outbox)
    [building] = rooms.outbox.glob(".tmp-*")
    assert not (building / "result.json").exists()
    assert results(rooms) == []


def test_a_publish_that_was_killed_half_way_is_done_again(rooms: Rooms) -> None:
    entry = rendered(rooms)
    building = rooms.outbox / f".tmp-{socket.gethostname()}-{entry.id}"
    building.mkdir()
    (building / "job-1.png").write_bytes(b"half")
    drain(rooms)
    _, result = only_result(rooms)
    assert len(result.images) == 2


def test_a_publish_that_was_killed_before_it_was_filed_gives_no_second_folder(rooms: Rooms) -> None:
    entry = rendered(rooms)
    first = publish(entry, rooms.outbox)
    stamp = (first / "result.json").stat().st_mtime_ns
    drain(rooms)
    folder, _ = only_result(rooms)
    assert folder == first
    assert (folder / "result.json").stat().st_mtime_ns == stamp
    assert rooms.rendered() == []
    assert [found.id for found in rooms.spool.entries(rooms.spool.shelf("succeeded"))] == [entry.id]


def test_what_other_hosts_build_is_left_alone(rooms: Rooms) -> None:
    host = socket.gethostname()
    now = datetime.now(UTC)
    theirs = [f".tmp-other-{new_id(now)}", f".tmp-{host}-2-{new_id(now)}", f".tmp-{host}2-{new_id(now)}"]
    ours = f".tmp-{host}-{new_id(now)}"
    for name in (*theirs, ours):
        (rooms.outbox / name).mkdir()
        (rooms.outbox / name / "half.png").write_bytes(b"half")
    discard_unfinished(rooms.outbox)
    assert sorted(path.name for path in rooms.outbox.glob(".tmp-*")) == sorted(theirs)


def test_a_failed_job_brings_everything_that_a_new_try_needs(rooms: Rooms) -> None:
    rooms.drop("photos/boat.png", picture())
    rooms.drop("job.toml", f'{TWO}image = "photos/boat.png"')
    rooms.take_in()
    draw(rooms, Drawer(refuse_second))
    drain(rooms)
    folder, result = only_result(rooms)
    assert folder.parent.name == "failed"
    assert files_of(folder) == {
        "ERROR.txt",
        "job.log",
        "job.toml",
        "job-1.png",
        "photos/boat.png",
        "result.json",
    }
    letter = (folder / "ERROR.txt").read_text()
    assert "1 of its pictures were finished" in letter
    assert "No.\n  Fix." in letter
    shutil.rmtree(rooms.inbox / "photos")
    shutil.move(folder, rooms.inbox / "again")
    rooms.take_in()
    draw(rooms)
    drain(rooms)
    _, again = only_result(rooms)
    assert (again.status, len(again.images)) == ("succeeded", 2)
    assert result.status == "failed"


def test_a_cancelled_job_brings_what_was_finished_and_everything_that_a_new_try_needs(rooms: Rooms) -> None:
    rooms.drop("boat.png", picture())
    rooms.drop("job.toml", f'{TWO}image = "boat.png"')
    rooms.take_in()
    controls = Controls(rooms.spool)
    [record] = rooms.queued()

    def cancel_at_second(request: RenderRequest) -> None:
        if request.seed == 6:
            controls.cancel(record.id)

    draw(rooms, Drawer(cancel_at_second))
    drain(rooms)
    folder, result = only_result(rooms)
    assert folder.parent.name == "cancelled"
    assert files_of(folder) == {
        "CANCELLED.txt",
        "job.log",
        "job.toml",
        "job-1.png",
        "boat.png",
        "result.json",
    }
    assert (result.status, result.cancelled_by) == ("cancelled", BY_FILE)
    assert "1 of its 2 pictures were finished before" in (folder / "CANCELLED.txt").read_text()
    assert Board(rooms.spool).update("idle", ()).counts.cancelled == 1
    Draft202012Validator(json.loads((CONFIG / "result.schema.json").read_bytes())).validate(
        json.loads((folder / "result.json").read_bytes())
    )


@pytest.mark.parametrize("source", ["job-1.png", "JOB-1.PNG"])
def test_a_source_that_is_called_like_a_result_is_given_back_beside_it(rooms: Rooms, source: str) -> None:
    content = picture()
    rooms.drop(source, content)
    rooms.drop("job.toml", f'{TWO}image = "{source}"')
    rooms.take_in()
    draw(rooms, Drawer(refuse_second))
    drain(rooms)
    folder, result = only_result(rooms)
    assert (folder / source).read_bytes() == content
    assert [image.file.path for image in result.images] == ["job-result-1.png"]
    assert (folder / "job-result-1.png").exists()


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{name}-{index}", {"job-1.png", "job-2.png"}),
        ("Füchse {seed}", {"Füchse 5.png", "Füchse 6.png"}),
        ("{index}{seed}", {"15.png", "26.png"}),
        ("{date} {id} {index}", {"{date} {id} 1.png", "{date} {id} 2.png"}),
    ],
)
def test_pictures_are_called_as_the_job_wishes(rooms: Rooms, template: str, names: set[str]) -> None:
    rendered(rooms, text=f'{TWO}tags = ["a", "b c"]\noutput.name = "{template}"')
    drain(rooms)
    folder, result = only_result(rooms)
    day = f"{result.received_at:%Y-%m-%d}"
    wanted = {name.replace("{date}", day).replace("{id}", result.id) for name in names}
    assert {image.file.path for image in result.images} == wanted
    assert files_of(folder) == wanted | {"job.toml", "job.log", "result.json"}
    assert result.tags == ("a", "b c")


def test_a_source_that_is_called_as_the_job_wishes_its_picture_is_given_back_beside_it(rooms: Rooms) -> None:
    content = picture()
    rooms.drop("fox 1.png", content)
    rooms.drop("job.toml", f'{TWO}image = "fox 1.png"\noutput.name = "fox {{index}}"')
    rooms.take_in()
    draw(rooms, Drawer(refuse_second))
    drain(rooms)
    folder, result = only_result(rooms)
    assert (folder / "fox 1.png").read_bytes() == content
    assert [image.file.path for image in result.images] == ["fox 1-result.png"]


@pytest.mark.parametrize("name", ["Grüße aus Köln", "l" * 200, "🐈🐈", "-.-", "a b\nc", "ü" * 120])
@pytest.mark.parametrize("text", ['prompt = "x"', "promt = 1"])
def test_odd_names_become_folders_that_every_system_can_hold(rooms: Rooms, name: str, text: str) -> None:
    rooms.drop(f"{name}.toml", f"{text}\n{SMALL}")
    rooms.take_in()
    draw(rooms)
    drain(rooms)
    folder, result = only_result(rooms)
    assert len(folder.name.encode()) <= 80 + 1 + 26
    # What would steer a terminal is written out.
    shown = name.replace("\n", "%0A")
    assert result.name == shown
    assert result.id in folder.name
    assert (folder / f"{shown}.toml").exists()


def test_a_file_whose_name_is_no_utf8_gets_its_result_too(rooms: Rooms) -> None:
    rooms.drop("f\udcfcr.toml", f'prompt = "x"\n{SMALL}')
    rooms.drop("b\udcfcs.toml", "promt = 1")
    rooms.take_in()
    draw(rooms)
    drain(rooms)
    found = {result.name: files_of(folder) for folder, result in results(rooms)}
    assert found["f%FCr"] >= {"f%FCr.toml", "result.json"}
    assert found["b%FCs"] >= {"b%FCs.toml", "ERROR.txt"}


@pytest.mark.parametrize("torn", ["outcome.json", "job.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\0\0", None])
def test_an_end_that_cannot_be_read_holds_up_no_other_and_keeps_the_pictures(
    rooms: Rooms, torn: str, content: bytes | None
) -> None:
    entry = rendered(rooms)
    (entry.folder / torn).unlink()
    if content is not None:
        (entry.folder / torn).write_bytes(content)
    rooms.admit("good", TWO)
    draw(rooms)
    drain(rooms)
    by_status = {result.status: (folder, result) for folder, result in results(rooms)}
    assert by_status["succeeded"][1].name == "good"
    folder, result = by_status["failed"]
    assert result.error is not None
    assert result.error.kind == "UnreadableEntry"
    assert len(result.images) == 2
    assert "job.toml" in files_of(folder)
    assert rooms.rendered() == []


def test_an_outbox_that_fails_keeps_the_results_and_a_drain_gives_up(rooms: Rooms) -> None:
    rendered(rooms)
    shutil.rmtree(rooms.outbox)
    rooms.outbox.write_text("in the way")
    with pytest.raises(GaveUp, match="The outbox cannot be written"):
        drain(rooms)
    assert len(rooms.rendered()) == 1
    [trouble] = Board(rooms.spool).update(None, ()).trouble
    assert trouble.startswith("The outbox cannot be written")
    rooms.outbox.unlink()
    drain(rooms)
    assert only_result(rooms)[1].status == "succeeded"


def test_the_status_is_carried_out_whenever_it_changed(rooms: Rooms) -> None:
    board = Board(rooms.spool)

    def shown(state: str) -> Callable[[], bool]:
        path = rooms.outbox / "status.json"
        return lambda: path.exists() and json.loads(path.read_bytes())["state"] == state

    with running(partial(give_out, rooms.outlet)):
        board.update("idle", ())
        eventually(shown("idle"), "the first status")
        board.update("troubled", ("No disk.",))
        eventually(shown("troubled"), "the second status")


def test_a_job_belongs_to_one_place_whatever_the_clock_says(rooms: Rooms) -> None:
    entry = rendered(rooms)
    record: JobRecord = entry.record()
    assert result_folder(rooms.outbox, record, entry.outcome()) == publish(entry, rooms.outbox)


def test_what_was_given_out_leaves_only_its_records_in_the_spool(rooms: Rooms) -> None:
    rendered(rooms)
    drain(rooms)
    [done] = rooms.spool.entries(rooms.spool.shelf("succeeded"))
    assert {path.name for path in done.folder.iterdir()} == {"job.json", "outcome.json", "attempt.1"}


class Layering(Drawer):
    """A renderer whose pictures come with layers, words of its own and a note."""

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Paint one picture and two layers."""
        layers = tuple(Image.new("RGBA", (64, 64), (40 * number, 0, 0, 99)) for number in (1, 2))
        drawn = super().render(request, progress)
        return replace(drawn, layers=layers, caption="two balls", adjustments=("it was cut",))


def test_layers_are_files_of_their_own_beside_the_picture_that_has_them_all(rooms: Rooms) -> None:
    rooms.admit("balls", TWO)
    draw(rooms, Layering())
    drain(rooms)
    folder, result = only_result(rooms)
    assert {path.name for path in folder.glob("balls-*")} == {
        f"balls-{index}{part}.png" for index in (1, 2) for part in ("", "-layer-1", "-layer-2")
    }
    for image in result.images:
        assert image.caption == "two balls"
        for number, layer in enumerate(image.layers, start=1):
            content = (folder / layer.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == layer.sha256
            with Image.open(io.BytesIO(content)) as opened:
                assert (opened.mode, opened.getpixel((0, 0))) == ("RGBA", (40 * number, 0, 0, 99))
    # What was done otherwise is said once for all pictures.
    assert result.adjustments == ("it was cut",)


def test_layers_keep_their_transparency_where_the_picture_is_a_jpeg(rooms: Rooms) -> None:
    rooms.admit("balls", f'prompt = "x"\n{SMALL}[output]\nformat = "jpeg"\n')
    draw(rooms, Layering())
    drain(rooms)
    folder, _ = only_result(rooms)
    assert {path.name for path in folder.glob("balls-*")} == {
        "balls-1.jpg",
        "balls-1-layer-1.png",
        "balls-1-layer-2.png",
    }
