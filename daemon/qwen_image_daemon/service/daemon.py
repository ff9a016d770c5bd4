"""The daemon: starts the three loops, watches them, passes on signals, and ends them in the order of the flow."""

import signal
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import get_args

import structlog

from qwen_image_daemon.loop_control import Stopping
from qwen_image_daemon.outbox.status import DaemonState, DaemonStatus
from qwen_image_daemon.service.board import Board, summary
from qwen_image_daemon.service.keeping import KeptLoop
from qwen_image_daemon.service.loops import LoopName, Options
from qwen_image_daemon.service.notifying import Systemd
from qwen_image_daemon.service.preparation import Unready, check_ready
from qwen_image_daemon.service.running import LoopProcess, LoopThread, RunningLoop
from qwen_image_daemon.settings import Settings
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.locks import Held, lock
from qwen_image_daemon.spool.records import OutcomeStatus
from qwen_image_daemon.spool.reports import (
    RENDER_DEATH,
    RENDER_REPORT,
    RenderDeath,
    RenderReport,
    unwritten_is_logged,
)
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

SUCCEEDED, SOME_FAILED, BROKEN = 0, 1, 70
"""Exit codes. 70 is EX_SOFTWARE of sysexits.h: a loop could not be kept alive."""

_TICK_SECONDS = 0.1
_BOARD_SECONDS = 0.5
_LAST_PUBLISH_SECONDS = 20.0
"""How long a stop waits for a slow share to take what is rendered; it stays in the spool otherwise."""


def serve(settings: Settings, options: Options) -> int:
    """Run the daemon to its end, and give its exit code. Raises Unready where it cannot begin."""
    check_ready(settings, dry_run=options.dry_run)
    spool = Spool(settings.folders.spool)
    try:
        spool.prepare()
    except OSError as error:
        raise Unready(f"{error}. The spool must exist and be writable for this user.") from None
    try:
        with lock(spool.lock_file):
            return _Daemon(settings, options, spool).run()
    except Held as holder:
        raise Unready(
            f"Another daemon (process {holder}) works on {spool.root} already. Stop it, or use another --root."
        ) from None


class _Daemon:
    def __init__(self, settings: Settings, options: Options, spool: Spool) -> None:
        self._settings = settings
        self._options = options
        self._spool = spool
        self._stopping = Stopping()
        self._stops_passed_on = 0
        self._publish_until: float | None = None
        self._started: set[LoopName] = set()
        self._board = Board(spool)
        self._systemd = Systemd()
        self._failed_before = self._failed()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Before any loop starts: a stop that comes early is a stop like any other.
            signal.signal(number, self._on_signal)
        self._take_in, self._render, self._give_out = self._loops = [
            KeptLoop(name, self._start, self._put_down_death) for name in get_args(LoopName)
        ]

    def run(self) -> int:
        """Watch the loops until all have ended, and give the exit code."""
        folders = self._settings.folders
        log.info("daemon.started", inbox=str(folders.inbox), outbox=str(folders.outbox), spool=str(folders.spool))
        self._board.update("starting", ())
        self._systemd.ready()
        broken = self._watch()
        self._systemd.stopping()
        status = self._board.update("broken" if broken else "stopped", broken)
        for loop in self._loops:
            loop.running.kill()
        log.info("daemon.ended", **status.counts.model_dump(), broken=broken)
        if broken:
            return BROKEN
        return self._verdict(status) if self._options.once else SUCCEEDED

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.ask()

    def _start(self, name: LoopName) -> RunningLoop:
        kind = LoopThread if self._options.inline else LoopProcess
        options = replace(self._options, started_before=name in self._started)
        self._started.add(name)
        return kind(name, self._settings, options)

    def _watch(self) -> tuple[str, ...]:
        """Keep the loops alive until all have ended. Gives the reasons where one could not be kept."""
        next_look = 0.0
        while not all(loop.over for loop in self._loops):
            self._pass_on_stops()
            progress = self._progress()
            reasons = [loop.keep(progress, stopping=self._stopping.is_asked()) for loop in self._loops]
            if any(reasons):
                return tuple(filter(None, reasons))
            if self._options.once:
                for loop in self._loops:
                    loop.abandon_hung()
            self._end_in_order()
            if time.monotonic() >= next_look and not self._render.over:
                next_look = time.monotonic() + _BOARD_SECONDS
                self._tell_systemd(self._board.update(self._state(), self._troubles()))
            if self._render.healthy:
                # Of the two loops on shares only the status tells: restarting us brings no file server back.
                self._systemd.alive()
            time.sleep(_TICK_SECONDS)
        return ()

    def _tell_systemd(self, status: DaemonStatus) -> None:
        self._systemd.status(summary(status))
        if status.loading is not None:
            self._systemd.extend(status.loading)

    def _pass_on_stops(self) -> None:
        asked = int(self._stopping.is_asked()) + int(self._stopping.is_urgent())
        while self._stops_passed_on < asked:
            self._stops_passed_on += 1
            log.info("daemon.stopping", urgent=self._stops_passed_on > 1)
            self._systemd.stopping()
            self._take_in.ask_to_stop()
            self._render.ask_to_stop()

    def _end_in_order(self) -> None:
        """Let each loop end when the one before it has: first take in, then render, then give out."""
        if self._take_in.over:
            self._render.running.let_end()
        if not (self._take_in.over and self._render.over):
            return
        if not self._spool.entries(self._spool.rendered):
            # Counted and written before the last carrying, so that the outbox keeps the final state.
            self._board.update("stopped", self._troubles())
            self._give_out.running.let_end()
        if self._stopping.is_asked():
            self._publish_until = self._publish_until or time.monotonic() + _LAST_PUBLISH_SECONDS
            if self._stopping.is_urgent() or time.monotonic() > self._publish_until:
                self._give_out.ask_to_stop()

    def _state(self) -> DaemonState | None:
        if self._stopping.is_asked():
            return "stopping"
        return None if self._render.healthy else "troubled"

    def _troubles(self) -> tuple[str, ...]:
        return tuple(filter(None, (loop.trouble for loop in self._loops)))

    def _put_down_death(self, name: LoopName, how: str, silent_seconds: float | None) -> None:
        """Leave the next render process word of how the last one died, while it is known."""
        if name != "render":
            return
        try:
            report = RenderReport.model_validate_json((self._spool.state / RENDER_REPORT).read_bytes())
        except (OSError, ValueError):
            report = None
        death = RenderDeath(how=how, died_at=datetime.now(UTC), silent_seconds=silent_seconds, last_report=report)
        with unwritten_is_logged():
            replace_content(self._spool.state / RENDER_DEATH, death.to_bytes())

    def _progress(self) -> tuple[int, ...]:
        """Give a value that changes whenever a job gets on."""
        shelves = (self._spool.shelf(status) for status in get_args(OutcomeStatus))
        return tuple(folder.stat().st_mtime_ns for folder in (self._spool.rendered, *shelves))

    def _failed(self) -> set[str]:
        shelves = (self._spool.shelf("failed"), self._spool.shelf("refused"))
        return {entry.id for shelf in shelves for entry in self._spool.entries(shelf)}

    def _verdict(self, status: DaemonStatus) -> int:
        gave_up = any(loop.gave_up for loop in self._loops)
        left = status.counts.queued + status.counts.rendered + status.counts.waiting
        return SOME_FAILED if gave_up or left or self._failed() - self._failed_before else SUCCEEDED
