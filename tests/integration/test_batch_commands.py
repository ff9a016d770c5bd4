"""What the command line says and does about files with many jobs."""

import subprocess
from pathlib import Path

import pytest

from driving import Box
from rooms import picture

SMALL = "num_inference_steps = 2\nwidth = 64\nheight = 64\n"
SWEEP = f'prompt = "a {{red|blue}} circle"\nexpand = "all"\n{SMALL}[matrix]\nseed = [7, 8]\n'


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


def expanded(box: Box, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return box.call("check", "--expand", *arguments)


def test_expand_shows_each_job_as_it_would_be_drawn(box: Box) -> None:
    done = expanded(box, str(box.drop("sweep.toml", SWEEP)))
    assert (done.returncode, done.stderr) == (0, "")
    title, head, *lines = done.stdout.splitlines()
    assert title.endswith("sweep.toml: 4 jobs, 4 pictures, time unknown, for nothing was drawn yet by qwen-image.")
    assert head.split() == ["name", "model", "task", "size", "steps", "cfg", "seed", "pictures", "time", "prompt"]
    assert [line.split(maxsplit=10) for line in lines[:2]] == [
        ["1", "sweep-1", "qwen-image", "text-to-image", "64×64", "2", "4", "7", "1", "unknown", "a red circle"],
        ["2", "sweep-2", "qwen-image", "text-to-image", "64×64", "2", "4", "7", "1", "unknown", "a blue circle"],
    ]
    assert len(lines) == 4


def test_expand_tells_the_time_by_what_was_drawn_before(box: Box) -> None:
    path = box.drop("one.toml", f'prompt = "x"\n{SMALL}')
    assert box.call("run", "--dry-run", "--once").returncode == 0
    path.write_text(f'prompt = "x"\nnum_images = 2\n{SMALL}')
    done = expanded(box, str(path))
    assert "1 job, 2 pictures, about " in done.stdout
    assert "(from the last 1 picture; without loading and waiting)" in done.stdout
    assert "by lot" in done.stdout


def test_expand_is_short_for_very_many_jobs_unless_all_are_wanted(box: Box) -> None:
    path = str(box.drop("many.toml", f'prompt = "x"\n{SMALL}[matrix]\nseed = {list(range(1000))}\n'))
    lines = expanded(box, path).stdout.splitlines()
    assert len(lines) < 30
    assert "  … 975 more (--all shows them)" in lines
    assert len(expanded(box, path, "--all").stdout.splitlines()) == 1002


def test_expand_complains_as_check_does_and_shows_what_is_left(box: Box) -> None:
    bad = '[[jobs]]\nprompt = "a"\n[[jobs]]\npromt = "b"\n'
    refused = expanded(box, str(box.drop("bad.toml", bad)))
    assert refused.returncode == 1
    assert refused.stdout == box.call("check", str(box.inbox / "bad.toml")).stdout
    skipped = expanded(box, str(box.drop("skip.toml", f'on_invalid = "skip"\n{bad}')))
    assert skipped.returncode == 1
    assert "job 2 of 2: promt" in skipped.stdout
    assert "1 job, 1 picture" in skipped.stdout


def test_expand_tells_the_size_of_a_source_and_misses_what_is_not_there(box: Box) -> None:
    (box.inbox / "boat.png").write_bytes(picture((128, 64)))
    text = '[defaults]\nsize = "source"\n' + "".join(
        f'[[jobs]]\nprompt = "x"\nimage = "{name}.png"\n' for name in ("boat", "gone")
    )
    done = expanded(box, str(box.drop("two.toml", text)))
    assert done.returncode == 1
    assert "gone.png is not there" in done.stdout
    assert "128×64" in done.stdout
    assert "1 jobs are not shown" in done.stdout


def test_a_list_that_is_not_there_is_missed(box: Box) -> None:
    done = box.call("check", str(box.drop("many.toml", 'prompts_from = "list.txt"')))
    assert (done.returncode, "list.txt is not there" in done.stdout) == (1, True)
    box.drop("list.txt", "a\nb\n")
    assert box.call("check", str(box.inbox / "many.toml")).stdout.endswith("many.toml: fine. 2 jobs.\n")


@pytest.mark.parametrize("word", ["name", "id", "group"])
def test_a_batch_is_listed_in_one_line_and_cancelled_by_its_name(box: Box, word: str) -> None:
    box.drop("sweep.toml", SWEEP)
    box.drop("PAUSE", "")
    with box.running("--dry-run") as daemon:
        box.wait_for_state("paused")
        group = next(item["batch"] for item in box.wait_for_count("queued", 4)["queue"])
        listed = box.call("list").stdout.splitlines()
        assert len(listed) == 1
        assert f"{group}  4 jobs, next sweep-1" in listed[0]
        meant = {"name": "sweep", "id": group[-26:], "group": group}[word]
        done = box.call("cancel", meant)
        assert (done.returncode, done.stdout.startswith(f"4 jobs of {group} are cancelled.")) == (0, True)
        assert [box.result(f"sweep-{number}").status for number in (1, 2, 3, 4)] == ["cancelled"] * 4
        assert daemon.stop() == 0


def test_a_failed_job_of_a_batch_is_tried_again_beside_the_others(box: Box) -> None:
    box.drop("sub/sweep.toml", f'prompts = ["x", "y"]\ntimeout_seconds = 0.0001\n{SMALL}')
    assert box.call("run", "--dry-run", "--once").returncode == 1
    first = box.result("sweep-1")
    folder = box.folder_of(first)
    assert folder.parent.parent == box.failed / "sub"
    job_file = folder / str(first.job_file)
    job_file.write_text(job_file.read_text().replace("0.0001", "100"))
    assert box.call("retry", first.id).returncode == 0
    assert box.call("run", "--dry-run", "--once").returncode == 0
    again = next(result for result in box.results() if result.status == "succeeded")
    assert again.effective is not None
    assert again.effective.prompt == "x"
    assert box.folder_of(again).parent.name == folder.parent.name
    assert box.call("retry", "sweep").stdout == f"1 jobs of {folder.parent.name} are in the inbox again.\n"
