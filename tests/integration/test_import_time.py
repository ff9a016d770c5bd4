"""What must answer at once imports no model library, and takes little time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_image_daemon.spool.spool import Spool

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "numpy", "safetensors", "PIL.Image"}
NEEDED_TO_DRAW = HEAVY - {"PIL.Image"}
CALL = """
import sys
from qwen_image_daemon.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    print("code", end.code, file=sys.stderr)
print("modules", *sys.modules, file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], capture_output=True, text=True, check=True, timeout=100
    )
    last = done.stderr.splitlines()[-1].split()
    assert last[0] == "modules"
    return set(last)


@pytest.mark.parametrize(
    "command", ["help", "check", "complaint", "plan", "status", "list", "pause", "resume", "cancel", "retry"]
)
def test_commands_that_only_look_load_no_model_library(tmp_path: Path, command: str) -> None:
    (tmp_path / "job.toml").write_text('prompt = "x"')
    (tmp_path / "bad.toml").write_text("promt = 1")
    Spool(tmp_path / "spool").prepare()
    arguments = {
        "help": ["--help"],
        "check": ["check", str(tmp_path / "job.toml")],
        "complaint": ["check", str(tmp_path / "bad.toml")],
        "plan": ["plan", "--vram", "16GB"],
    }.get(command)
    if arguments is None:
        job = ["some-id"] if command in {"cancel", "retry"} else []
        arguments = [command, *job, "--root", str(tmp_path)]
    assert loaded(*arguments) & NEEDED_TO_DRAW == set()


def test_the_service_and_its_loops_load_no_model_library_before_there_is_a_job(tmp_path: Path) -> None:
    environment_root = tmp_path / "box"
    modules = loaded("run", "--once", "--dry-run", "--inline", "--root", str(environment_root))
    assert modules & {"torch", "diffusers", "transformers", "accelerate"} == set()


def cpu_seconds(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return (after.children_user + after.children_system) - (before.children_user + before.children_system)


def test_help_is_there_at_once() -> None:
    command = [sys.executable, "-m", "qwen_image_daemon", "--help"]
    # The best of three: other work on the machine makes caches cold and clocks slow.
    assert min(cpu_seconds(command) for _ in range(3)) < 0.3
