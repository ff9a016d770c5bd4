"""The command line as a person uses it: what it prints, and with which code it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from driving import Box
from qwen_image_daemon.cli.planning import print_plans

GOOD, BAD = 'prompt = "x"', 'promt = "x"'


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


def called(box: Box, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "qwen_image_daemon", *arguments]
    return subprocess.run(command, env=box.environment(), capture_output=True, text=True, timeout=100, check=False)


def test_a_good_file_is_fine(box: Box) -> None:
    path = box.drop("good.toml", GOOD)
    done = called(box, "check", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: fine.\n", "")


def test_check_says_what_the_daemon_would_say(box: Box) -> None:
    path = box.drop("bad.toml", f"{BAD}\nguidance_scale = 3.5")
    done = called(box, "check", str(path), str(box.drop("good.toml", GOOD)))
    assert done.returncode == 1
    assert "good.toml: fine." in done.stdout
    complaint = done.stdout.split(str(box.inbox / "good.toml"))[0].strip()
    assert box.call("run", "--dry-run", "--once").returncode == 1
    bad = box.result("bad")
    assert complaint in (box.folder_of(bad) / "ERROR.txt").read_text()
    assert len(bad.problems) >= 2


def test_check_says_which_file_or_picture_is_not_there(box: Box) -> None:
    done = called(box, "check", str(box.inbox / "none.toml"))
    assert done.returncode == 1
    assert "none.toml: cannot be read" in done.stdout
    done = called(box, "check", str(box.drop("late.toml", f'{GOOD}\nimage = "boat.png"')))
    assert done.returncode == 1
    assert "boat.png is not there" in done.stdout


def test_a_status_before_any_daemon_says_so(box: Box) -> None:
    done = box.call("status")
    assert done.returncode == 3
    assert "No daemon has run" in done.stderr


def test_the_status_after_a_run_is_the_one_in_the_outbox(box: Box) -> None:
    box.drop("good.toml", GOOD)
    assert box.call("run", "--dry-run", "--once").returncode == 0
    done = box.call("status", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout) == box.status()
    assert box.status()["state"] == "stopped"
    assert box.status()["counts"]["succeeded"] == 1
    spoken = box.call("status").stdout
    assert spoken.startswith("stopped ")
    assert "1 succeeded, 0 failed, 0 refused" in spoken


@pytest.mark.parametrize("how", [[], ["--inline"]])
def test_one_run_over_good_and_bad_files_ends_with_one(box: Box, how: list[str]) -> None:
    box.drop("good.toml", GOOD)
    box.drop("bad.toml", BAD)
    assert box.call("run", "--dry-run", "--once", *how).returncode == 1
    assert sorted(result.status for result in box.results()) == ["refused", "succeeded"]
    assert box.call("run", "--dry-run", "--once", *how).returncode == 0


def test_an_unknown_model_is_told_with_those_that_there_are(box: Box) -> None:
    done = box.call("run", "--dry-run", "--once", "--model", "sdxl")
    assert done.returncode == 2
    assert done.stderr == "--model sdxl: no such model. The settings have: qwen-image; demo is always there.\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[inbox]\nsetle_seconds = 1", "inbox.setle_seconds"),
        ("[render]\nattempts = 0", "render.attempts"),
        ("[inbox\n", "line 1"),
        ('default_model = "none"', "none of the models"),
    ],
)
def test_a_broken_settings_file_is_named_with_its_key(box: Box, text: str, said: str) -> None:
    config = box.root / "daemon.toml"
    config.write_text(text)
    done = box.call("run", "--dry-run", "--once", "--config", str(config))
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_settings_file_that_is_not_there_is_named(box: Box) -> None:
    done = box.call("run", "--dry-run", "--once", "--config", str(box.root / "none.toml"))
    assert done.returncode == 2
    assert "none.toml: cannot be read" in done.stderr


def test_a_missing_checkpoint_is_told_before_the_start(box: Box) -> None:
    box.use_model(box.root / "none")
    done = box.call("run", "--once")
    assert done.returncode == 2
    assert "holds no model_index.json" in done.stderr
    assert "[models.tiny]" in done.stderr


def test_a_spool_that_cannot_be_made_is_told_in_one_sentence(box: Box) -> None:
    box.spool.write_text("in the way")
    done = box.call("run", "--dry-run", "--once")
    assert done.returncode == 2
    assert "The spool must exist and be writable" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_inbox_that_cannot_be_used_ends_a_single_run_with_one(box: Box) -> None:
    box.inbox.rmdir()
    box.inbox.write_text("in the way")
    done = box.call("run", "--dry-run", "--once")
    assert done.returncode == 1
    assert "loop.gave_up" in done.stdout


def test_plan_prints_every_plan_and_why_one_is_taken(box: Box) -> None:
    done = called(box, "plan", "--vram", "32GB", "--ram", "64GiB")
    assert done.returncode == 0
    taken = [line for line in done.stdout.splitlines() if line.startswith("→")]
    assert [line.split()[1] for line in taken] == ["encoder-streamed-table"]
    last = done.stdout.splitlines()[-1]
    assert last.startswith(
        "encoder-streamed-table is taken: encoder-streamed would need 42.3 GiB of device memory"
    )


@pytest.mark.parametrize(
    ("vram", "told"),
    [
        ("141GB", "1 can keep a transformer of 38.1 GiB on the device, too."),
        ("80GB", "none keeps its transformer on the device: there is no room beside this one."),
    ],
)
def test_plan_says_what_models_that_stand_by_keep_on_the_device(box: Box, vram: str, told: str) -> None:
    config = box.root / "two.toml"
    config.write_text("[render]\nwarm_models = 2\n", encoding="utf-8")
    done = called(box, "plan", "--config", str(config), "--vram", vram, "--ram", "128GiB")
    assert done.stdout.splitlines()[-1] == f"Of 1 more that may stand by (render.warm_models) {told}"


def test_plan_ends_with_1_where_nothing_fits(box: Box) -> None:
    done = called(box, "plan", "--vram", "8", "--ram", "1")
    assert done.returncode == 1
    assert "Nothing fits: disk would need 2.0 GiB of host memory" in done.stdout


def test_plan_refuses_amounts_and_sizes_that_are_none(box: Box) -> None:
    assert "--vram much: no amount of memory." in called(box, "plan", "--vram", "much").stderr
    assert "--size big: no size." in called(box, "plan", "--size", "big").stderr


@pytest.mark.parametrize(
    ("name", "size"),
    [("qwen-image-Q4_K_S.gguf", 12_140_608_928), ("svdq-int4_r32-qwen-image.safetensors", 11_500_000_000)],
)
def test_plan_counts_what_a_file_in_the_transformers_place_takes(
    name: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    with file.open("wb") as opened_file:
        # The published file's size; nothing of it is written.
        opened_file.truncate(size)
    settings = tmp_path / "daemon.toml"
    settings.write_text(
        f'[models.qwen-image]\nsource = "Qwen/Qwen-Image"\ntransformer = "{file}"\n', encoding="utf-8"
    )

    print_plans(settings, None, "16GB", "64GB", None, "allow-quantized")

    told = capsys.readouterr().out
    assert f"Lossy in each of them: the transformer is that of {file}." in told
    assert "→ encoder-streamed  " in told
    assert "float8" not in told
