"""`config/api.d.ts`, for people who put a web front end over the folders."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nodejs import WEB, called

REPOSITORY = Path(__file__).parents[2]
DECLARED = (REPOSITORY / "config" / "api.d.ts").read_text(encoding="utf-8")


def test_the_declarations_are_those_of_the_models() -> None:
    tool = [sys.executable, str(REPOSITORY / "tools" / "make_api_types.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_front_end_compiles_against_them_and_wrong_uses_do_not() -> None:
    # An expected error that does not come is an error too.
    assert (WEB / "sample.ts").read_text(encoding="utf-8").count("// @ts-expect-error") == 14
    done = called("tsc", "--project", WEB)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compiler_is_strict_about_what_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "wrong.ts").write_text(
        f'import type {{ GenerationRequest }} from "{REPOSITORY / "config" / "api"}";\n'
        "export const request: GenerationRequest = { seed: 7 };\n"
    )
    done = called("tsc", "--strict", "--noEmit", tmp_path / "wrong.ts")
    assert done.returncode != 0
    assert "Property 'prompt' is missing" in done.stdout


@pytest.mark.parametrize(
    ("name", "extended"),
    [
        ("GenerationRequest", "GenerationParameters"),
        ("ImageToImageRequest", "GenerationRequest"),
        ("LayeredRequest", "GenerationParameters"),
        ("QueueResponse", "DaemonMoment"),
        ("DaemonStatus", "MemoryResponse, QueueResponse"),
    ],
)
def test_what_is_said_of_all_is_declared_once(name: str, extended: str) -> None:
    assert f"export interface {name} extends {extended} {{" in DECLARED


def test_everything_that_is_named_is_exported() -> None:
    exported = re.findall(r"(?m)^export (?:interface|type) (\w+)", DECLARED)
    assert len(exported) == len(set(exported))
    for name in ("AspectRatio", "MemoryInfo", "QueueItem", "JobRequest", "JobResult", "EffectiveParameters"):
        assert name in exported
