"""Tells the service what the render loop does, through `spool/state/`."""

import time

from qwen_image_daemon.render.renderer import MemoryInfo
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.reports import (
    RENDER_REPORT,
    CurrentJob,
    LoadingModel,
    MemoryFloor,
    RenderReport,
)
from qwen_image_daemon.spool.spool import Spool

_SECONDS_BETWEEN_REPORTS = 0.25


class Reporter:
    """Writes the report, not more often than anyone looks."""

    def __init__(self, spool: Spool) -> None:
        self._path = spool.state / RENDER_REPORT
        self._last = 0.0
        self.report = RenderReport(activity="starting")
        self.order_note: str | None = None
        """Why the job that is drawn goes before another."""
        self._memory_floor: MemoryFloor | None = None

    def say(self, report: RenderReport) -> None:
        """Write a report now. While a job is drawn it says why it is that one, where it is not the oldest."""
        if report.activity in {"loading", "rendering"} and report.note is None:
            report = report.model_copy(update={"note": self.order_note})
        report = report.model_copy(update={"memory_floor": self._memory_floor})
        self.report = report
        self._last = time.monotonic()
        replace_content(self._path, report.to_bytes())

    def memory_was_left(self, left: MemoryInfo, floor: MemoryFloor) -> None:
        """Have the next report tell what a job left in use. It comes at once: with the next job, or the idling."""
        self._memory_floor = floor
        self.report = self.report.model_copy(update={"memory": left})

    def say_current(self, current: CurrentJob) -> None:
        """Write how far the current job is, if the last report is old enough."""
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_REPORTS:
            self.say(self.report.model_copy(update={"current": current, "loading": None}))

    def say_loading(self, loading: LoadingModel) -> None:
        """Write how far the loading of a model is. Its teller sees to that it is not too often."""
        self.say(self.report.model_copy(update={"loading": loading}))
