"""What an operator sets, and which source wins."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli
from jsonschema.validators import validator_for
from pydantic import ValidationError

from qwen_image_daemon.jobs.styles import STYLES, Style
from qwen_image_daemon.settings import Settings, UnknownVariableError, load_settings

REPOSITORY = Path(__file__).parents[2]
UNIT = REPOSITORY / "systemd" / "qwen-image-daemon.service"
PREFIX = "QWEN_IMAGE_DAEMON_"


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.startswith(PREFIX):
            monkeypatch.delenv(key)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "daemon.toml"
    path.write_text('root = "/from-file"\n[render]\nattempts = 5\ndevice = "cpu"\n[inbox]\nsettle_seconds = 7\n')
    return path


def test_the_environment_wins_over_the_file_key_by_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}RENDER__ATTEMPTS", "2")
    monkeypatch.setenv(f"{PREFIX}ROOT", "/from-environment")
    settings = load_settings(file)
    assert settings.root == Path("/from-environment")
    assert (settings.render.attempts, settings.render.device) == (2, "cpu")
    assert settings.inbox.settle_seconds == 7


def test_an_environment_variable_that_sets_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_IMAGE_DAEMON_INBX__SETTLE_SECONDS", "1")
    with pytest.raises(UnknownVariableError, match="QWEN_IMAGE_DAEMON_INBX__SETTLE_SECONDS: no such setting"):
        load_settings()


def test_arguments_win_over_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}ROOT", "/from-environment")
    assert load_settings(file, root=Path("/from-argument")).root == Path("/from-argument")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("rot = 1", "rot"),
        ("[inbox]\nsetle_seconds = 1", "inbox.setle_seconds"),
        ("[render]\nattempts = 0", "render.attempts"),
        ("[inbox]\nsettle_seconds = inf", "inbox.settle_seconds"),
        ('[render]\ndevice = "tpu"', "render.device"),
        ('[models.x]\nfamily = "sdxl"\nsource = "y"', "models.x.family"),
        ('[styles.x]\nen = "no place for it"', "styles.x.en"),
        ('[styles.x]\nzh = "{prompt} {prompt}"', "styles.x.zh"),
        ('[styles.x]\nen = "{prompt}\\u001b[31m"', "styles.x.en"),
        ("[styles.x]", "styles.x"),
        ('[styles." "]\nen = "{prompt}"', "styles. .[key]"),
    ],
)
def test_a_key_that_does_not_exist_or_fit_is_named(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "daemon.toml"
    path.write_text(text)
    with pytest.raises(ValidationError) as caught:
        load_settings(path)
    assert key in {".".join(map(str, fault["loc"])) for fault in caught.value.errors()}


def test_styles_of_ones_own_join_ours_and_win_over_them(tmp_path: Path) -> None:
    path = tmp_path / "daemon.toml"
    path.write_text('[styles.watercolour]\nen = "A watercolour of {prompt}"\n[styles.photo]\nzh = "{prompt}!"\n')
    styles = load_settings(path).catalogue.styles
    assert styles.keys() == {*STYLES, "watercolour"}
    assert styles["watercolour"] == Style(en="A watercolour of {prompt}")
    assert styles["photo"] == Style(zh="{prompt}!")


def test_the_default_model_must_be_one_of_the_models(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'none' is none of the models: qwen-image"):
        load_settings(None, root=tmp_path, default_model="none")


def test_settings_survive_the_way_into_another_process(file: Path) -> None:
    settings = load_settings(file)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_folders_lie_in_the_root_unless_they_are_set() -> None:
    folders = load_settings(None, root=Path("/box"), inbox_folder=Path("/share/in")).folders
    assert (folders.inbox, folders.spool, folders.outbox) == (
        Path("/share/in"),
        Path("/box/spool"),
        Path("/box/outbox"),
    )


def test_the_settings_file_that_is_shipped_says_the_defaults() -> None:
    assert load_settings(REPOSITORY / "config" / "daemon.toml") == load_settings(None)


def test_the_settings_file_that_is_shipped_shows_every_key() -> None:
    text = (REPOSITORY / "config" / "daemon.toml").read_text()
    document = tomli.loads(re.sub(r"(?m)^# (\w+ = |\[(?:styles|loras|controlnets)\.)", r"\1", text))

    def keys(value: Any) -> set[str]:
        nested = {
            f"{key}.{below}" for key, part in value.items() if isinstance(part, dict) for below in keys(part)
        }
        return nested | set(value)

    assert keys(document) >= keys(json.loads(Settings().model_dump_json()))


def test_the_generated_files_are_fresh() -> None:
    tool = [sys.executable, str(REPOSITORY / "tools" / "make_config_files.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["job", "recipe", "result", "status"])
def test_the_schemas_are_schemas_of_their_draft(name: str) -> None:
    schema = json.loads((REPOSITORY / "config" / f"{name}.schema.json").read_bytes())
    validator_for(schema, default=None).check_schema(schema)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "qwen-image-daemon"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    # Neither our program nor its user nor its documentation is installed here.
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", UNIT.read_text())
    unit.write_text(re.sub(r"(?m)^(User|Group)=.*$", r"\1=root", text))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, about_ours) == (0, [])


def test_every_value_of_the_unit_stands_alone_on_its_line() -> None:
    # A comment after a value would become part of the value.
    for line in UNIT.read_text().splitlines():
        assert not line or re.fullmatch(r"#.*|\[\w+\]|[A-Z]\w*=[^#]*", line), line


def test_nothing_in_the_unit_hides_the_card_or_breaks_cuda() -> None:
    directives = dict(
        line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")
    )
    assert not {"PrivateDevices", "MemoryDenyWriteExecute", "ProcSubset"} & set(directives)
    for device in ("nvidia-frontend", "nvidia", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        assert f"DeviceAllow=char-{device} rw" in UNIT.read_text()
    # Above the two kills after which a job is set aside.
    assert int(directives["StartLimitBurst"]) > 6


def test_jobs_may_name_what_the_settings_and_the_lora_folder_hold(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").write_bytes(b"")
    settings = load_settings(
        None,
        root=tmp_path,
        loras={"fast": {"file": "a.safetensors", "distilled_steps": 4}},
        controlnets={"edges": {"source": "InstantX/Qwen-Image-ControlNet-Union"}},
    )
    catalogue = settings.catalogue
    assert set(catalogue.loras()) == {"a", "fast"}
    assert catalogue.loras()["fast"].distilled_steps == 4
    assert catalogue.controlnets["edges"].kind == "union"
    assert catalogue.license_policy == "label"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"loras": {"x": {"file": "../x.safetensors"}}}, "the name of a file in lora_folder"),
        ({"loras": {"x": {"file": "x.pt"}}}, "ends in .safetensors"),
        (
            {"loras": {"x": {"file": "x.safetensors", "distilled_steps": 4, "family": "qwen-image-2.1"}}},
            "distilled for 4 steps of qwen-image-2.1",
        ),
        ({"loras": {"x": {"file": "x.safetensors", "distilled_steps": 5}}}, "Input should be 4 or 8"),
        (
            {"controlnets": {"x": {"source": "a/b", "family": "qwen-image-edit"}}},
            "qwen-image-edit take no ControlNet; these do: qwen-image",
        ),
        ({"license_policy": "ignore"}, "Input should be 'label' or 'refuse'"),
        ({"render": {"warm_up": ["qwen"]}}, "render.warm_up: 'qwen' is none of the models: qwen-image"),
        (
            {"render": {"warm_up": ["a", "b"]}, "models": {name: {"source": "a/b"} for name in ("a", "b")}}
            | {"default_model": "a"},
            "more models than are kept loaded",
        ),
    ],
)
def test_what_no_job_could_use_is_refused_at_the_start(overrides: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        load_settings(None, **overrides)
