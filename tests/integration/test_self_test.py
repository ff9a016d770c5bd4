"""The self-test tries all that a family promises, and finds what is not as asked."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import structlog
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from qwen_image_daemon.cli.app import app
from qwen_image_daemon.jobs.families import ASPECT_RATIOS, FAMILIES, FamilyName, PresetName
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.dry_run import DryRunRenderer
from qwen_image_daemon.render.renderer import Progress, Rendering, RenderRequest
from qwen_image_daemon.render.self_test import CheckResult, SelfTestReport, Subject, self_test
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings

CONTROLNETS = {
    "edges": ControlNetSettings(source="./edges"),
    "fill": ControlNetSettings(source="./fill", kind="inpaint"),
}


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def tried(subject: Subject, renderer: DryRunRenderer) -> SelfTestReport:
    heard: list[CheckResult] = []
    report = self_test(subject, lambda: renderer, heard.append)
    assert tuple(heard) == report.checks
    return report


@pytest.mark.parametrize("family", get_args(FamilyName))
def test_every_family_is_tried_with_all_its_tasks_presets_and_sizes(family: FamilyName) -> None:
    """Without a model here: every trial is one that a model of the family may be asked for."""
    model = ModelSettings(family=family, source="anything")
    report = tried(Subject("some", family, Accessories(controlnets=CONTROLNETS), 128), DryRunRenderer(model))
    faulty = {check.name: check.told for check in report.checks if not check.passed}
    names = {check.name for check in report.checks}
    # A dry run paints one colour for all strengths and pictures; only where two ought to differ it is found out.
    assert all("same picture" in told for told in faulty.values())
    assert {f"preset {preset}" for preset in get_args(PresetName)} <= names
    if "layered" not in FAMILIES[family].tasks:
        assert {f"aspect ratio {ratio}" for ratio in ASPECT_RATIOS} <= names
    for task in FAMILIES[family].tasks:
        assert [name for name in names if name.startswith(task)]


class Careless(DryRunRenderer):
    """A model that draws other sizes than it is asked for."""

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Paint a picture of one size."""
        return replace(super().render(request, progress), image=Image.new("RGB", (64, 64)))


def test_a_model_that_does_not_do_what_it_is_asked_for_is_found() -> None:
    model = ModelSettings(family="demo", source="anything")
    report = tried(Subject("some", "demo", Accessories()), Careless(model))
    told = {check.name: check.told for check in report.checks}
    assert not report.passed
    assert "It is 64×64 instead of 256×144." in told["aspect ratio 16:9"]
    assert "It is the same picture as that of text-to-image." in told["another seed"]


def settings_file(folder: Path, checkpoint: Path) -> Path:
    path = folder / "daemon.toml"
    path.write_text(
        f'default_model = "tiny"\nroot = "{folder}"\n'
        f'[models.tiny]\nfamily = "demo"\nsource = "{checkpoint}"\n'
        '[render]\ndevice = "cpu"\nprecisions = ["float32"]\n',
        encoding="utf-8",
    )
    return path


def test_a_real_checkpoint_passes_and_the_report_has_its_figures(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "loras").mkdir()
    layer = "transformer.transformer_blocks.0.attn.to_q"
    noise = torch.Generator().manual_seed(0)
    weights = {
        f"{layer}.lora_{part}.weight": torch.randn(shape, generator=noise) for part, shape in SHAPES.items()
    }
    save_file(weights, tmp_path / "loras" / "strong.safetensors")

    config = str(settings_file(tmp_path, tiny_checkpoint))
    run = CliRunner().invoke(app, ["selftest", "--config", config, "--side", "64", "--json"])

    report = SelfTestReport.model_validate(json.loads(run.stdout))
    assert [check for check in report.checks if not check.passed] == []
    assert (run.exit_code, report.passed) == (0, True)
    figures = {check.name: check for check in report.checks}
    assert {"LoRA strong", "without the LoRA strong again", "inpaint", "preset ultra"} <= set(figures)
    guided, plain = figures["guidance on"], figures["guidance off"]
    assert (guided.passes, plain.passes) == (12, 6)
    assert all(check.seconds_per_step is not None and check.seconds_per_step > 0 for check in report.checks)
    assert report.memory is not None
    assert (report.memory.peak_bytes or 0) > 10**7


SHAPES = {"A": (4, 32), "B": (32, 4)}


def test_a_model_that_is_not_there_is_told_in_one_line_and_by_the_exit_code(tmp_path: Path) -> None:
    config = str(settings_file(tmp_path, tmp_path / "nothing"))
    run = CliRunner().invoke(app, ["selftest", "--config", config])
    assert run.exit_code == 1
    assert f"tiny cannot be tried: There is no checkpoint folder {tmp_path / 'nothing'}." in run.stdout
