"""The command line. Parses arguments, prints, sets exit codes. No logic of its own.

Every command imports what it needs when it runs, so that `--help`, `check`, `status` and `list` answer at once.
"""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from qwen_image_daemon import __version__

app = typer.Typer(
    name="qwen-image-daemon",
    help="Renders Qwen-Image jobs that are dropped into a folder, unattended.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Root = Annotated[
    Optional[Path],  # noqa: UP045  typer reads the annotation at run time
    typer.Option(help="Folder that holds inbox, spool and outbox. Made if it is missing.", metavar="DIR"),
]
Config = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Settings file (config/daemon.toml shows every key).", metavar="FILE"),
]
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The settings' name of the model for jobs that name none.", metavar="NAME"),
]

Job = Annotated[str, typer.Argument(help="Its id, a unique beginning or end of it, or its name.", metavar="ID")]


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer's callback
    if wanted:
        typer.echo(f"qwen-image-daemon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    root: Root = None,
    config: Config = None,
    model: Model = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="Render what is there and may begin, then end: 0 if all succeeded, else 1."),
    ] = False,
    inline: Annotated[
        bool, typer.Option("--inline", help="Loops as threads of one process, for debugging.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Draw flat colours: tries folders and service without a model.")
    ] = False,
) -> None:
    """Watch the inbox and render what is dropped there, until it is stopped.

    SIGTERM or Ctrl-C finishes the current image and stops; a second one stops at the next step. Nothing is lost.
    """
    from qwen_image_daemon.cli.running import run_daemon

    raise typer.Exit(run_daemon(root, config, model, once=once, inline=inline, dry_run=dry_run))


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Job files, TOML or JSON.", metavar="FILE...")],
    root: Root = None,
    config: Config = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Show the jobs that would be drawn, and how long it would take.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="With --expand: show each of very many jobs.")] = False,
) -> None:
    """Say what the daemon would complain about in job files. Ends with 1 if there is anything."""
    from qwen_image_daemon.cli.checking import check_files
    from qwen_image_daemon.cli.expanding import expand_files

    raise typer.Exit(expand_files(files, root, config, every=every) if expand else check_files(files, config))


@app.command()
def selftest(
    root: Root = None,
    config: Config = None,
    model: Model = None,
    side: Annotated[
        Optional[int],  # noqa: UP045  typer reads the annotation at run time
        typer.Option(help="Draw about so many pixels squared instead of the recommended sizes.", metavar="PIXELS"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Try all that a model can do: tasks, presets, sizes, guidance, LoRAs. Ends with 1 if anything is faulty."""
    from qwen_image_daemon.cli.self_testing import test_model

    raise typer.Exit(test_model(root, config, model, side=side, as_json=json))


@app.command()
def plan(
    config: Config = None,
    model: Model = None,
    vram: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Device memory, for example 16GB; 0 for none. Left out: the card that is here."),
    ] = None,
    ram: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Host memory. Left out: what is free here."),
    ] = None,
    size: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Size of the picture in pixels, for example 1664x928. Left out: the model's 1:1."),
    ] = None,
    quality: Annotated[
        Optional[Literal["lossless", "allow-quantized"]],  # noqa: UP045
        typer.Option(help="Left out: as in the settings (render.quality)."),
    ] = None,
) -> None:
    """Say how a model would be arranged in the memory of a card, and why. Ends with 1 if it would not fit."""
    from qwen_image_daemon.cli.planning import print_plans

    raise typer.Exit(print_plans(config, model, vram, ram, size, quality))


@app.command()
def status(
    root: Root = None,
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print status.json as it is.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until the daemon ends.")] = False,
) -> None:
    """Say what the daemon is doing. Ends with 3 if it is not running."""
    from qwen_image_daemon.cli.watching import show_status

    raise typer.Exit(show_status(root, config, as_json=json, follow=follow))


@app.command(name="list")
def list_(
    root: Root = None,
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the jobs that are drawn, queued or wait in the inbox, and the last that failed or were cancelled."""
    from qwen_image_daemon.cli.listing import print_jobs

    raise typer.Exit(print_jobs(root, config, as_json=json))


@app.command()
def pause(root: Root = None, config: Config = None) -> None:
    """Finish the current image, and begin nothing more until `resume`."""
    from qwen_image_daemon.cli.asking import pause_daemon

    raise typer.Exit(pause_daemon(root, config))


@app.command()
def resume(root: Root = None, config: Config = None) -> None:
    """Go on after a `pause`, or a PAUSE file in the inbox, which is deleted."""
    from qwen_image_daemon.cli.asking import resume_daemon

    raise typer.Exit(resume_daemon(root, config))


@app.command()
def cancel(job: Job, root: Root = None, config: Config = None) -> None:
    """Drop a job or a batch: before its start, or at its next step. What it has goes to outbox/cancelled."""
    from qwen_image_daemon.cli.asking import cancel_job

    raise typer.Exit(cancel_job(job, root, config))


@app.command()
def retry(job: Job, root: Root = None, config: Config = None) -> None:
    """Move the folder of a job, or all of a batch, from outbox/failed or outbox/cancelled back into the inbox."""
    from qwen_image_daemon.cli.retrying import retry_job

    raise typer.Exit(retry_job(job, root, config))


@app.command()
def free_claims(root: Root = None, config: Config = None) -> None:
    """Free drops that another daemon claimed in this inbox. Only where that daemon is gone for good."""
    from qwen_image_daemon.cli.asking import free_foreign_claims

    raise typer.Exit(free_foreign_claims(root, config))


def main() -> None:
    """Run the command line."""
    app()
