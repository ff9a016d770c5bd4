"""Many jobs in one file: what the take-in makes of it, and what comes out."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driving import files_of, read_result
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.loop_control import LoopControl
from qwen_image_daemon.outbox.clearing import forget_old_results
from qwen_image_daemon.outbox.publishing import publish
from qwen_image_daemon.outbox.retrying import retryable
from qwen_image_daemon.settings import OutboxSettings, SpoolSettings
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import JobRecord, Outcome
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT, TakeInReport
from rooms import CATALOGUE, SMALL, Rooms, picture

TWO = f'[defaults]\n{SMALL}[[jobs]]\nprompt = "one"\n[[jobs]]\nprompt = "two"\nname = "star"\n'


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def waiting(rooms: Rooms) -> dict[str, str]:
    return TakeInReport.model_validate_json((rooms.spool.state / TAKE_IN_REPORT).read_bytes()).waiting


def entries(rooms: Rooms) -> list[Entry]:
    return rooms.spool.entries(rooms.spool.queue)


def prompts(rooms: Rooms) -> list[str]:
    return [record.to_do().prompt for record in rooms.queued()]


def ended(rooms: Rooms, entry: Entry, status: str = "failed") -> Path:
    """End a queued job, and give it out."""
    outcome = Outcome.model_validate({"status": status, "finished_at": entry.record().received_at})
    done = rooms.spool.finish(rooms.spool.take(entry), outcome)
    rooms.outbox.mkdir(exist_ok=True)
    folder = publish(done, rooms.outbox)
    rooms.spool.file_done(done)
    return folder


# Taking in.


def test_each_job_of_a_file_is_queued_by_itself_in_the_order_of_the_file(rooms: Rooms) -> None:
    rooms.drop("two.toml", TWO)
    rooms.take_in()
    assert prompts(rooms) == ["one", "two"]
    assert [record.name for record in rooms.queued()] == ["two-1", "star"]
    assert [entry.record().to_do().prompt for entry in entries(rooms)] == ["one", "two"]
    assert rooms.left_in_inbox() == set()
    assert rooms.taken() == ["two.toml"]
    assert rooms.spool.entries(rooms.spool.incoming) == rooms.spool.entries(rooms.spool.tmp) == []


def test_each_job_says_of_which_batch_it_is_and_what_made_it(rooms: Rooms) -> None:
    rooms.drop("sweep.toml", f'prompt = "a {{red|blue}} circle"\nexpand = "all"\n{SMALL}[matrix]\nseed = [1, 2]\n')
    rooms.take_in()
    batches = [record.batch for record in rooms.queued()]
    assert {batch.id for batch in batches if batch} == {batches[0].id if batches[0] else ""}
    origins = [batch.origin for batch in batches if batch]
    assert [(origin.index, origin.of, origin.template, origin.matrix) for origin in origins if origin] == [
        (1, 4, "a {red|blue} circle", {"seed": 1}),
        (2, 4, "a {red|blue} circle", {"seed": 1}),
        (3, 4, "a {red|blue} circle", {"seed": 2}),
        (4, 4, "a {red|blue} circle", {"seed": 2}),
    ]
    assert prompts(rooms) == ["a red circle", "a blue circle"] * 2


def test_jobs_without_a_seed_each_draw_their_own(rooms: Rooms) -> None:
    rooms.drop("many.toml", f'prompts = ["{"x"}", "y", "z"]\n{SMALL}')
    rooms.take_in()
    assert len({record.to_do().seed for record in rooms.queued()}) == 3


def test_a_batch_waits_for_its_list_and_is_taken_with_it(rooms: Rooms) -> None:
    rooms.drop("many.toml", f'prompts_from = "list.csv"\n{SMALL}')
    rooms.take_in()
    assert waiting(rooms) == {"many.toml": "waits for the list list.csv, which is not there yet"}
    rooms.drop("list.csv", "prompt,seed\na red circle,5\na blue star,\n")
    rooms.take_in()
    assert prompts(rooms) == ["a red circle", "a blue star"]
    assert rooms.queued()[0].to_do().seed == 5
    # It stays beside the job file, as pictures do.
    assert rooms.left_in_inbox() == {"list.csv"}
    [first, _] = entries(rooms)
    assert (first.folder / "originals" / "list.csv").read_text().startswith("prompt,seed")


def test_a_list_that_is_too_long_is_refused_and_stays_where_it_is(rooms: Rooms) -> None:
    rooms.drop("list.txt", "a\n" * 600_000)
    rooms.drop("many.toml", 'prompts_from = "list.txt"')
    rooms.take_in()
    [entry] = rooms.rendered()
    assert "more than 1,048,576 bytes" in entry.outcome().problems[0].what
    assert [file.name for file in entry.dropped_files()] == ["many.toml"]
    assert rooms.left_in_inbox() == {"list.txt"}


def test_a_refused_list_comes_back_with_its_job_file_so_that_both_can_be_corrected(rooms: Rooms) -> None:
    rooms.drop("orders/list.csv", "prompt,seed\nx,five\n")
    rooms.drop("orders/job.toml", 'prompts_from = "list.csv"')
    rooms.take_in()
    [entry] = rooms.rendered()
    rooms.outbox.mkdir()
    folder = publish(entry, rooms.outbox)
    assert read_result(folder).job_file == "job.toml"
    (folder / "list.csv").write_text("prompt,seed\nx,5\n")
    folder.rename(rooms.inbox / folder.name)
    rooms.take_in()
    assert prompts(rooms) == ["x"]


def test_jobs_share_the_copies_of_their_pictures(rooms: Rooms) -> None:
    rooms.drop("boat.png", picture())
    rooms.drop("many.toml", f'prompts = ["x", "y"]\nimage = "boat.png"\n{SMALL}')
    rooms.take_in()
    first, second = (entry.input_path("boat.png") for entry in entries(rooms))
    assert first.stat().st_ino == second.stat().st_ino
    assert first.read_bytes() == picture()


def test_a_folder_may_be_a_batch(rooms: Rooms) -> None:
    rooms.drop("orders/job.toml", f'prompts_from = "list.txt"\nimage = "boat.png"\n{SMALL}')
    rooms.drop("orders/list.txt", "x\ny\n")
    rooms.drop("orders/boat.png", picture())
    rooms.take_in()
    assert [record.name for record in rooms.queued()] == ["orders-1", "orders-2"]
    assert rooms.left_in_inbox() == set()


# Bad jobs.


def test_one_bad_job_refuses_the_whole_file(rooms: Rooms) -> None:
    rooms.drop("bad.toml", f'{TWO}[[jobs]]\npromt = "three"\n')
    rooms.take_in()
    assert rooms.queued() == []
    [entry] = rooms.rendered()
    assert [problem.where for problem in entry.outcome().problems] == ["bad.toml, line 11, job 3 of 3: promt"]


def test_where_bad_ones_are_skipped_the_good_ones_run_and_a_report_says_which_are_left_out(rooms: Rooms) -> None:
    rooms.drop("bad.toml", f'on_invalid = "skip"\n{TWO}[[jobs]]\npromt = "three"\n')
    rooms.take_in()
    assert prompts(rooms) == ["one", "two"]
    [report] = rooms.rendered()
    assert [problem.where for problem in report.outcome().problems] == ["bad.toml, line 12, job 3 of 3: promt"]
    [left_out] = report.dropped_files()
    assert json.loads(left_out.read_text())["jobs"][0]["promt"] == "three"
    rooms.outbox.mkdir()
    folder = publish(report, rooms.outbox)
    assert "Jobs of bad.toml were left out: one thing is wrong" in (folder / "ERROR.txt").read_text()


def test_the_report_on_bad_jobs_moved_back_is_these_jobs_alone(rooms: Rooms) -> None:
    rooms.drop("bad.toml", f'on_invalid = "skip"\n{TWO}[[jobs]]\nprompt = "three"\nseed = "x"\n')
    rooms.take_in()
    [report] = rooms.rendered()
    rooms.outbox.mkdir()
    folder = publish(report, rooms.outbox)
    job_file = folder / "left-out.json"
    job_file.write_text(job_file.read_text().replace('"x"', "7"))
    folder.rename(rooms.inbox / folder.name)
    rooms.take_in()
    assert prompts(rooms) == ["one", "two", "three"]


@pytest.mark.parametrize("on_invalid", ["refuse", "skip"])
def test_a_broken_picture_is_its_jobs_fault(rooms: Rooms, on_invalid: str) -> None:
    rooms.drop("good.png", picture())
    rooms.drop("broken.png", b"no picture")
    jobs = "".join(f'[[jobs]]\nprompt = "x"\nimage = "{name}.png"\n' for name in ("good", "broken"))
    rooms.drop("mixed.toml", f'on_invalid = "{on_invalid}"\n{jobs}')
    rooms.take_in()
    assert len(rooms.queued()) == (1 if on_invalid == "skip" else 0)
    [entry] = rooms.rendered()
    [problem] = entry.outcome().problems
    assert problem.where == "mixed.toml: broken.png"


def test_a_batch_for_which_the_disk_has_no_room_waits_and_others_go_on(rooms: Rooms) -> None:
    free = os.statvfs(rooms.spool.root)
    enough_for_few = SpoolSettings(min_free_bytes=free.f_bavail * free.f_frsize - 100 * 32 * 1024)
    rooms.drop("many.toml", f'prompt = "x"\n[matrix]\nseed = {list(range(5000))}\n')
    rooms.drop("one.toml", f'prompt = "x"\n{SMALL}')
    take_in(Intake(rooms.inbox, rooms.spool, CATALOGUE, rooms.settings, enough_for_few), LoopControl(drain=True))
    assert [record.name for record in rooms.queued()] == ["one"]
    assert waiting(rooms)["many.toml"] == "waits for room: the spool's disk is too full for its 5,000 jobs"


# Results.


def test_the_results_of_one_file_lie_together_with_the_file(rooms: Rooms) -> None:
    rooms.drop("sub/two.toml", TWO)
    rooms.take_in()
    folders = [
        ended(rooms, entry, status) for entry, status in zip(entries(rooms), ("succeeded", "failed"), strict=True)
    ]
    group = folders[0].parent
    assert group.name == folders[1].parent.name
    assert group.name.startswith("two-")
    assert group.parent.name == folders[1].parent.parent.name == "sub"
    assert (group / "two.toml.txt").read_text() == TWO
    assert (folders[1].parent / "two.toml.txt").read_text() == TWO
    result = read_result(folders[1])
    assert result.batch is not None
    assert [file.path for file in result.batch.files] == ["two.toml"]
    assert files_of(folders[1]) == {"two-2.json", "ERROR.txt", "job.log", "result.json"}


def test_a_failed_job_of_a_batch_that_is_moved_back_runs_alone(rooms: Rooms) -> None:
    rooms.drop("boat.png", picture())
    rooms.drop("two.toml", f'prompts = ["x", "y"]\nimage = "boat.png"\nseed = 7\n{SMALL}')
    rooms.take_in()
    before = entries(rooms)[1].record().to_do()
    folder = ended(rooms, entries(rooms)[1])
    folder.rename(rooms.inbox / folder.name)
    rooms.take_in()
    again = rooms.queued()[-1]
    assert len(rooms.queued()) == 2
    assert again.batch is None
    assert again.to_do() == before


def test_a_file_with_the_longest_of_names_lies_beside_its_results_too(rooms: Rooms) -> None:
    rooms.drop(f"{'n' * 250}.toml", TWO)
    rooms.take_in()
    group = ended(rooms, entries(rooms)[0]).parent
    assert (group / f"{'n' * 200}.toml.txt").read_text() == TWO


def test_a_batch_is_no_result_itself_and_goes_when_its_last_result_is_cleared_away(rooms: Rooms) -> None:
    rooms.drop("two.toml", TWO)
    rooms.take_in()
    folders = [ended(rooms, entry) for entry in entries(rooms)]
    assert sorted(folder for _, _, folder in retryable(rooms.outbox)) == sorted(folders)
    forget_old_results(rooms.outbox, OutboxSettings(keep_bytes=1), datetime.now(UTC))
    assert not folders[0].parent.exists()


def test_a_kill_before_the_dropped_file_lies_beside_the_results_is_made_good(rooms: Rooms) -> None:
    rooms.drop("two.toml", TWO)
    rooms.take_in()
    entry = entries(rooms)[0]
    outcome = Outcome(status="succeeded", finished_at=entry.record().received_at)
    done = rooms.spool.finish(rooms.spool.take(entry), outcome)
    rooms.outbox.mkdir()
    original = publish(done, rooms.outbox).parent / "two.toml.txt"
    original.unlink()
    publish(done, rooms.outbox)
    assert original.read_text() == TWO


# Repeats.


def test_a_file_that_is_sent_twice_under_its_id_is_done_once(rooms: Rooms) -> None:
    rooms.drop("a.toml", f'id = "order 7"\n{TWO}')
    rooms.take_in()
    first, second = entries(rooms)
    ended(rooms, second)
    rooms.drop("b.toml", f'id = "order 7"\n{TWO}')
    rooms.take_in()
    [repeated] = rooms.rendered()
    assert (repeated.outcome().status, repeated.outcome().earlier) == ("duplicate", first.id)
    # The one that failed is drawn again.
    assert prompts(rooms) == ["one", "two"]


def test_another_file_under_the_same_id_is_refused(rooms: Rooms) -> None:
    rooms.drop("a.toml", f'id = "order 7"\n{TWO}')
    rooms.take_in()
    for name, text in (("b.toml", f'id = "order 7"\n{TWO}# more\n'), ("c.toml", 'id = "order 7"\nprompt = "x"\n')):
        rooms.drop(name, text)
        rooms.take_in()
    assert [entry.outcome().status for entry in rooms.rendered()] == ["refused", "refused"]
    assert len(rooms.queued()) == 2


def test_a_jobs_own_id_holds_over_files(rooms: Rooms) -> None:
    job = f'[[jobs]]\nprompt = "x"\nid = "7"\n{SMALL}'
    rooms.drop("a.toml", job)
    rooms.take_in()
    rooms.drop("b.toml", f'{job}[[jobs]]\nprompt = "y"\n{SMALL}')
    rooms.take_in()
    [repeated] = rooms.rendered()
    assert repeated.outcome().earlier == entries(rooms)[0].id
    assert prompts(rooms) == ["x", "y"]


# Cancelling.


@pytest.mark.parametrize("by", ["two.toml", "two", "id", "group"])
def test_a_cancel_file_of_the_batch_reaches_all_its_jobs(rooms: Rooms, by: str) -> None:
    rooms.drop("two.toml", TWO)
    rooms.drop("other.toml", 'prompt = "x"')
    rooms.take_in()
    record = next(record for record in rooms.queued() if record.batch)
    assert record.batch is not None
    name = {"id": record.batch.id, "group": str(record.group)}.get(by, by)
    rooms.drop(f"{name}.cancel", "")
    rooms.take_in()
    expected = sorted(record.id for record in rooms.queued() if record.batch)
    assert Controls(rooms.spool).cancelled() == expected
    assert len(expected) == 2


def test_one_job_of_a_batch_is_cancelled_by_its_id(rooms: Rooms) -> None:
    rooms.drop("two.toml", TWO)
    rooms.take_in()
    [first, _] = rooms.queued()
    rooms.drop(f"{first.id}.cancel", "")
    rooms.take_in()
    assert Controls(rooms.spool).cancelled() == [first.id]


# Recipes.


def recipe_job(rooms: Rooms, recipe: str, path: str = "sepia/sea.png") -> JobRecord:
    rooms.drop("sepia/recipe.toml", recipe)
    rooms.drop(path, picture())
    rooms.take_in()
    [record] = rooms.queued()
    return record


def test_a_recipes_words_may_name_the_picture_and_its_folder(rooms: Rooms) -> None:
    record = recipe_job(
        rooms,
        f'prompt = "{{file}} at {{folder}}, {{not}} this"\nname = "{{folder}} {{file}}"\n'
        f'output.name = "{{file}} {{seed}}"\n{SMALL}',
        "sepia/summer/north sea.png",
    )
    assert record.to_do().prompt == "north sea at summer, {not} this"
    assert record.name == "summer north sea"
    assert record.to_do().output.name == "north sea {seed}"


@pytest.mark.parametrize(
    ("stem", "prompt", "name"),
    [
        ("{folder}{seed}", "{folder}{seed}!", "-folder--seed- {index}"),
        ("a\nb", "a%0Ab!", "a%0Ab {index}"),
        ("con", "con!", "con_ {index}"),
        ("a:b|c", "a:b|c!", "a-b-c {index}"),
        ("x" * 200, "x" * 200 + "!", "x" * 80 + " {index}"),
    ],
)
def test_whatever_a_picture_is_called_its_name_is_only_words(
    rooms: Rooms, stem: str, prompt: str, name: str
) -> None:
    record = recipe_job(
        rooms, f'prompt = "{{file}}!"\noutput.name = "{{file}} {{index}}"\n{SMALL}', f"sepia/{stem}.png"
    )
    assert (record.to_do().prompt, record.to_do().output.name) == (prompt, name)


def test_beside_the_recipe_the_folder_is_empty(rooms: Rooms) -> None:
    record = recipe_job(
        rooms, f'prompt = "in [{{folder}}]"\nname = "{{folder}}"\noutput.name = "{{folder}}"\n{SMALL}'
    )
    assert (record.to_do().prompt, record.name, record.to_do().output.name) == ("in []", "sea", None)


def test_a_picture_in_a_recipe_folder_may_become_several_jobs(rooms: Rooms) -> None:
    rooms.drop(
        "sepia/recipe.toml",
        f'prompt = "{{file}} {{in red|in blue}}"\nexpand = "all"\n{SMALL}[matrix]\nstrength = [0.3, 0.6]\n',
    )
    rooms.drop("sepia/sea.png", picture())
    rooms.take_in()
    assert prompts(rooms) == ["sea in red", "sea in blue"] * 2
    assert {record.source.path for record in rooms.queued()} == {"sepia/sea.png"}
    assert rooms.left_in_inbox() == {"sepia/recipe.toml"}
    folder = ended(rooms, entries(rooms)[0])
    folder.rename(rooms.inbox / folder.name)
    rooms.take_in()
    assert rooms.queued()[-1].to_do().prompt == "sea in red"
