"""A file server that stops answering: inbox or outbox on sshfs, the server's processes stopped for a while."""

import os
import time
from pathlib import Path
from typing import Literal

from driving import Box
from torture.drops import SIZE, copy_in, one_picture
from torture.keeper import Keeper, patiently
from torture.ledger import Dropped, Ledger
from torture.mounts import lacking_tools
from torture.ssh_server import TOOLS, SshServer
from torture.table import Row
from torture.watcher import Watcher

Place = Literal["inbox", "outbox"]
_STEPS = 20


def freeze_server(where: Path, *, place: Place = "inbox", queued: int = 10, seconds: float = 30.0) -> Row:
    """Freeze a folder's server while jobs are queued: these are drawn, and the status goes on."""
    scenario = f"frozen {place}"
    if reason := lacking_tools(*TOOLS, "sshfs", "fusermount3") or (
        "" if os.geteuid() == 0 else "needs root, for a server of its own"
    ):
        return Row.left_out(scenario, reason)
    began = time.monotonic()
    box = _box(where, place, step_seconds=seconds * 0.6 / (queued * _STEPS))
    ledger = Ledger()
    keeper = Keeper(box, "--dry-run")
    with (
        SshServer(where / "ssh").serving() as server,
        server.mounted(getattr(box, place), where / "mounted"),
        Watcher().watching(box.outbox, box.root / "watcher.json") as watcher,
        keeper.keeping(),
    ):
        for number in range(queued):
            copy_in(box.inbox, ledger.note(_lasting(number)))
        patiently(lambda: not any(box.inbox.glob("*.toml")), lambda: _drawn(box), keeper)
        before = _drawn(box)
        with server.frozen():
            copy_in(box.inbox, ledger.note(one_picture(1000)))
            time.sleep(seconds)
            meanwhile, age = _drawn(box) - before, _status_age(box)
        hung = keeper.log().count("loop.hung")
        finished = patiently(lambda: ledger.out(box) > queued, lambda: ledger.out(box), keeper)
        code = keeper.stop()
        verdict = ledger.verdict([box], watcher.torn)
    failures = [] if finished else ["the jobs did not come out"]
    if meanwhile < (queued - before) // 2:
        failures.append(f"only {meanwhile} queued jobs were drawn while the server was frozen")
    if age > max(15.0, seconds / 2):
        failures.append(f"the status was {age:.0f} s old at the end of the frost")
    if code != 0 or keeper.starts > 1:
        failures.append(f"{keeper.starts} starts, exit code {code}")
    return Row(
        scenario,
        f"{place} on sshfs, server stopped for {seconds:.0f} s with {queued - before} jobs queued: {meanwhile} "
        f"were drawn meanwhile, the status was {age:.1f} s old at the end; kills of the loop that "
        f"waited for it: {hung}; {queued + 1} jobs",
        (verdict,),
        time.monotonic() - began,
        failures=tuple(failures),
    )


def _box(where: Path, place: Place, step_seconds: float) -> Box:
    """Give a box that has the mounted folder in one place, while we look at the server's own."""
    mounted = where / "mounted"
    mounted.mkdir()
    settings = {
        f"{place.upper()}_FOLDER": str(mounted),
        "RENDER__DRY_RUN_STEP_SECONDS": f"{step_seconds:.4f}",
        "INBOX__RESCAN_SECONDS": "1",
        # Shorter than the frost: the loop that waits for the server is killed and started again, in vain.
        "SERVICE__SHARE_TIMEOUT_SECONDS": "5",
    }
    box = Box(where / "box", settle_seconds=0.1, **settings)
    getattr(box, place).mkdir(exist_ok=True)
    return box


def _lasting(number: int) -> Dropped:
    content = f'# {number}\nprompt = "lasting"\nnum_inference_steps = {_STEPS}\n{SIZE}'.encode()
    return Dropped(f"lasting-{number}.toml", content)


def _drawn(box: Box) -> int:
    """Count the jobs that are drawn, whether they are out already or not."""
    return sum(1 for state in ("rendered", "done/succeeded") for _ in (box.spool / state).glob("*"))


def _status_age(box: Box) -> float:
    return time.time() - (box.spool / "state" / "status.json").stat().st_mtime
