"""The render loop: take a job, draw it, finish it. Touches only the spool and the model."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import structlog

from qwen_image_daemon.logs import job_log
from qwen_image_daemon.loop_control import GLANCE_SECONDS, GaveUp, LoopControl, Renewed
from qwen_image_daemon.render.drawing import JobDrawing
from qwen_image_daemon.render.endings import Endings
from qwen_image_daemon.render.grouping import Grouping, Setup
from qwen_image_daemon.render.interruptions import Interruptions
from qwen_image_daemon.render.recovery import give_up_killers
from qwen_image_daemon.render.renderer import (
    CleanUp,
    ModelUnavailable,
    RenderError,
    RenderStopped,
    UnexpectedFailure,
)
from qwen_image_daemon.render.renewal import Lifetime
from qwen_image_daemon.render.reporting import Reporter
from qwen_image_daemon.render.retries import Retries
from qwen_image_daemon.render.saving import Saver
from qwen_image_daemon.render.warm_models import OpenModel, WarmModels
from qwen_image_daemon.settings import OutboxSettings, RenderSettings
from qwen_image_daemon.spool.control import Controls, PauseCause, who_paused
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import ErrorReport, Outcome
from qwen_image_daemon.spool.reports import Activity, RenderReport, unwritten_is_logged
from qwen_image_daemon.spool.spool import Spool
from qwen_image_daemon.spool.waiting import WaitingJob, WaitingJobs

log = structlog.get_logger(__name__)

_IDLE_ALLOWANCE_SECONDS = 60.0
_READING_SECONDS = 5.0
"""A start on a long queue reads for so long before it listens again."""


def render_jobs(
    spool: Spool,
    settings: RenderSettings,
    outbox: OutboxSettings,
    open_model: OpenModel,
    control: LoopControl,
) -> None:
    """Render queued jobs until asked to stop, or until no more can come and none is left.

    Raises GaveUp where it drains and cannot go on, Renewed where it is to be started anew; any other exception
    means that this process must be replaced.
    """
    with Saver(outbox.png_compression) as saver, WarmModels(open_model, settings.warm_models) as warm:
        loop = _RenderLoop(spool, settings, warm, saver, control)
        loop.recover()
        loop.warm_up()
        loop.run()


class _RenderLoop:
    def __init__(
        self, spool: Spool, settings: RenderSettings, warm: WarmModels, saver: Saver, control: LoopControl
    ) -> None:
        self._spool = spool
        self._attempts = settings.attempts
        self._to_warm_up = settings.warm_up
        self._unloads_when_idle = settings.unload_after_seconds is not None
        self._warm = warm
        self._saver = saver
        self._control = control
        self._controls = Controls(spool)
        self._endings = Endings(spool, self._controls)
        self._waiting = WaitingJobs(spool, _READING_SECONDS)
        self._retries = Retries(settings.retry_pause_seconds)
        self._grouping = Grouping(settings.group_seconds)
        self._last_setup: Setup | None = None
        """What the last job was drawn with, or was to be."""
        self._reporter = Reporter(spool)
        interruptions = Interruptions(settings, control, self._controls, self._drop_cancelled)
        self._drawing = JobDrawing(warm, saver, self._reporter, interruptions)
        self._lifetime = Lifetime(settings)
        self._troubles = 0
        self._missing: dict[str, str] = {}
        """Models that could not be loaded, with the reason, until the next pause is over."""

    def run(self) -> None:
        """Look, and do what is next, until there is a reason to end."""
        while not self._control.stopping.is_asked():
            self._control.beat(_IDLE_ALLOWANCE_SECONDS)
            try:
                if self._is_done():
                    return
            except OSError as error:
                # The surroundings: a full disk, a failing one. No job's fault, and none is lost.
                self._saver.forget()
                for entry in self._endings.put_back_all("interrupted"):
                    self._waiting.put_back(entry)
                self._rest(f"{error} It goes on by itself when the fault is gone.")
        self._saver.wait()

    def recover(self) -> None:
        """Settle what a killed process left in `active`: finish what was concluded, queue the rest again."""
        give_up_killers(self._spool, self._controls)
        self._endings.put_back_all(None)

    def warm_up(self) -> None:
        """Have the models at hand that the settings name. One that cannot be is left to its first job to tell.

        Not in a run that ends by itself: it loads what its jobs need, and nothing else. Raises DeviceLost.
        """
        for model in () if self._control.drain or self._controls.paused_by() else self._to_warm_up:
            try:
                self._drawing.warm_up(model)
            except RenderStopped:
                return
            except RenderError as error:
                if error.remedy == "replace":
                    raise
                log.warning("model.not_warmed_up", model=model, reason=str(error), fix=error.fix)
            # It idles from now on.
            self._lifetime.worked()

    def _is_done(self) -> bool:
        """Take → draw → finish one job, or wait a moment. Says whether nothing is left and nothing can come."""
        upstream_ended = self._control.no_more()
        self._cope_with_unsaved()
        self._drop_cancelled()
        jobs = self._waiting_jobs()
        if upstream_ended and not jobs:
            # The last one may have come after the last listing.
            self._waiting.expire()
            jobs = self._waiting_jobs()
        if self._waiting.behind:
            return False
        causes = self._controls.paused_by()
        job = None if causes else self._next(jobs)
        if job is not None:
            self._work(job)
            return False
        self._saver.wait()
        if self._saver.failures:
            return False
        later = _for_later(jobs)
        if upstream_ended and len(later) == len(jobs) and not self._waiting.withheld:
            # A single run does not wait for moments to come: the next start finds these jobs.
            if later:
                log.info("jobs.left_for_later", jobs=len(later), until=later[0].isoformat())
            return True
        self._wait(causes, jobs, upstream_ended=upstream_ended)
        return False

    def _next(self, jobs: Sequence[WaitingJob]) -> WaitingJob | None:
        now = datetime.now(UTC)
        ready = (
            job
            for job in jobs
            if job.model not in self._missing and not job.is_for_later(now) and self._retries.is_due(job.id)
        )
        return self._grouping.choose(ready, self._at_hand())

    def _at_hand(self) -> Setup | None:
        """Say for which jobs nothing need be loaded."""
        last = self._last_setup
        return last if last is not None and last.model == self._warm.name else None

    def _wait(self, causes: tuple[PauseCause, ...], jobs: Sequence[WaitingJob], *, upstream_ended: bool) -> None:
        """Nothing can be drawn at present: say why, and look again in a while."""
        if causes:
            note = who_paused(causes)
            # Not before: a PAUSE file may have gone while no daemon ran, and the take-in has yet to look.
            if self._control.drain and upstream_ended and jobs:
                raise GaveUp(f"{note} Jobs that are left in the queue: {len(jobs)}.")
            self._idle("paused", note)
        elif any(job.model not in self._missing and not job.is_for_later(datetime.now(UTC)) for job in jobs):
            self._idle("idle", f"Jobs that wait for their next try: {self._retries.waiting()}.")
        elif self._missing or self._waiting.withheld:
            trouble = " ".join((*self._missing.values(), *self._waiting.withheld.values()))
            self._missing.clear()
            self._rest(trouble)
        else:
            later = _for_later(jobs)
            self._idle(
                "idle",
                f"Jobs for later: {len(later)}, the first at {later[0].isoformat(sep=' ')}."
                if later
                else self._nothing_loaded(),
            )

    def _nothing_loaded(self) -> str | None:
        if self._unloads_when_idle and not self._warm.names:
            return "No model is loaded, and the card is free; the next job loads its own."
        return None

    def _idle(self, activity: Activity, note: str | None) -> None:
        if self._warm.names:
            self._end_if(self._lifetime.over_when_idle())
        now = {"activity": activity, "current": None, "note": note, "trouble": None}
        report = self._reporter.report.model_copy(update=now)
        if report != self._reporter.report:
            self._reporter.say(report)
        time.sleep(GLANCE_SECONDS)

    def _rest(self, trouble: str) -> None:
        log.warning("render.troubled", reason=trouble)
        report = RenderReport(activity="troubled", trouble=trouble, model_name=self._warm.name)
        with unwritten_is_logged():
            self._reporter.say(report)
        if self._control.drain:
            raise GaveUp(trouble)
        self._troubles += 1
        self._control.rest(self._troubles)

    def _waiting_jobs(self) -> Sequence[WaitingJob]:
        jobs = self._waiting.refresh()
        for entry in self._waiting.unreadable:
            report = ErrorReport.of_unreadable("The job's entry in the spool cannot be read any more.")
            self._spool.quarantine(entry, report, datetime.now(UTC))
            log.error("job.quarantined", id=entry.id, reason="unreadable")
        return jobs

    def _drop_cancelled(self) -> None:
        """Conclude the queued jobs whose end was asked for, and forget what was asked too late."""
        for job_id in self._controls.cancelled():
            entry = self._spool.find(job_id)
            if entry is None or entry.folder.parent == self._spool.active:
                # On its way into the queue; or its last pictures are being written, and it ends by itself.
                continue
            if entry.folder.parent == self._spool.queue:
                self._waiting.forget(job_id)
                self._endings.cancel(self._spool.take(entry))
            elif entry.is_concluded():
                self._controls.forget_cancel(job_id)

    def _work(self, job: WaitingJob) -> None:
        """Bring one job to its end, or leave it in the queue for later."""
        if job.suspect:
            # Should it take the process down again, no other job may be blamed for it.
            self._saver.wait()
        self._waiting.forget(job.id)
        self._reporter.order_note = self._grouping.note(job, self._at_hand())
        self._last_setup = Setup.of(job)
        try:
            entry = self._spool.take(Entry(self._spool.queue / job.id))
        except FileNotFoundError:
            log.warning("job.vanished", id=job.id)
            return
        with job_log(entry.log_file, entry.id):
            self._draw(entry)
        if job.suspect:
            self._saver.wait()
        self._lifetime.worked()
        self._end_if(self._lifetime.over_between_jobs())

    def _end_if(self, reason: str | None) -> None:
        if reason is None:
            return
        self._saver.wait()
        self._cope_with_unsaved()
        log.info("render.renewed", reason=reason)
        with unwritten_is_logged():
            # Until the next process speaks: this one's model and memory will be gone.
            self._reporter.say(
                RenderReport(activity="starting", note=f"The render process is replaced: {reason}.")
            )
        raise Renewed(reason)

    def _draw(self, entry: Entry) -> None:
        try:
            record = entry.record()
            outcome = self._drawing.draw(entry, record)
            self._troubles = 0
            self._note_memory(outcome.clean_up_after)
            self._saver.do(entry, partial(self._endings.succeed, entry, record.to_do().num_images, outcome))
        except RenderStopped:
            self._stop(entry)
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
            self._cope(entry, _unexpected(error))

    def _note_memory(self, cleaned: CleanUp | None) -> None:
        if cleaned is not None and self._warm.name is not None:
            floor = self._lifetime.left_in_use(self._warm.name, cleaned, self._warm.names)
            self._reporter.memory_was_left(cleaned.left, floor)

    def _stop(self, entry: Entry) -> None:
        if self._controls.is_cancelled(entry.id):
            self._settle(entry)
            self._endings.cancel(entry)
        else:
            self._leave(entry, "interrupted")
            log.info("job.interrupted")

    def _cope_with_unsaved(self) -> None:
        """See to jobs whose pictures could not be written, by a fault of theirs, after they were drawn."""
        while self._saver.failures:
            _, (entry, failure) = self._saver.failures.popitem()
            with job_log(entry.log_file, entry.id):
                log.error("job.broke", exc_info=failure)
                self._cope(entry, _unexpected(failure))

    def _cope(self, entry: Entry, error: RenderError) -> None:
        """Try a failed job again, or give it up: for good where trying again cannot help."""
        self._settle(entry)
        if "" not in entry.attempts().values():
            # It failed before an attempt began, while the model was loaded: uncounted, it would be tried for ever.
            entry.begin_attempt(datetime.now(UTC))
        failures = sum(end == "failed" for end in entry.attempts().values()) + 1
        log.warning("attempt.failed", kind=type(error).__name__, reason=str(error), failures=failures)
        if error.remedy == "retry" and failures < self._attempts:
            self._retries.after(entry.id, failures)
            self._leave(entry, "failed")
            return
        cleaned = None if self._warm.name is None else self._warm.get(self._warm.name).clean_up()
        self._note_memory(cleaned)
        outcome = Outcome(
            status="failed",
            finished_at=datetime.now(UTC),
            images=tuple(entry.finished_images().values()),
            error=ErrorReport.of(error),
            clean_up_after=cleaned,
        )
        self._endings.conclude(entry, outcome)

    def _leave(self, entry: Entry, how: str) -> None:
        """Put a job back into the queue with what it has, for a later attempt."""
        self._settle(entry)
        entry.end_last_attempt(how)
        self._waiting.put_back(self._spool.put_back(entry))

    def _settle(self, entry: Entry) -> None:
        """Wait until nothing of a job is on its way to the disk; what failed there counts no more."""
        self._saver.wait()
        self._saver.failures.pop(entry.id, None)


def _unexpected(error: BaseException) -> UnexpectedFailure:
    return UnexpectedFailure(f"{type(error).__name__}: {error}", "The daemon's log holds the details.")


def _for_later(jobs: Sequence[WaitingJob]) -> list[datetime]:
    """Give the moments for which jobs wait, the nearest first."""
    now = datetime.now(UTC)
    return sorted(job.not_before for job in jobs if job.not_before is not None and job.is_for_later(now))
