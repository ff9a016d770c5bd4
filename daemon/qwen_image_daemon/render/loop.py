"""The render loop: take a job, draw it, finish it. Touches only the spool and the model."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import structlog

from qwen_image_daemon.logs import job_log
from qwen_image_daemon.loop_control import GLANCE_SECONDS, GaveUp, LoopControl
from qwen_image_daemon.render.drawing import JobDrawing
from qwen_image_daemon.render.renderer import (
    ModelUnavailable,
    Renderer,
    RenderError,
    RenderStopped,
    UnexpectedFailure,
)
from qwen_image_daemon.render.reporting import Reporter
from qwen_image_daemon.render.saving import Saver
from qwen_image_daemon.render.warm_model import WarmModel
from qwen_image_daemon.settings import OutboxSettings, RenderSettings
from qwen_image_daemon.spool.records import ErrorReport, JobRecord, Outcome
from qwen_image_daemon.spool.reports import RenderReport, unwritten_is_logged
from qwen_image_daemon.spool.spool import Entry, Spool
from qwen_image_daemon.spool.waiting import WaitingJobs

log = structlog.get_logger(__name__)

_IDLE_ALLOWANCE_SECONDS = 60.0
_KILLS_BEFORE_QUARANTINE = 2
_IDLE = {"activity": "idle", "current": None, "trouble": None}


def render_jobs(
    spool: Spool,
    settings: RenderSettings,
    outbox: OutboxSettings,
    open_model: Callable[[str], Renderer],
    control: LoopControl,
) -> None:
    """Render queued jobs until asked to stop, or until no more can come and none is left.

    Raises GaveUp where it drains and cannot go on; any other exception means that this process must be replaced.
    """
    with Saver(outbox.png_compression) as saver, WarmModel(open_model) as warm:
        loop = _RenderLoop(spool, settings, warm, saver, control)
        loop.recover()
        loop.run()


class _RenderLoop:
    def __init__(
        self, spool: Spool, settings: RenderSettings, warm: WarmModel, saver: Saver, control: LoopControl
    ) -> None:
        self._spool = spool
        self._attempts = settings.attempts
        self._warm = warm
        self._saver = saver
        self._control = control
        self._waiting = WaitingJobs(spool)
        self._reporter = Reporter(spool)
        self._drawing = JobDrawing(settings, warm, saver, self._reporter, control)
        self._troubles = 0
        self._missing: dict[str, str] = {}
        """Models that could not be loaded, with the reason, until the next pause is over."""

    def run(self) -> None:
        """Take → draw → finish, until there is a reason to end."""
        while not self._control.stopping.is_asked():
            self._control.beat(_IDLE_ALLOWANCE_SECONDS)
            try:
                upstream_ended = self._control.no_more()
                jobs = self._waiting_jobs()
                record = next((job for job in jobs if job.to_do().model not in self._missing), None)
                if record is not None:
                    self._work(record)
                    continue
                self._saver.wait()
                if jobs:
                    self._wait_for_models()
                elif upstream_ended:
                    return
                else:
                    self._idle()
            except OSError as error:
                # The surroundings: a full disk, a failing one. No job's fault, and none is lost.
                self._put_back_all("interrupted")
                self._pause(f"{error} It goes on by itself when the fault is gone.")
        self._saver.wait()

    def recover(self) -> None:
        """Settle what a killed process left in `active`: finish what was concluded, queue the rest again."""
        for entry in self._spool.entries(self._spool.active):
            kills = sum(end == "" for end in entry.attempts().values())
            if kills >= _KILLS_BEFORE_QUARANTINE and not entry.is_concluded():
                report = ErrorReport(
                    kind="KilledTheRenderer",
                    what=f"The render process died {kills} times while it worked on this job.",
                    fix="Look into job.log and the daemon's log; a smaller picture may need less memory.",
                )
                self._spool.quarantine(entry, report, datetime.now(UTC))
                log.error("job.quarantined", id=entry.id, kills=kills)
        self._put_back_all(None)

    def _put_back_all(self, how: str | None) -> None:
        self._saver.forget()
        for entry in self._spool.entries(self._spool.active):
            if entry.is_concluded():
                self._spool.release(entry)
                continue
            if how is not None:
                entry.end_last_attempt(how)
            self._spool.put_back(entry)
            log.info("job.put_back", id=entry.id)

    def _waiting_jobs(self) -> list[JobRecord]:
        jobs = self._waiting.refresh()
        for entry in self._waiting.unreadable:
            report = ErrorReport.of_unreadable("The job's entry in the spool cannot be read any more.")
            self._spool.quarantine(entry, report, datetime.now(UTC))
            log.error("job.quarantined", id=entry.id, reason="unreadable")
        return jobs

    def _idle(self) -> None:
        if self._reporter.report.activity != "idle":
            self._reporter.say(self._reporter.report.model_copy(update=_IDLE))
        time.sleep(GLANCE_SECONDS)

    def _wait_for_models(self) -> None:
        """All jobs that are left need models that could not be loaded: look again after a while."""
        trouble = " ".join(self._missing.values())
        self._missing.clear()
        self._pause(trouble)

    def _pause(self, trouble: str) -> None:
        log.warning("render.troubled", reason=trouble)
        report = RenderReport(activity="troubled", trouble=trouble, model_name=self._warm.name)
        with unwritten_is_logged():
            self._reporter.say(report)
        if self._control.drain:
            raise GaveUp(trouble)
        self._troubles += 1
        self._control.rest(self._troubles)

    def _work(self, record: JobRecord) -> None:
        """Bring one job to its end, or leave it in the queue for later."""
        entry = self._spool.take(Entry(self._spool.queue / record.id))
        with job_log(entry.log_file, entry.id):
            try:
                outcome = self._drawing.draw(entry, record)
                self._troubles = 0
                self._saver.do(partial(self._finish, entry, record.to_do().num_images, outcome))
            except RenderStopped:
                self._leave(entry, "interrupted")
                log.info("job.interrupted")
            except ModelUnavailable as error:
                # Jobs of other models need not wait for this one.
                self._leave(entry, "interrupted")
                self._missing[record.to_do().model] = f"{error} {error.fix}"
                log.warning("model.unavailable", model=record.to_do().model, reason=str(error))
            except RenderError as error:
                if error.remedy == "replace":
                    raise
                self._cope(entry, error)
            except OSError:
                raise
            except Exception as error:
                # The job boundary: no fault of one job ends the others.
                log.exception("job.broke")
                fault = f"{type(error).__name__}: {error}"
                self._cope(entry, UnexpectedFailure(fault, "The daemon's log holds the details."))

    def _finish(self, entry: Entry, images_wanted: int, outcome: Outcome) -> None:
        """Conclude a job whose pictures are on the disk. Runs in the saver's thread, after they were written."""
        images = entry.finished_images()
        if len(images) == images_wanted:
            ordered = tuple(images[index] for index in sorted(images))
            self._conclude(entry, outcome.model_copy(update={"images": ordered}))
        # Otherwise a write failed: the render thread hears of it, and puts the job back.

    def _conclude(self, entry: Entry, outcome: Outcome) -> None:
        known = {
            "attempts": len(entry.attempts()),
            "started_at": entry.first_attempt_at(),
            "finished_at": datetime.now(UTC),
        }
        with job_log(entry.log_file, entry.id):
            event = "job.succeeded" if outcome.status == "succeeded" else "job.failed"
            log.info(event, images=len(outcome.images), attempts=known["attempts"])
        self._spool.finish(entry, outcome.model_copy(update=known))

    def _cope(self, entry: Entry, error: RenderError) -> None:
        """Try a failed job again, or give it up: for good where trying again cannot help."""
        self._saver.wait()
        if "" not in entry.attempts().values():
            # It failed before an attempt began, while the model was loaded: uncounted, it would be tried for ever.
            entry.begin_attempt(datetime.now(UTC))
        failures = sum(end == "failed" for end in entry.attempts().values()) + 1
        log.warning("attempt.failed", kind=type(error).__name__, reason=str(error), failures=failures)
        if error.remedy == "retry" and failures < self._attempts:
            self._leave(entry, "failed")
            return
        if self._warm.name is not None:
            self._warm.get(self._warm.name).clean_up()
        images = tuple(entry.finished_images().values())
        report = ErrorReport.of(error)
        self._conclude(entry, Outcome(status="failed", finished_at=datetime.now(UTC), images=images, error=report))

    def _leave(self, entry: Entry, how: str) -> None:
        """Put a job back into the queue with what it has, for a later attempt."""
        self._saver.wait()
        entry.end_last_attempt(how)
        self._spool.put_back(entry)
