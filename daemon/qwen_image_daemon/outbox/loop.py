"""The give-out loop: publish what is rendered, carry the status out. The only one that touches the outbox."""

import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from qwen_image_daemon.logs import job_log
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.outbox.publishing import FAILED, discard_unfinished, publish
from qwen_image_daemon.outbox.status import STATUS
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.records import ErrorReport
from qwen_image_daemon.spool.reports import GIVE_OUT_REPORT, GiveOutReport
from qwen_image_daemon.spool.spool import Entry, Spool

log = structlog.get_logger(__name__)

_GLANCE_SECONDS = 0.05
_ALLOWANCE_SECONDS = 300.0
"""Copying a large result to a slow share may take long."""
_LONGEST_PAUSE_SECONDS = 60.0


def give_out(spool: Spool, outbox: Path, control: LoopControl) -> None:
    """Publish finished jobs until asked to stop, or until no more can come and none is left.

    Raises GaveUp where it drains and the outbox fails.
    """
    carrier = _StatusCarrier(spool, outbox)
    pauses = 0
    prepared = False
    while not control.stopping.is_asked():
        control.beat(_ALLOWANCE_SECONDS)
        upstream_ended = control.no_more()
        try:
            if not prepared:
                prepare_outbox(outbox)
                discard_unfinished(outbox)
                prepared = True
            carrier.carry()
            for entry in spool.entries(spool.rendered):
                if control.stopping.is_asked():
                    return
                _settle_unreadable(spool, entry)
                with job_log(entry.log_file, entry.id):
                    log.info("result.published", folder=str(publish(entry, outbox)))
                spool.file_done(entry)
                control.beat(_ALLOWANCE_SECONDS)
                carrier.carry()
        except (OSError, ValueError) as error:
            # A full disk, a share that is away: what is rendered stays in the spool until it can be given out.
            log.warning("outbox.troubled", reason=str(error))
            _report(spool, GiveOutReport(trouble=f"The outbox cannot be written: {error}"))
            if control.drain:
                raise GaveUp(f"The outbox cannot be written: {error}") from None
            pauses += 1
            _pause(min(2.0**pauses, _LONGEST_PAUSE_SECONDS), control)
            continue
        if pauses:
            _report(spool, GiveOutReport())
        pauses = 0
        if upstream_ended:
            carrier.carry()
            return
        time.sleep(_GLANCE_SECONDS)


def prepare_outbox(outbox: Path) -> None:
    """Make the folders that are missing."""
    (outbox / FAILED).mkdir(parents=True, exist_ok=True)


def _settle_unreadable(spool: Spool, entry: Entry) -> None:
    """Give a job whose end cannot be read any more another end, so that it does not hold up the others."""
    try:
        entry.record()
        entry.outcome()
    except (FileNotFoundError, ValueError) as error:
        report = ErrorReport(
            kind="UnreadableEntry",
            what="What the spool wrote down about the job's end cannot be read any more.",
            fix="Drop the job again; its file is in this folder or in the inbox's .taken folder.",
        )
        spool.quarantine(entry, report, datetime.now(UTC))
        log.error("job.quarantined", id=entry.id, reason=str(error))  # noqa: TRY400  the reason says it all


def _report(spool: Spool, report: GiveOutReport) -> None:
    try:
        replace_content(spool.state / GIVE_OUT_REPORT, report.to_bytes())
    except OSError as error:
        # The disk that is full may be the spool's own; the log says it too.
        log.warning("report.unwritten", reason=str(error))


def _pause(seconds: float, control: LoopControl) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not control.stopping.is_asked():
        control.beat(_ALLOWANCE_SECONDS)
        time.sleep(_GLANCE_SECONDS)


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
