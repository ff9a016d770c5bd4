"""`selftest`: tries everything that a model can do, and prints a table or a report."""

from pathlib import Path

import typer

from qwen_image_daemon.cli.reading_settings import WRONG_USE, settings_or_exit
from qwen_image_daemon.logs import log_to_stderr
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.opening import open_renderer
from qwen_image_daemon.render.renderer import Renderer
from qwen_image_daemon.render.self_test import CheckResult, SelfTestReport, Subject, self_test

ALL_WELL, FAULTY = 0, 1
_GIBIBYTE = 2**30


def test_model(
    root: Path | None, config: Path | None, model: str | None, *, side: int | None, as_json: bool
) -> int:
    """Try a model, print what came of it, and give the exit code."""
    log_to_stderr()
    settings = settings_or_exit(root, config, model)
    name = settings.default_model
    tried, accessories = settings.models[name], Accessories.of(settings)
    if side is not None and side < 1:
        typer.echo(f"--side {side}: give pixels, for example 256.", err=True)
        return WRONG_USE

    def opened() -> Renderer:
        return open_renderer(tried, settings.render, accessories, dry_run=False)

    def tell(result: CheckResult) -> None:
        if not as_json:
            typer.echo(_line(result))

    report = self_test(Subject(name, tried.family, accessories, side), opened, tell)
    typer.echo(report.model_dump_json(indent=2) if as_json else _summary(report))
    return ALL_WELL if report.passed else FAULTY


def _line(result: CheckResult) -> str:
    verdict = "ok    " if result.passed else "FAULTY"
    figures = ""
    if result.seconds is not None and result.seconds_per_step is not None:
        figures = f"{result.seconds:8.2f} s, {result.steps:3d} steps of {result.seconds_per_step:.3f} s"
    return f"{verdict} {result.name:32} {figures}{f'  {result.told}' if result.told else ''}"


def _summary(report: SelfTestReport) -> str:
    if report.info is None or report.memory is None:
        return f"{report.model} cannot be tried: {report.told}"
    faulty = sum(not check.passed for check in report.checks)
    peak = report.memory.peak_bytes
    told = "all well" if report.passed else f"{faulty} faulty"
    return (
        f"{report.model}: {len(report.checks)} trials, {told}. {report.info.pipeline} of {report.info.source} in "
        f"{report.info.precision} on {report.info.device}, loaded in {report.info.load_seconds:.1f} s; "
        f"{'peak memory not known' if peak is None else f'at most {peak / _GIBIBYTE:.2f} GiB held'}."
    )
