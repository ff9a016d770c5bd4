"""Drawing one job: model, source, picture after picture. Pictures go to the saver, how it went to the caller."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from qwen_image_daemon.crash_points import crash_point
from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.jobs.resolution import adjustments_of
from qwen_image_daemon.render.deadline import Deadline
from qwen_image_daemon.render.interruptions import Interruptions
from qwen_image_daemon.render.job_pictures import PreparedJob, prepared
from qwen_image_daemon.render.pace import Pace
from qwen_image_daemon.render.renderer import Loading, Progress, Renderer
from qwen_image_daemon.render.reporting import Reporter
from qwen_image_daemon.render.saving import Saver
from qwen_image_daemon.render.schedule import steps_that_run
from qwen_image_daemon.render.trial_pictures import warm_up_request
from qwen_image_daemon.render.warm_models import WarmModels
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import JobRecord, Outcome
from qwen_image_daemon.spool.reports import LoadingModel, RenderReport

log = structlog.get_logger(__name__)


class JobDrawing:
    """Draws jobs on the warm model, and says how far it is."""

    def __init__(self, warm: WarmModels, saver: Saver, reporter: Reporter, interruptions: Interruptions) -> None:
        self._warm = warm
        self._saver = saver
        self._reporter = reporter
        self._interruptions = interruptions

    def draw(self, entry: Entry, record: JobRecord) -> Outcome:
        """Draw the pictures of a job that are not finished yet, and hand each to the saver.

        Gives the outcome but for what the saver still has to write. Raises RenderStopped where a stop, a pause
        or the job's end is asked, RenderError, or OSError.
        """
        parameters = record.to_do()
        waited_since = time.monotonic()
        renderer = self._loaded(parameters.model)
        load_seconds = time.monotonic() - waited_since
        self._interruptions.at_start()
        entry.begin_attempt(datetime.now(UTC))
        before = renderer.clean_up()
        log.info("job.started", name=record.name, images=parameters.num_images, model=parameters.model)
        self._reporter.say(
            RenderReport(activity="rendering", model_name=self._warm.name, model=renderer.info, memory=before.left)
        )
        job = prepared(parameters, renderer.info.family, entry.input_path)
        self._draw_missing(renderer, entry, record, job)
        after = renderer.clean_up()
        return Outcome(
            status="succeeded",
            finished_at=datetime.now(UTC),
            load_seconds=round(load_seconds, 4),
            adjustments=(*_wishes(record), *job.notes),
            model=renderer.info,
            memory_before=before.left,
            memory_after=after.left,
            clean_up_before=before,
            clean_up_after=after,
        )

    def warm_up(self, model: str) -> None:
        """Load a model, and draw a short picture for nobody, so that its first job finds all at hand.

        Raises RenderStopped where a stop or a pause is asked, or RenderError.
        """
        started = time.monotonic()
        renderer = self._loaded(model)
        self._interruptions.at_step_of_nobody()
        request = warm_up_request(FAMILIES[renderer.info.family])
        renderer.render(request, lambda _: self._interruptions.at_step_of_nobody())
        cleaned = renderer.clean_up()
        seconds = round(time.monotonic() - started, 1)
        log.info("model.warmed_up", model=model, seconds=seconds, width=request.width, height=request.height)
        # The loop finds nothing to do, or a job, and says so.
        self._reporter.report = self._reporter.report.model_copy(
            update={"model": renderer.info, "memory": cleaned.left}
        )

    def _draw_missing(self, renderer: Renderer, entry: Entry, record: JobRecord, job: PreparedJob) -> None:
        parameters = record.to_do()
        there = entry.finished_images()
        pace = Pace(record, parameters.num_images - len(there), steps_that_run(job.request), datetime.now(UTC))
        deadline = Deadline(record.timeout_seconds)
        for index in range(parameters.num_images):
            if index in there:
                continue
            self._interruptions.at_image()
            request = replace(job.request, seed=parameters.seed + index)
            rendering = renderer.render(request, self._progress(entry, pace, deadline, index))
            crash_point("render.image-drawn")
            pace.image_done()
            finished = replace(rendering, image=job.finished(rendering.image))
            self._saver.save(entry, index, finished, parameters)
            log.info("image.rendered", index=index, seed=request.seed, **rendering.seconds.model_dump())

    def _loaded(self, model: str) -> Renderer:
        if model in self._warm.names:
            # It comes onto the device with its first picture.
            return self._warm.get(model)
        self._reporter.say(RenderReport(activity="loading", model_name=model))
        self._interruptions.at_load()
        log.info("model.loading", model=model)
        renderer = self._warm.get(model, self._loading(model))
        log.info("model.loaded", model=model, **renderer.info.model_dump(exclude={"versions"}))
        return renderer

    def _loading(self, model: str) -> Callable[[Loading], None]:
        began_at = datetime.now(UTC)

        def tell(loading: Loading) -> None:
            self._interruptions.at_load()
            self._reporter.say_loading(
                LoadingModel(
                    name=model,
                    stage=loading.stage,
                    part=loading.part,
                    done_bytes=loading.done_bytes,
                    total_bytes=loading.total_bytes,
                    began_at=began_at,
                )
            )

        return tell

    def _progress(self, entry: Entry, pace: Pace, deadline: Deadline, index: int) -> Callable[[Progress], None]:
        def note(progress: Progress) -> None:
            self._reporter.say_current(pace.at(index, progress))
            self._interruptions.at_step(entry.id, progress)
            deadline.check()

        return note


def _wishes(record: JobRecord) -> tuple[str, ...]:
    return () if record.requested is None else adjustments_of(record.requested, record.to_do())
