"""Job folders, recipe folders, requests by file, repeats, limits: the take-in loop over real folders, inline."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from driving import eventually
from qwen_image_daemon.inbox.claims import STALE_SECONDS, Claims
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.settings import SpoolSettings
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import Outcome
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT, TakeInReport
from qwen_image_daemon.spool.spool import Spool
from rooms import CATALOGUE, QUICK, Rooms, picture, running

JOB = 'prompt = "a red circle"'
WITH_BOAT = f'{JOB}\nimage = "boat.png"'
RECIPE = 'prompt = "in sepia"\nstrength = 0.4'


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def waiting(rooms: Rooms) -> dict[str, str]:
    return TakeInReport.model_validate_json((rooms.spool.state / TAKE_IN_REPORT).read_bytes()).waiting


def entry_of(rooms: Rooms, name: str) -> Entry:
    [record] = [record for record in rooms.queued() if record.name == name]
    entry = rooms.spool.find(record.id)
    assert entry is not None
    return entry


# Job folders.


def test_a_job_folder_is_taken_whole_and_named_after_itself(rooms: Rooms) -> None:
    rooms.drop("orders/seven/job.toml", WITH_BOAT)
    rooms.drop("orders/seven/boat.png", picture())
    rooms.drop("orders/seven/notes.txt", "for later")
    rooms.take_in()
    entry = entry_of(rooms, "seven")
    assert entry.record().folder == "orders"
    assert entry.input_path("boat.png").read_bytes() == picture()
    assert rooms.left_in_inbox() == set()
    assert not (rooms.inbox / "orders" / "seven").exists()
    [taken] = (rooms.inbox / ".taken").iterdir()
    assert sorted(path.name for path in taken.iterdir()) == ["boat.png", "job.toml", "notes.txt"]


def test_a_job_folder_waits_for_all_that_it_names(rooms: Rooms) -> None:
    rooms.drop("seven/job.toml", WITH_BOAT)
    rooms.take_in()
    assert waiting(rooms) == {"seven": "waits for the picture boat.png, which is not there yet"}
    assert (rooms.inbox / "seven.waiting.txt").exists()
    rooms.drop("seven/boat.png", picture())
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["seven"]
    assert rooms.left_in_inbox() == set()


def test_a_folder_that_is_renamed_into_place_is_whole_at_once(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, QUICK.model_copy(update={"settle_seconds": 3600.0}))
    building = tmp_path / "building"
    building.mkdir()
    (building / "job.toml").write_text(WITH_BOAT)
    (building / "boat.png").write_bytes(picture())
    with running(partial(take_in, rooms.intake)):
        eventually((rooms.spool.state / TAKE_IN_REPORT).exists, "the loop to look")
        building.rename(rooms.inbox / "seven")
        eventually(rooms.queued, "the job")


def test_a_failed_job_that_is_moved_back_is_run_again_without_its_old_results(rooms: Rooms) -> None:
    folder = "boat-20260101-120000-000-c0ffee"
    for name in ("result.json", "ERROR.txt", "job.log"):
        rooms.drop(f"{folder}/{name}", "{}")
    rooms.drop(f"{folder}/boat-1.png", picture(colour="red"))
    rooms.drop(f"{folder}/harbour.toml", WITH_BOAT)
    rooms.drop(f"{folder}/boat.png", picture())
    rooms.take_in()
    assert [file.path for file in entry_of(rooms, "harbour").record().inputs] == ["boat.png"]
    assert rooms.left_in_inbox() == set()


# Recipe folders.


def test_a_picture_in_a_recipe_folder_is_a_job_and_is_taken_and_the_recipe_stays(rooms: Rooms) -> None:
    rooms.drop("sepia/recipe.toml", RECIPE)
    rooms.drop("sepia/sea.png", picture())
    rooms.drop("sepia/holiday/land.png", picture(colour="olive"))
    rooms.take_in()
    assert {record.name: record.folder for record in rooms.queued()} == {"sea": "sepia", "land": "sepia/holiday"}
    entry = entry_of(rooms, "sea")
    assert entry.record().to_do().prompt == "in sepia"
    assert entry.record().to_do().strength == 0.4
    assert entry.input_path("sea.png").read_bytes() == picture()
    [job_file] = entry.dropped_files()
    assert (job_file.name, job_file.read_text()) == ("sea.toml", f'image = "sea.png"\n{RECIPE}')
    assert rooms.left_in_inbox() == {"sepia/recipe.toml"}


def test_a_recipe_may_be_json(rooms: Rooms) -> None:
    rooms.drop("sepia/recipe.json", '{"prompt": "in sepia"}')
    rooms.drop("sepia/sea.png", picture())
    rooms.take_in()
    [job_file] = entry_of(rooms, "sea").dropped_files()
    assert job_file.read_text() == '{\n  "image": "sea.png",\n  "prompt": "in sepia"\n}\n'


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ("promt = 1", "recipe.toml, line 1: promt"),
        ('prompt = "x"\nimage = "boat.png"', "recipe.toml, line 2: image: a recipe names no picture."),
        (f'prompt = "x"\n#{"x" * 62_000}', "recipe.toml: the file has 62,014 bytes; a recipe has at most 61,440."),
        ('prompt = "x"\nid = "7"', "recipe.toml, line 2: id: a recipe has no id"),
    ],
)
def test_pictures_wait_for_a_recipe_to_be_mended(rooms: Rooms, recipe: str, what: str) -> None:
    rooms.drop("sepia/recipe.toml", recipe)
    rooms.drop("sepia/sea.png", picture())
    rooms.take_in()
    assert what in (rooms.inbox / "sepia" / "sea.png.waiting.txt").read_text()
    rooms.drop("sepia/recipe.toml", RECIPE)
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["sea"]
    assert rooms.left_in_inbox() == {"sepia/recipe.toml"}


def test_a_picture_of_a_recipe_may_be_called_anything(rooms: Rooms) -> None:
    rooms.drop("sepia/C: sea\\1.PNG", picture())
    rooms.drop("sepia/recipe.toml", RECIPE)
    rooms.take_in()
    [record] = rooms.queued()
    assert [file.path for file in record.inputs] == ["source.png"]
    assert rooms.left_in_inbox() == {"sepia/recipe.toml"}


def test_a_broken_picture_of_a_recipe_is_refused_with_the_recipe_as_its_job(rooms: Rooms) -> None:
    rooms.drop("sepia/recipe.toml", RECIPE)
    rooms.drop("sepia/sea.png", b"no picture")
    rooms.take_in()
    [entry] = rooms.rendered()
    assert "no PNG, JPEG or WEBP" in entry.outcome().problems[0].what
    assert entry.record().source.path == "sepia/sea.png"
    assert entry.input_path("sea.png").read_bytes() == b"no picture"


def test_a_job_file_in_a_recipe_folder_is_refused(rooms: Rooms) -> None:
    rooms.drop("sepia/recipe.toml", RECIPE)
    rooms.drop("sepia/other.toml", JOB)
    rooms.take_in()
    [entry] = rooms.rendered()
    assert "takes pictures only" in entry.outcome().problems[0].what


# Requests by file.


def controls(rooms: Rooms) -> Controls:
    return Controls(rooms.spool)


@pytest.mark.parametrize("name", ["PAUSE", "pause.txt"])
def test_a_pause_file_holds_and_its_end_lets_go(rooms: Rooms, name: str) -> None:
    file = rooms.drop(name, "")
    rooms.drop("job.toml", JOB)
    rooms.take_in()
    assert controls(rooms).paused_by() == ("inbox",)
    assert [record.name for record in rooms.queued()] == ["job"]
    file.unlink()
    rooms.take_in()
    assert controls(rooms).paused_by() == ()


def test_a_pause_of_the_command_is_not_ended_by_the_inbox(rooms: Rooms) -> None:
    controls(rooms).pause("command")
    rooms.take_in()
    assert controls(rooms).paused_by() == ("command",)


@pytest.mark.parametrize("by", ["id", "name", "file"])
def test_a_cancel_file_reaches_the_job_that_it_names(rooms: Rooms, by: str) -> None:
    rooms.drop("sub/boat.toml", JOB)
    rooms.drop("sub/other.toml", JOB)
    rooms.take_in()
    entry = entry_of(rooms, "boat")
    meant = {"id": entry.id, "name": "sub/boat", "file": "sub/boat.toml"}[by]
    rooms.drop(f"{meant}.cancel", "")
    rooms.take_in()
    assert controls(rooms).cancelled() == [entry.id]
    assert rooms.left_in_inbox() == set()


def test_a_cancel_file_takes_back_a_drop_that_still_waits(rooms: Rooms) -> None:
    rooms.drop("boat.toml", WITH_BOAT)
    rooms.take_in()
    rooms.drop("boat.toml.cancel", "")
    rooms.take_in()
    assert rooms.left_in_inbox() == set()
    assert rooms.queued() == []
    assert rooms.taken() == ["boat.toml", "boat.toml.cancel"]


def test_a_cancel_file_that_names_nothing_says_so(rooms: Rooms) -> None:
    rooms.drop("boat.cancel", "")
    rooms.drop("elsewhere/boat.toml", JOB)
    rooms.take_in()
    assert "names no job" in waiting(rooms)["boat.cancel"]
    assert "names no job" in (rooms.inbox / "boat.cancel.waiting.txt").read_text()
    assert controls(rooms).cancelled() == []


# Repeats.


def test_a_job_that_is_sent_twice_under_its_id_is_done_once(rooms: Rooms) -> None:
    rooms.drop("boat.toml", f'{JOB}\nid = "order 7"')
    rooms.take_in()
    rooms.drop("again.toml", f'{JOB}\nid = "order 7"')
    rooms.take_in()
    [first] = rooms.queued()
    [entry] = rooms.rendered()
    assert (entry.outcome().status, entry.outcome().earlier) == ("duplicate", first.id)
    assert entry.record().name == "again"


def test_another_job_under_the_same_id_is_refused(rooms: Rooms) -> None:
    for name, prompt in (("a", "x"), ("b", "y")):
        rooms.drop(f"{name}.toml", f'prompt = "{prompt}"\nid = "order 7"')
        rooms.take_in()
    [first] = rooms.queued()
    [entry] = rooms.rendered()
    assert entry.outcome().status == "refused"
    assert first.id in entry.outcome().problems[0].what


def test_a_job_whose_picture_changed_is_another_job(rooms: Rooms) -> None:
    for colour in ("teal", "olive"):
        rooms.drop("boat.png", picture(colour=colour))
        rooms.drop("boat.toml", f'{WITH_BOAT}\nid = "order 7"')
        rooms.take_in()
    [entry] = rooms.rendered()
    assert entry.outcome().status == "refused"


def test_a_job_that_failed_may_be_sent_again_under_its_id(rooms: Rooms) -> None:
    text = f'{JOB}\nid = "order 7"'
    rooms.drop("boat.toml", text)
    rooms.take_in()
    failed = Outcome(status="failed", finished_at=datetime.now(UTC))
    rooms.spool.file_done(rooms.spool.finish(rooms.spool.take(entry_of(rooms, "boat")), failed))
    rooms.drop("boat.toml", text)
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["boat"]
    assert rooms.rendered() == []


# Limits.


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (SpoolSettings(min_free_bytes=10**18), "GB are free, and 1000000000.00 are kept free"),
        (SpoolSettings(min_free_inodes=10**15), "more files can be made"),
    ],
)
def test_nothing_is_accepted_while_the_spools_disk_is_nearly_full(
    rooms: Rooms, limits: SpoolSettings, what: str
) -> None:
    rooms.drop("job.toml", JOB)
    rooms.drop("PAUSE", "")
    full = Intake(rooms.inbox, rooms.spool, CATALOGUE, rooms.settings, limits)
    with pytest.raises(GaveUp, match=what):
        take_in(full, LoopControl(drain=True))
    assert rooms.left_in_inbox() == {"job.toml", "PAUSE"}
    # Requests are followed all the same.
    assert controls(rooms).paused_by() == ("inbox",)
    rooms.take_in()
    assert len(rooms.queued()) == 1


def test_a_copy_that_syncthing_could_not_merge_is_reported_and_not_run(rooms: Rooms) -> None:
    name = "job.sync-conflict-20260101-101010-ABC.toml"
    rooms.drop(name, JOB)
    rooms.take_in()
    assert rooms.queued() == []
    assert waiting(rooms) == {
        name: "is a copy that Syncthing could not merge, and is not run. Rename it, or delete it"
    }
    assert "Syncthing" in (rooms.inbox / f"{name}.waiting.txt").read_text()


@pytest.mark.parametrize(("named", "stored"), [("\u00e4.png", "a\u0308.png"), ("a\u0308.png", "\u00e4.png")])
def test_a_picture_is_found_in_whichever_form_its_name_is_written(rooms: Rooms, named: str, stored: str) -> None:
    rooms.drop(stored, picture())
    rooms.drop("job.toml", f'{JOB}\nimage = "{named}"')
    rooms.take_in()
    assert entry_of(rooms, "job").input_path(named).read_bytes() == picture()


def test_a_job_that_somebody_still_writes_is_not_taken(rooms: Rooms) -> None:
    path = rooms.drop("job.toml", JOB)
    with path.open("a"):
        rooms.take_in()
        assert waiting(rooms) == {"job.toml": "is still open for writing"}
    rooms.take_in()
    assert len(rooms.queued()) == 1


# Several daemons.


def beside(rooms: Rooms, name: str) -> Intake:
    spool = Spool(rooms.root / name)
    spool.prepare()
    return Intake(rooms.inbox, spool, CATALOGUE, QUICK.model_copy(update={"shared": True}), SpoolSettings())


def test_daemons_that_share_an_inbox_take_each_drop_once(rooms: Rooms) -> None:
    intakes = [beside(rooms, name) for name in ("one", "two", "three")]
    names = {f"job{number}" for number in range(60)}
    for name in names:
        rooms.drop(f"{name}.toml", JOB)
    with (
        running(partial(take_in, intakes[0])),
        running(partial(take_in, intakes[1])),
        running(partial(take_in, intakes[2])),
    ):
        eventually(
            lambda: rooms.left_in_inbox() <= {path for path in rooms.left_in_inbox() if path[0] == "."}, "all"
        )
    queued = [
        Entry(entry.folder).record().name
        for intake in intakes
        for entry in intake.spool.entries(intake.spool.queue)
    ]
    assert sorted(queued) == sorted(names)


def test_the_drop_of_a_daemon_that_lives_is_left_to_it_and_that_of_a_dead_one_is_taken(rooms: Rooms) -> None:
    ours, theirs = Claims(rooms.inbox, "ours"), Claims(rooms.inbox, "theirs")
    Claims.prepare(rooms.inbox)
    for path in ("a.toml", "b.toml"):
        theirs.claim(path, path, "id-1")
    theirs.show_life()
    assert ours.break_stale(now=0.0) == []
    assert ours.break_stale(now=STALE_SECONDS - 1) == []
    theirs.show_life()
    assert ours.break_stale(now=STALE_SECONDS + 1) == []
    assert ours.break_stale(now=2 * STALE_SECONDS) == []
    broken = ours.break_stale(now=2 * STALE_SECONDS + 1)
    assert sorted(claim.path for claim in broken) == ["a.toml", "b.toml"]
    assert ours.claim("a.toml", "a.toml", "id-2") is None
    assert not theirs.holds("a.toml", "id-1")


def test_a_job_whose_claim_was_broken_is_left_to_the_other_daemon(rooms: Rooms) -> None:
    one, two = beside(rooms, "one"), beside(rooms, "two")
    rooms.drop("job.toml", JOB)
    # One is killed after its commit, and stays away for long; two takes the drop.
    Rooms(rooms.root, settings=one.settings)
    claims = Claims(rooms.inbox, one.spool.identity)
    entry = one.spool.begin(datetime.now(UTC))
    claims.claim("job.toml", "job.toml", entry.id)
    record = rooms.admit("job").record().model_copy(update={"id": entry.id})
    one.spool.commit(entry, record)
    claims.release("job.toml")
    take_in(two, LoopControl(drain=True))
    assert len(two.spool.entries(two.spool.queue)) == 1
    take_in(one, LoopControl(drain=True))
    for state in (one.spool.incoming, one.spool.queue, one.spool.rendered):
        assert one.spool.entries(state) == []


def test_claims_of_other_daemons_can_be_freed_by_a_person(rooms: Rooms) -> None:
    Claims.prepare(rooms.inbox)
    Claims(rooms.inbox, "theirs").claim("a.toml", "a.toml", "id-1")
    ours = Claims(rooms.inbox, "ours")
    ours.claim("b.toml", "b.toml", "id-2")
    assert [claim.path for claim in ours.free_foreign()] == ["a.toml"]
    assert ours.claim("a.toml", "a.toml", "id-3") is None
    assert ours.holds("b.toml", "id-2")
