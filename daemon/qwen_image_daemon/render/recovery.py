"""What a render process that died left behind: what is known of its death, and who is given up for it."""

from datetime import UTC, datetime
from typing import Final

import structlog

from qwen_image_daemon.logs import job_log
from qwen_image_daemon.render.renderer import MemoryInfo
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.entry import LOST, Entry
from qwen_image_daemon.spool.records import ErrorReport
from qwen_image_daemon.spool.reports import RENDER_DEATH, RenderDeath
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

_KILLS_BEFORE_QUARANTINE: Final = 2
_DEATHS_BEFORE_QUARANTINE: Final = 5
"""Deaths of the whole daemon count too, for a job may take the machine down; but power cuts are nobody's fault."""
_LOG_LINES: Final = 10
_LONGEST_LINE: Final = 500


def give_up_killers(spool: Spool, controls: Controls) -> None:
    """Give up the jobs that killed the process twice without finishing a picture in between.

    What is known of the last death goes into their logs and, with the logs' last lines, into their reports.
    """
    for entry in spool.entries(spool.active):
        if entry.is_concluded() or not entry.died():
            continue
        death = _death_of(spool, entry)
        if death is None:
            entry.end_last_attempt(LOST)
        deaths = entry.deaths()
        with job_log(entry.log_file, entry.id):
            log.error("job.renderer_died", deaths=deaths, how=_how(death))
        is_killer = entry.kills() >= _KILLS_BEFORE_QUARANTINE or deaths >= _DEATHS_BEFORE_QUARANTINE
        if is_killer and not controls.is_cancelled(entry.id):
            spool.quarantine(entry, _report(entry, deaths, death), datetime.now(UTC))
            log.error("job.quarantined", id=entry.id, deaths=deaths)


def _death_of(spool: Spool, entry: Entry) -> RenderDeath | None:
    """Read how the process died, unless it is the story of another death."""
    try:
        death = RenderDeath.model_validate_json((spool.state / RENDER_DEATH).read_bytes())
    except (OSError, ValueError):
        return None
    began = entry.died_attempt_at()
    return death if began is not None and began <= death.died_at else None


def _report(entry: Entry, deaths: int, death: RenderDeath | None) -> ErrorReport:
    return ErrorReport(
        kind="KilledTheRenderer",
        what=f"The render process died {deaths} times while it worked on this job, finishing no picture between.",
        fix="Look into job.log and the daemon's log; a smaller picture may need less memory.",
        details=(f"The last death: {_how(death)}", *_circumstances(entry, death), *_last_lines(entry)),
    )


def _how(death: RenderDeath | None) -> str:
    if death is None:
        return "not known; the whole daemon, or the machine, went down with it."
    if death.silent_seconds is not None:
        return (
            f"it hung: no step was done for {death.silent_seconds:g} seconds (step_timeout_seconds), and the "
            f"daemon ended it at {_utc(death.died_at)}."
        )
    return f"{death.how} at {_utc(death.died_at)}."


def _circumstances(entry: Entry, death: RenderDeath | None) -> list[str]:
    report = None if death is None else death.last_report
    if report is None:
        return []
    lines: list[str] = []
    if report.current is not None and report.current.id == entry.id:
        now = report.current
        lines.append(f"It was at picture {now.image} of {now.images}, step {now.step} of {now.steps}, last heard.")
    if report.memory is not None:
        lines.append(f"Memory at the last report: {_memory(report.memory)}")
    return lines


def _memory(memory: MemoryInfo) -> str:
    gibibytes = {
        "held by tensors": memory.allocated_bytes,
        "reserved": memory.reserved_bytes,
        "free": memory.free_bytes,
        "in all": memory.total_bytes,
        "resident in the process": memory.process_rss_bytes,
    }
    figures = ", ".join(f"{size / 2**30:.2f} GiB {what}" for what, size in gibibytes.items())
    return f"{memory.device}: {figures}."


def _last_lines(entry: Entry) -> list[str]:
    try:
        lines = entry.log_file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    return ["The last lines of job.log:", *(line[:_LONGEST_LINE] for line in lines[-_LOG_LINES:])]


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
