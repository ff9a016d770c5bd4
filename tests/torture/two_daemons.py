"""Two daemons on one inbox, each with a spool and an outbox of its own: no job may be done twice."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from driving import Box, eventually
from torture import samba_server
from torture.drops import in_any_way, mixture
from torture.keeper import Keeper, patiently
from torture.ledger import Ledger
from torture.mounts import lacking_tools
from torture.samba_server import SambaServer
from torture.table import Row
from torture.watcher import Watcher

SHARED = {"INBOX__SHARED": "true", "INBOX__RESCAN_SECONDS": "0.3"}


def share_inbox(where: Path, *, jobs: int = 400, over_samba: bool = False, seed: int = 1) -> Row:
    """Drop jobs for two daemons; with `over_samba` one of them sees the inbox through a mounted share."""
    scenario = "two daemons, Samba" if over_samba else "two daemons"
    if reason := lacking_tools(*samba_server.TOOLS, *samba_server.MOUNTING_TOOLS) if over_samba else "":
        return Row.left_out(scenario, reason)
    began = time.monotonic()
    chance = random.Random(seed)
    inbox = where / "inbox"
    inbox.mkdir()
    ledger = Ledger()
    with ExitStack() as stack:
        places = [inbox, inbox]
        if over_samba:
            samba = stack.enter_context(SambaServer(inbox, mountable=True).serving())
            places[1] = stack.enter_context(samba.mounted(where / "mounted"))
        boxes = list(_boxes(where, places))
        if over_samba:
            # Through the mount everything takes longer: the one beside the server must not have it all.
            boxes[0]._environment |= {"INBOX__WATCH": "rescan", "INBOX__SETTLE_SECONDS": "10"}
        watchers = [
            stack.enter_context(Watcher().watching(box.outbox, box.root / "watcher.json")) for box in boxes
        ]
        keepers = [Keeper(box, "--dry-run") for box in boxes]
        for keeper in keepers:
            stack.enter_context(keeper.keeping())
        for box in boxes:
            # Written after the first look.
            eventually((box.spool / "state" / "take-in.json").exists, "the first look at the inbox")
        for drop in mixture(jobs):
            in_any_way(inbox, ledger.note(drop), chance)
            time.sleep(0.01)
        finished = patiently(lambda: ledger.out(*boxes) >= jobs, lambda: ledger.out(*boxes), keepers[0])
        codes = [keeper.stop() for keeper in keepers]
        shares = [ledger.out(box) for box in boxes]
    verdict = ledger.verdict(boxes, [torn for watcher in watchers for torn in watcher.torn])
    failures = [] if finished else ["the jobs did not come out"]
    if codes != [0, 0]:
        failures.append(f"exit codes {codes}")
    if min(shares) == 0:
        failures.append(f"one daemon did nothing: {shares}")
    failures += [f"left: {name}" for name in ledger.dropped if (inbox / name).exists()]
    failures += [f"left: {path.name}" for path in inbox.glob(".claims/*.json")]
    return Row(
        scenario,
        f"{jobs} jobs in one inbox{', one daemon through a mounted share' if over_samba else ''}: "
        f"{shares[0]} and {shares[1]} came out",
        (verdict,),
        time.monotonic() - began,
        failures=tuple(failures),
    )


def _boxes(where: Path, places: list[Path]) -> Iterator[Box]:
    for number, place in enumerate(places, start=1):
        yield Box(where / f"box{number}", settle_seconds=0.3, INBOX_FOLDER=str(place), **SHARED)
