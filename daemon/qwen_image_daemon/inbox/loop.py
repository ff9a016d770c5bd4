"""The take-in loop: notice, settle, claim, copy, admit or refuse."""

import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.handover import TAKEN, finish_hand_overs, forget_old_taken
from qwen_image_daemon.inbox.names import printable
from qwen_image_daemon.inbox.settling import LOOKS
from qwen_image_daemon.inbox.taking import TakeIn
from qwen_image_daemon.inbox.watching import InboxWatch
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.settings import InboxSettings
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT, TakeInReport, unwritten_is_logged
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

ALLOWANCE_SECONDS = 300.0
"""A look that copies large pictures from a slow share may take long."""


def take_in(
    inbox: Path, spool: Spool, catalogue: Catalogue, settings: InboxSettings, control: LoopControl
) -> None:
    """Take drops until asked to stop; with `control.drain`, until nothing is left that could be taken.

    Raises GaveUp where it drains and inbox or spool fail.
    """
    looker: TakeIn | None = None

    def go_on() -> bool:
        # The pause between two looks counts too: it may be set longer than any look takes.
        control.beat(ALLOWANCE_SECONDS + max(settings.rescan_seconds, settings.settle_seconds))
        return not control.stopping.is_asked()

    with InboxWatch(inbox) as watch:
        while go_on():
            try:
                # Each time anew: an inbox that was unmounted or deleted comes back without them.
                prepare_inbox(inbox)
                watch.keep_up()
                if looker is None:
                    looker = _recovered(inbox, spool, catalogue, settings)
                look = looker.look(watch.renamed(), now=time.monotonic(), go_on=go_on)
                waiting = {printable(path): reason for path, reason in look.waiting.items()}
                _report(spool, TakeInReport(waiting=waiting))
            except OSError as error:
                # A full disk, a share that is away: nothing is lost, and it mends itself or somebody does.
                log.warning("inbox.troubled", reason=str(error))
                if control.drain:
                    raise GaveUp(f"The inbox cannot be taken in: {error}") from None
                with unwritten_is_logged():
                    _report(spool, TakeInReport(trouble=str(error)))
                watch.wait(settings.rescan_seconds, control.stopping)
                continue
            if control.drain and not look.unsettled and look.taken == 0:
                return
            soon = look.unsettled or control.drain
            watch.wait(settings.settle_seconds / LOOKS if soon else settings.rescan_seconds, control.stopping)


def _recovered(inbox: Path, spool: Spool, catalogue: Catalogue, settings: InboxSettings) -> TakeIn:
    """Settle what a take-in that died left behind, and begin anew."""
    spool.discard_unfinished_copies()
    finish_hand_overs(inbox, spool, Claims(inbox))
    forget_old_taken(inbox, settings.taken_days)
    return TakeIn(inbox, spool, catalogue, settings, lambda: datetime.now(UTC))


def prepare_inbox(inbox: Path) -> None:
    """Make the folders that are missing."""
    for folder in (inbox, inbox / TAKEN):
        folder.mkdir(parents=True, exist_ok=True)
    Claims(inbox).prepare()


def _report(spool: Spool, report: TakeInReport) -> None:
    path = spool.state / TAKE_IN_REPORT
    content = report.to_bytes()
    if not path.exists() or path.read_bytes() != content:
        replace_content(path, content)
