"""The take-in loop: notice, settle, claim, copy, admit or refuse."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from qwen_image_daemon.inbox.claims import Claims
from qwen_image_daemon.inbox.handover import TAKEN, finish_hand_overs, forget_old_taken
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.names import printable
from qwen_image_daemon.inbox.settling import LOOKS
from qwen_image_daemon.inbox.taking import Look, TakeIn
from qwen_image_daemon.inbox.watching import InboxWatch
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.places import Place
from qwen_image_daemon.spool.reports import TAKE_IN_REPORT, TakeInReport, unwritten_is_logged
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

_LIFE_SECONDS = 30.0
"""So often a daemon on a shared inbox shows that it is alive; a twentieth of what makes a claim stale."""
_CLEARING_SECONDS = 3600.0


def take_in(intake: Intake, control: LoopControl) -> None:
    """Take drops until asked to stop; with `control.drain`, until nothing is left that could be taken.

    Raises GaveUp where it drains and inbox or spool fail.
    """
    settings = intake.settings

    def alive() -> None:
        # The pause between two looks counts too: it may be set longer than any look takes.
        control.beat(control.share_timeout_seconds + max(settings.rescan_seconds, settings.settle_seconds))

    door = _Door(intake, alive)

    def go_on() -> bool:
        alive()
        door.show_life()
        return not control.stopping.is_asked()

    with InboxWatch(intake.inbox, settings.watch) as watch:
        while go_on():
            try:
                look = door.look(watch, go_on)
            except OSError as error:
                # A full disk, a share that is away: nothing is lost, and it mends itself or somebody does.
                log.warning("inbox.troubled", reason=str(error))
                if control.drain:
                    raise GaveUp(f"The inbox cannot be taken in: {error}") from None
                with unwritten_is_logged():
                    _report(intake.spool, TakeInReport(trouble=str(error)))
                watch.wait(settings.rescan_seconds, control.stopping)
                continue
            if control.drain and look.shortage is not None:
                raise GaveUp(look.shortage)
            if control.drain and not look.unsettled and look.taken == 0:
                return
            soon = look.unsettled or control.drain
            watch.wait(settings.settle_seconds / LOOKS if soon else settings.rescan_seconds, control.stopping)


class _Door:
    """The inbox over its absences: set up where it is new, settled where it comes back, else looked at."""

    def __init__(self, intake: Intake, alive: Callable[[], None]) -> None:
        self._intake = intake
        self._alive = alive
        self._inbox = intake.inbox
        self._spool = intake.spool
        self._settings = intake.settings
        self._place = Place("inbox", intake.inbox, intake.spool)
        self._claims = Claims(intake.inbox, intake.spool.identity)
        self._looker: TakeIn | None = None
        self._next_clearing = 0.0
        self._next_life = 0.0

    def look(self, watch: InboxWatch, go_on: Callable[[], bool]) -> Look:
        """Make sure that the inbox is there, and look once. Raises OSError; the next look then begins anew."""
        try:
            self._place.enter()
            # Each time anew: somebody may have cleared them away.
            prepare_inbox(self._inbox)
            watch.keep_up()
            self._clear_up()
            if self._looker is None:
                self._looker = self._recovered()
            look = self._looker.look(watch.renamed(), now=time.monotonic(), go_on=go_on)
            waiting = {printable(path): reason for path, reason in look.waiting.items()}
            _report(self._spool, TakeInReport(waiting=waiting, trouble=look.shortage))
        except OSError:
            # A drop may be half-way, which only a recovery settles.
            self._looker = None
            raise
        return look

    def show_life(self) -> None:
        """Tell the other daemons on this inbox that we are alive, and free what dead ones hold."""
        now = time.monotonic()
        if not self._settings.shared or now < self._next_life or self._looker is None:
            return
        self._next_life = now + _LIFE_SECONDS
        self._claims.show_life()
        for claim in self._claims.break_stale(now=now):
            log.warning("claim.broken", file=printable(claim.path), host=claim.host)

    def _recovered(self) -> TakeIn:
        """Settle what a take-in that died left behind, and begin anew."""
        self._spool.discard_unfinished_copies()
        finish_hand_overs(self._inbox, self._spool, self._claims, shared=self._settings.shared)
        return TakeIn(self._intake, self._claims, lambda: datetime.now(UTC), self._alive)

    def _clear_up(self) -> None:
        if time.monotonic() >= self._next_clearing:
            self._next_clearing = time.monotonic() + _CLEARING_SECONDS
            forget_old_taken(self._inbox, self._settings.taken_days, self._settings.taken_bytes, datetime.now(UTC))


def prepare_inbox(inbox: Path) -> None:
    """Make our own folders in the inbox, which must be there."""
    (inbox / TAKEN).mkdir(exist_ok=True)
    Claims.prepare(inbox)


def _report(spool: Spool, report: TakeInReport) -> None:
    path = spool.state / TAKE_IN_REPORT
    content = report.to_bytes()
    if not path.exists() or path.read_bytes() != content:
        replace_content(path, content)
