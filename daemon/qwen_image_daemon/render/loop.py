"""The render loop: take a job, draw its pictures one by one, finish it. Touches only the spool and the model."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import structlog
from PIL.Image import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.logs import job_log
from qwen_image_daemon.loop_control import GaveUp, LoopControl
from qwen_image_daemon.render.pace import Pace
from qwen_image_daemon.render.renderer import (
    MemoryInfo,
    ModelUnavailable,
    Progress,
    Renderer,
    RenderError,
    RenderRequest,
    RenderStopped,
    UnexpectedFailure,
)
from qwen_image_daemon.render.reporting import Reporter
from qwen_image_daemon.render.saving import Saver, save_image
from qwen_image_daemon.render.sources import load_source
from qwen_image_daemon.render.warm_model import WarmModel
from qwen_image_daemon.settings import OutboxSettings, RenderSettings
from qwen_image_daemon.spool.records import ErrorReport, JobRecord, Outcome
from qwen_image_daemon.spool.reports import RenderReport
from qwen_image_daemon.spool.spool import Entry, Spool
from qwen_image_daemon.spool.waiting import WaitingJobs

log = structlog.get_logger(__name__)

_GLANCE_SECONDS = 0.05
_IDLE_ALLOWANCE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 60.0
_KILLS_BEFORE_QUARANTINE = 2


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
    with Saver() as saver, WarmModel(open_model) as warm:
        loop = _RenderLoop(spool, settings, outbox, warm, saver, control)
        loop.recover()
        loop.run()


class _RenderLoop:
    def __init__(
        self,
        spool: Spool,
        settings: RenderSettings,
        outbox: OutboxSettings,
        warm: WarmModel,
        saver: Saver,
        control: LoopControl,
    ) -> None:
        self._spool = spool
        self._settings = settings
        self._png_compression = outbox.png_compression
        self._warm = warm
        self._saver = saver
        self._control = control
        self._waiting = WaitingJobs(spool)
        self._reporter = Reporter(spool)
        self._pauses = 0

    def run(self) -> None:
        """Take → render → finish, until there is a reason to end."""
        while not self._control.stopping.is_asked():
            self._control.beat(_IDLE_ALLOWANCE_SECONDS)
            try:
                upstream_ended = self._control.no_more()
                record = self._next()
                if record is None:
                    self._saver.wait()
                    if upstream_ended:
                        return
                    self._idle()
                else:
                    self._work(record)
                    self._pauses = 0
            except (OSError, ModelUnavailable) as error:
                # The surroundings: a full disk, a model that is not there. No job's fault, and none is lost.
                self._put_back_all("interrupted")
                self._pause(error)
        self._saver.wait()

    def recover(self) -> None:
        """Settle what a killed process left in `active`: finish what was concluded, queue the rest again."""
        for entry in self._spool.entries(self._spool.active):
            kills = sum(end == "" for end in entry.attempts().values())
            if kills >= _KILLS_BEFORE_QUARANTINE and not entry.is_concluded():
                report = ErrorReport(
                    kind="KilledTheRenderer",
                    what=f"The render process died {kills} times while it worked on this job.",
                    fix="Look into job.log and the daemon's log; a smaller size or fewer steps may need less memory.",
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

    def _next(self) -> JobRecord | None:
        jobs = self._waiting.refresh()
        for entry in self._waiting.unreadable:
            report = ErrorReport(
                kind="UnreadableEntry",
                what="The job's entry in the spool cannot be read any more.",
                fix="Drop the job again; its file is in this folder or in the inbox's .taken folder.",
            )
            self._spool.quarantine(entry, report, datetime.now(UTC))
            log.error("job.quarantined", id=entry.id, reason="unreadable")
        return jobs[0] if jobs else None

    def _idle(self) -> None:
        if self._reporter.report.activity not in {"idle"}:
            self._reporter.say(self._reporter.report.model_copy(update=_IDLE))
        time.sleep(_GLANCE_SECONDS)

    def _pause(self, error: Exception) -> None:
        fix = getattr(error, "fix", "It goes on by itself when the fault is gone.")
        trouble = f"{error} {fix}"
        log.warning("render.troubled", reason=trouble)
        self._reporter.say(RenderReport(activity="troubled", trouble=trouble, model_name=self._warm.name))
        if self._control.drain:
            raise GaveUp(trouble)
        self._pauses += 1
        end = time.monotonic() + min(2.0**self._pauses, _LONGEST_PAUSE_SECONDS)
        while time.monotonic() < end and not self._control.stopping.is_asked():
            self._control.beat(_IDLE_ALLOWANCE_SECONDS)
            time.sleep(_GLANCE_SECONDS)

    def _work(self, record: JobRecord) -> None:
        """Render one job to its end, or leave it in the queue for later."""
        entry = self._spool.take(Entry(self._spool.queue / record.id))
        with job_log(entry.log_file, entry.id):
            try:
                self._render(entry, record, record.to_do())
            except RenderStopped:
                self._leave(entry, "interrupted")
                log.info("job.interrupted", finished_images=len(entry.finished_images()))
            except RenderError as error:
                if error.remedy in {"surroundings", "replace"}:
                    raise
                self._cope(entry, error)
            except OSError:
                raise
            except Exception as error:
                log.exception("job.broke")
                self._cope(
                    entry,
                    UnexpectedFailure(f"{type(error).__name__}: {error}", "The daemon's log holds the details."),
                )

    def _render(self, entry: Entry, record: JobRecord, parameters: EffectiveParameters) -> None:
        load_started = time.monotonic()
        renderer = self._loaded(parameters.model)
        load_seconds = time.monotonic() - load_started
        entry.begin_attempt(datetime.now(UTC))
        memory_before = renderer.clean_up()
        log.info("job.started", name=record.name, images=parameters.num_images, model=parameters.model)
        source, adjustments = _source(entry, parameters)
        finished = entry.finished_images()
        pace = Pace(entry.id, record.name, parameters, done=len(finished), started_at=datetime.now(UTC))
        self._reporter.say(self._rendering(renderer, memory_before))
        for index in range(parameters.num_images):
            if index in finished:
                continue
            if self._control.stopping.is_asked():
                raise RenderStopped
            request = RenderRequest(
                task=parameters.task,
                prompt=parameters.prompt,
                negative_prompt=parameters.negative_prompt,
                true_cfg_scale=parameters.true_cfg_scale,
                num_inference_steps=parameters.num_inference_steps,
                width=parameters.width,
                height=parameters.height,
                seed=parameters.seed + index,
                source=source,
                strength=parameters.strength,
            )
            rendering = renderer.render(request, self._progress(pace, index))
            pace.image_done()
            self._saver.do(partial(save_image, entry, index, rendering, parameters, self._png_compression))
            log.info("image.rendered", index=index, seed=request.seed, **rendering.seconds.model_dump())
        memory_after = renderer.clean_up()
        outcome = Outcome(
            status="succeeded",
            finished_at=datetime.now(UTC),
            load_seconds=round(load_seconds, 4),
            adjustments=adjustments,
            model=renderer.info,
            memory_before=memory_before,
            memory_after=memory_after,
        )
        self._saver.do(partial(self._finish, entry, parameters, outcome))

    def _loaded(self, model: str) -> Renderer:
        if self._warm.name == model:
            return self._warm.get(model)
        self._reporter.say(RenderReport(activity="loading", model_name=model))
        self._control.beat(self._settings.load_timeout_seconds)
        log.info("model.loading", model=model)
        renderer = self._warm.get(model)
        info = renderer.info
        log.info(
            "model.loaded", model=model, device=info.device, precision=info.precision, seconds=info.load_seconds
        )
        return renderer

    def _rendering(self, renderer: Renderer, memory: MemoryInfo) -> RenderReport:
        return RenderReport(activity="rendering", model_name=self._warm.name, model=renderer.info, memory=memory)

    def _progress(self, pace: Pace, index: int) -> Callable[[Progress], None]:
        def note(progress: Progress) -> None:
            self._control.beat(self._settings.step_timeout_seconds)
            self._reporter.say_current(pace.at(index, progress))
            if self._control.stopping.is_urgent():
                raise RenderStopped

        return note

    def _finish(self, entry: Entry, parameters: EffectiveParameters, outcome: Outcome) -> None:
        """Conclude a job whose pictures are all on the disk. Runs in the saver's thread, after they were written."""
        images = entry.finished_images()
        if len(images) < parameters.num_images:
            # A write failed; the render thread hears of it, and puts the job back.
            return
        ordered = tuple(images[index] for index in sorted(images))
        self._conclude(entry, outcome.model_copy(update={"images": ordered}))

    def _conclude(self, entry: Entry, outcome: Outcome) -> None:
        complete = outcome.model_copy(
            update={
                "attempts": len(entry.attempts()),
                "started_at": entry.first_attempt_at(),
                "finished_at": datetime.now(UTC),
            }
        )
        with job_log(entry.log_file, entry.id):
            log.info(f"job.{outcome.status}", images=len(outcome.images), attempts=complete.attempts)
        self._spool.finish(entry, complete)

    def _cope(self, entry: Entry, error: RenderError) -> None:
        """Try a failed job again, or give it up: for good where trying again cannot help."""
        self._saver.wait()
        failures = sum(end == "failed" for end in entry.attempts().values()) + 1
        log.warning("attempt.failed", kind=type(error).__name__, reason=str(error), failures=failures)
        if error.remedy == "retry" and failures < self._settings.attempts:
            self._leave(entry, "failed")
            return
        if self._warm.name is not None:
            self._warm.get(self._warm.name).clean_up()
        images = tuple(entry.finished_images().values())
        outcome = Outcome(
            status="failed", finished_at=datetime.now(UTC), images=images, error=ErrorReport.of(error)
        )
        self._conclude(entry, outcome)

    def _leave(self, entry: Entry, how: str) -> None:
        """Put a job back into the queue with what it has, for a later attempt."""
        self._saver.wait()
        entry.end_last_attempt(how)
        self._spool.put_back(entry)


def _source(entry: Entry, parameters: EffectiveParameters) -> tuple[Image | None, tuple[str, ...]]:
    if parameters.image is None:
        return None, ()
    return load_source(entry.input_path(parameters.image), Size(parameters.width, parameters.height))


_IDLE = {"activity": "idle", "current": None, "trouble": None}
