#!/usr/bin/env python3
"""The torture suite: what the daemon does when it is killed, unplugged, poisoned, flooded and filled up.

Each scenario can be run alone, at any size; `all` runs them all and prints one table. Ends with 1 on any loss.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer

from torture.clients import deliver_by_clients
from torture.flood import flood_inbox
from torture.frozen_server import Place, freeze_server
from torture.full import fill_disks
from torture.inbox_away import take_inbox_away
from torture.kills import kill_at_random, kill_with_model
from torture.points import kill_at_points
from torture.poison import poison_jobs
from torture.power import cut_power
from torture.table import Row, show
from torture.two_daemons import share_inbox

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def finish(*scenarios: Callable[[Path], Row]) -> None:
    """Run scenarios one after the other in folders of their own; keep the folders of those that failed."""
    rows: list[Row] = []
    for scenario in scenarios:
        where = Path(tempfile.mkdtemp(prefix="torture-"))
        rows.append(scenario(where))
        if rows[-1].faults:
            typer.echo(f"\nkept for inspection: {where}", err=True)
        else:
            shutil.rmtree(where)
        if len(scenarios) > 1:
            show(rows[-1:])
    raise typer.Exit(0 if show(rows) else 1)


@app.command()
def kills(kills: int = 1000, jobs: int = 3000, boxes: int = 4, seed: int = 1) -> None:
    """SIGKILL of the whole daemon, the service, or one loop, at random moments."""
    finish(lambda where: kill_at_random(where, kills=kills, jobs=jobs, boxes=boxes, seed=seed))


@app.command()
def points(times: int = 3, point: Annotated[list[str] | None, typer.Option()] = None) -> None:
    """SIGKILL at every named crash point."""
    finish(lambda where: kill_at_points(where, times=times, points=point or ()))


@app.command()
def poison(jobs: int = 200, one_in: int = 10) -> None:
    """Jobs that kill or hang the renderer, among jobs that do not."""
    finish(lambda where: poison_jobs(where, jobs=jobs, one_in=one_in))


@app.command()
def flood(jobs: int = 100_000, seed: int = 1) -> None:
    """Very many job files, dropped while the daemon is stopped."""
    finish(lambda where: flood_inbox(where, jobs=jobs, seed=seed))


@app.command()
def full(jobs: int = 40, seconds: float = 10.0) -> None:
    """No space, no inodes, read-only: spool and outbox."""
    finish(lambda where: fill_disks(where, jobs=jobs, seconds=seconds))


@app.command()
def power(cuts: int = 50, *, spool_only: bool = False, pause: float = 1.0, seed: int = 1) -> None:
    """Cut the power at random moments, while jobs are dropped."""
    finish(lambda where: cut_power(where, cuts=cuts, spool_only=spool_only, pause=pause, seed=seed))


@app.command()
def clients(jobs: int = 6, settle_seconds: float = 1.0) -> None:
    """Samba, rsync, scp, sftp, mv, cp and ln, slow ones too."""
    finish(lambda where: deliver_by_clients(where, jobs=jobs, settle_seconds=settle_seconds))


@app.command()
def two_daemons(jobs: int = 400, *, over_samba: bool = False, seed: int = 1) -> None:
    """Two daemons on one inbox."""
    finish(lambda where: share_inbox(where, jobs=jobs, over_samba=over_samba, seed=seed))


@app.command()
def inbox(jobs: int = 30, seconds: float = 60.0) -> None:
    """Take the inbox away: deleted and made again, renamed away and back, unmounted and mounted again."""
    finish(lambda where: take_inbox_away(where, jobs=jobs, seconds=seconds))


@app.command()
def frozen(place: Place = "inbox", queued: int = 10, seconds: float = 30.0) -> None:
    """Let the file server of the inbox or of the outbox stop answering."""
    finish(lambda where: freeze_server(where, place=place, queued=queued, seconds=seconds))


@app.command()
def real_model(kills: int = 30, jobs: int = 60, boxes: int = 1) -> None:
    """Kill at random moments while real classes draw: the tiny checkpoint, made on the spot."""
    finish(lambda where: kill_with_model(where, kills=kills, jobs=jobs, boxes=boxes))


@app.command(name="all")
def everything() -> None:
    """Run every scenario at its full size, one after the other. Takes about an hour and a half."""
    finish(
        kill_at_random,
        kill_with_model,
        kill_at_points,
        cut_power,
        partial(cut_power, spool_only=True),
        poison_jobs,
        flood_inbox,
        fill_disks,
        take_inbox_away,
        freeze_server,
        partial(freeze_server, place="outbox"),
        deliver_by_clients,
        share_inbox,
        partial(share_inbox, over_samba=True),
    )


if __name__ == "__main__":
    # One thread each: the boxes are the parallelism.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app()
