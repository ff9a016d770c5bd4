"""`run`: the daemon in the foreground."""

from pathlib import Path

import typer

from qwen_image_daemon.cli.reading_settings import WRONG_USE, settings_or_exit
from qwen_image_daemon.logs import configure_logs
from qwen_image_daemon.service.daemon import serve
from qwen_image_daemon.service.loops import Options
from qwen_image_daemon.service.preparation import Unready


def run_daemon(
    root: Path | None, config: Path | None, model: str | None, *, once: bool, inline: bool, dry_run: bool
) -> int:
    """Run the daemon to its end, and give the exit code."""
    settings = settings_or_exit(root, config, model)
    configure_logs(settings.log, loop="service")
    try:
        return serve(settings, Options(once=once, inline=inline, dry_run=dry_run))
    except Unready as reason:
        typer.echo(str(reason), err=True)
    return WRONG_USE
