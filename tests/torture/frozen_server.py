"""A file server that stops answering: an inbox on sshfs whose server's processes are stopped for a while."""

import os
import time
from pathlib import Path

from driving import Box
from torture.drops import SIZE, copy_in, one_picture
from torture.keeper import Keeper, patiently
from torture.ledger import Dropped, Ledger
from torture.mounts import lacking_tools
from torture.ssh_server import TOOLS, SshServer
from torture.table import Row
from torture.watcher import Watcher


def freeze_server(where: Path, *, queued: int = 10, seconds: float = 30.0) -> Row:
    """Freeze the inbox's server while jobs are queued. These go on, the status too, and later the inbox."""
    if reason := lacking_tools(*TOOLS, "sshfs", "fusermount3") or (
        "" if os.geteuid() == 0 else "needs root, for a server of its own"
    ):
        return Row.left_out("frozen server", reason)
    began = time.monotonic()
    # The queued jobs last as long as the server is frozen.
    step_seconds = seconds * 0.8 / (queued * _STEPS)
    box = Box(where / "box", settle_seconds=0.1, RENDER__DRY_RUN_STEP_SECONDS=f"{step_seconds:.4f}")
    ledger = Ledger()
    keeper = Keeper(box, "--dry-run")
    failures: list[str] = []
    shared = where / "shared"
    shared.mkdir()
    with (
        SshServer(where / "ssh").serving() as server,
        server.mounted(shared, box.inbox),
        Watcher().watching(box.outbox, box.root / "watcher.json") as watcher,
        keeper.keeping(),
    ):
        for number in range(queued):
            copy_in(shared, ledger.note(_lasting(number)))
        patiently(lambda: not any(shared.glob("*.toml")), lambda: ledger.out(box), keeper)
        before = ledger.out(box)
        with server.frozen():
            copy_in(shared, ledger.note(one_picture(1000)))
            time.sleep(seconds)
            meanwhile = ledger.out(box) - before
            age = _status_age(box)
        if not patiently(lambda: ledger.out(box) >= queued + 1, lambda: ledger.out(box), keeper):
            failures.append("the jobs did not come out")
        if meanwhile < (queued - before) // 2:
            failures.append(f"only {meanwhile} queued jobs were drawn while the server was frozen")
        if age > max(15.0, seconds / 2):
            failures.append(f"the status was {age:.0f} s old at the end of the frost")
        if (code := keeper.stop()) != 0 or keeper.starts > 1:
            failures.append(f"{keeper.starts} starts, exit code {code}")
        verdict = ledger.verdict([box], watcher.torn)
    return Row(
        "frozen server",
        f"inbox on sshfs, server stopped for {seconds:.0f} s with {queued - before} jobs queued: {meanwhile} of "
        f"them came out meanwhile, the status was {age:.1f} s old at the end; {queued + 1} jobs",
        (verdict,),
        time.monotonic() - began,
        failures=tuple(failures),
    )


_STEPS = 20


def _lasting(number: int) -> Dropped:
    content = f'# {number}\nprompt = "lasting"\nnum_inference_steps = {_STEPS}\n{SIZE}'.encode()
    return Dropped(f"lasting-{number}.toml", content)


def _status_age(box: Box) -> float:
    return time.time() - (box.outbox / "status.json").stat().st_mtime
