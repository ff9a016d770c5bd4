"""The give-out loop: publish what is rendered, carry the status out. The only one that touches the outbox."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.logs import job_log
from qwen_image_daemon.loop_control import GLANCE_SECONDS, GaveUp, LoopControl
from qwen_image_daemon.outbox.clearing import discard_unfinished, forget_old_results
from qwen_image_daemon.outbox.publishing import FAILED, publish
from qwen_image_daemon.outbox.status import STATUS
from qwen_image_daemon.settings import OutboxSettings, SpoolSettings
from qwen_image_daemon.spool.clearing import forget_old_jobs
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.places import Place
from qwen_image_daemon.spool.records import ErrorReport
from qwen_image_daemon.spool.reports import GIVE_OUT_REPORT, GiveOutReport, unwritten_is_logged
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

_CLEARING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where results come from, where they go, and by which rules."""

    spool: Spool
    outbox: Path
    settings: OutboxSettings
    limits: SpoolSettings


def give_out(outlet: Outlet, control: LoopControl) -> None:
    """Publish finished jobs until asked to stop, or until no more can come and none is left.

    Raises GaveUp where it drains and the outbox fails.
    """
    spool, outbox = outlet.spool, outlet.outbox
    carrier = _StatusCarrier(spool, outbox)
    place = Place("outbox", outbox, spool)
    troubles = 0
    clear_at = 0.0

    def alive() -> None:
        control.beat(control.share_timeout_seconds)

    while not control.stopping.is_asked():
        alive()
        upstream_ended = control.no_more()
        try:
            # Each time anew: nothing may be written below the bare mount point of a share that went away.
            place.enter()
            if time.monotonic() >= clear_at:
                clear_at = time.monotonic() + _CLEARING_SECONDS
                _clear_up(outlet)
            carrier.carry()
            for entry in spool.entries(spool.rendered):
                if control.stopping.is_asked():
                    return
                _settle_unreadable(spool, entry)
                with job_log(entry.log_file, entry.id):
                    log.info("result.published", folder=str(publish(entry, outbox, alive)))
                spool.file_done(entry)
                crash_point("give-out.filed")
                alive()
                carrier.carry()
        except (OSError, ValueError) as error:
            # A full disk, a share that is away: what is rendered stays in the spool until it can be given out.
            log.warning("outbox.troubled", reason=str(error))
            _report(spool, GiveOutReport(trouble=f"The outbox cannot be written: {error}"))
            if control.drain:
                raise GaveUp(f"The outbox cannot be written: {error}") from None
            troubles += 1
            control.rest(troubles)
            continue
        if troubles:
            _report(spool, GiveOutReport())
        troubles = 0
        if upstream_ended:
            carrier.carry()
            return
        time.sleep(GLANCE_SECONDS)


def _clear_up(outlet: Outlet) -> None:
    discard_unfinished(outlet.outbox)
    (outlet.outbox / FAILED).mkdir(exist_ok=True)
    now = datetime.now(UTC)
    results = forget_old_results(outlet.outbox, outlet.settings, now)
    jobs = forget_old_jobs(outlet.spool, outlet.limits, now)
    if results or jobs:
        log.info("outbox.cleared_up", results=results, jobs=jobs)


def _settle_unreadable(spool: Spool, entry: Entry) -> None:
    """Give a job whose end cannot be read any more another end, so that it does not hold up the others."""
    try:
        entry.record()
        entry.outcome()
    except (FileNotFoundError, ValueError) as error:
        report = ErrorReport.of_unreadable(
            "What the spool wrote down about the job's end cannot be read any more."
        )
        spool.quarantine(entry, report, datetime.now(UTC))
        log.error("job.quarantined", id=entry.id, reason=str(error))  # noqa: TRY400  the reason says it all


def _report(spool: Spool, report: GiveOutReport) -> None:
    with unwritten_is_logged():
        replace_content(spool.state / GIVE_OUT_REPORT, report.to_bytes())


class _StatusCarrier:
    """Copies the service's status from the spool into the outbox whenever it changed."""

    def __init__(self, spool: Spool, outbox: Path) -> None:
        self._source = spool.state / STATUS
        self._target = outbox / STATUS
        self._carried = 0

    def carry(self) -> None:
        try:
            changed = self._source.stat().st_mtime_ns
            if changed != self._carried:
                replace_content(self._target, self._source.read_bytes())
                self._carried = changed
        except FileNotFoundError:
            return
