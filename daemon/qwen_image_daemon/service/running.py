"""A loop that runs: in a process of its own, or in a thread.

The service sees no difference but one: threads cannot be killed, so their death is the daemon's.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import ClassVar, Final, Literal, Protocol

import structlog

from qwen_image_daemon.logs import configure_logs
from qwen_image_daemon.loop_control import GLANCE_SECONDS, GaveUp, LoopControl, Renewed, Stopping
from qwen_image_daemon.service.loops import LoopName, Options, run_loop
from qwen_image_daemon.settings import Settings
from qwen_image_daemon.spool.locks import Held, lock
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

GAVE_UP = 3
"""Exit code of a loop that drains and cannot go on."""
RENEWED = 4
"""Exit code of a loop that asks to be started anew."""
_START_ALLOWANCE_SECONDS = 120.0
_LAST_WAIT_SECONDS: Final = 1.0

_spawning = multiprocessing.get_context("spawn")

State = Literal["running", "ended", "gave up", "renewed", "died"]


class RunningLoop(Protocol):
    """One loop, as the service sees it."""

    name: LoopName
    replaceable: bool

    def state(self) -> State:
        """Say whether it runs, and if not, how it ended."""
        ...

    def overdue(self) -> bool:
        """Say whether it has not given a sign of life for longer than it announced."""
        ...

    def silent_seconds(self) -> float:
        """Give the time within which it last announced to give the next sign of life."""
        ...

    def signs_of_life(self) -> int:
        """Count the signs of life that it gave since it was started."""
        ...

    def ask_to_stop(self) -> None:
        """Ask it to end; a second time: at the next step."""
        ...

    def let_end(self) -> None:
        """Tell it that the room upstream has ended: drain what is there, then end."""
        ...

    def kill(self) -> None:
        """End it as a power cut would, and wait for nothing: `state` tells when it is gone."""
        ...

    def describe_death(self) -> str:
        """Say how it died, for the log."""
        ...


class _Line(ctypes.Structure):
    """Memory that the service and one loop share. Each field is written by one of them, in one piece.

    Without a lock on purpose: one that a killed process held would never be free again.
    """

    _fields_: ClassVar = [
        ("deadline", ctypes.c_double),
        ("allowance", ctypes.c_double),
        ("signs", ctypes.c_ulong),
        ("no_more", ctypes.c_bool),
    ]

    deadline: float
    allowance: float
    signs: int
    no_more: bool

    def announce(self, allowance_seconds: float) -> None:
        """Promise the next sign of life within so many seconds."""
        self.allowance = allowance_seconds
        self.deadline = time.monotonic() + allowance_seconds


class _Child(SpawnProcess):
    """A child that its parent's exit does not wait for.

    Python joins all children at its exit, for as long as it takes: for ever, where one waits for a dead server.
    """

    def join(self, timeout: float | None = _LAST_WAIT_SECONDS) -> None:
        """Wait for the end of the process, but not long."""
        super().join(timeout)


class LoopProcess:
    """A loop in a process of its own. Dies with the service, whatever kills that."""

    replaceable = True

    def __init__(self, name: LoopName, settings: Settings, options: Options) -> None:
        self.name: LoopName = name
        self._line: _Line = _spawning.RawValue(_Line)
        self._line.announce(_START_ALLOWANCE_SECONDS)
        self._process = _Child(
            target=_run_in_process,
            args=(name, settings.model_dump_json(), options, self._line),
            name=f"qwen-image-daemon {name}",
        )
        self._process.start()

    def state(self) -> State:
        """Say whether it runs, and if not, how it ended."""
        match self._process.exitcode:
            case None:
                return "running"
            case 0:
                return "ended"
            case code:
                return "gave up" if code == GAVE_UP else "renewed" if code == RENEWED else "died"

    def overdue(self) -> bool:
        """Say whether it broke its word to give a sign of life."""
        return time.monotonic() > self._line.deadline

    def silent_seconds(self) -> float:
        """Give the time within which it announced a sign of life."""
        return self._line.allowance

    def signs_of_life(self) -> int:
        """Count its signs of life."""
        return self._line.signs

    def ask_to_stop(self) -> None:
        """Ask it to end; a second time: at the next step."""
        if self._process.pid is not None and self._process.exitcode is None:
            os.kill(self._process.pid, signal.SIGTERM)

    def let_end(self) -> None:
        """Tell it that the room upstream has ended."""
        self._line.no_more = True

    def kill(self) -> None:
        """End it, and wait for nothing."""
        self._process.kill()

    def describe_death(self) -> str:
        """Say how it died."""
        code = self._process.exitcode
        return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _run_in_process(
    name: LoopName,
    settings_json: str,
    options: Options,
    line: _Line,
) -> None:
    stopping = Stopping()
    # Ctrl-C reaches the whole terminal group; only the service decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopping.ask())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    settings = Settings.model_validate_json(settings_json)
    configure_logs(settings.log, loop=name)

    def beat(allowance_seconds: float) -> None:
        line.announce(allowance_seconds)
        line.signs += 1

    control = LoopControl(
        stopping=stopping,
        beat=beat,
        no_more=lambda: line.no_more,
        drain=options.once,
        share_timeout_seconds=settings.service.share_timeout_seconds,
    )
    spool = Spool(settings.folders.spool)
    if not _predecessor_is_gone(spool, name, stopping):
        return
    with lock(_lock_file(spool, name)):
        try:
            run_loop(name, settings, options, control)
        except GaveUp as reason:
            log.error("loop.gave_up", reason=str(reason))  # noqa: TRY400  the reason says it all
            raise SystemExit(GAVE_UP) from None
        except Renewed:
            raise SystemExit(RENEWED) from None


def _lock_file(spool: Spool, name: LoopName) -> Path:
    return spool.state / f"{name}.lock"


def _predecessor_is_gone(spool: Spool, name: LoopName, stopping: Stopping) -> bool:
    """Wait until the same loop of a killed service is gone: two would do the same job twice.

    One that waits for a dead file server takes as long as that; the service then takes us for hung, and says so.
    """
    while not stopping.is_asked():
        try:
            with lock(_lock_file(spool, name)):
                return True
        except Held:
            time.sleep(GLANCE_SECONDS)
    return False


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        # Every step is safe against a kill; there is nothing to tidy, and nobody left to tell.
        os._exit(1)


class LoopThread:
    """A loop in a thread of the service's own process, for tests and debugging."""

    replaceable = False

    def __init__(self, name: LoopName, settings: Settings, options: Options) -> None:
        self.name: LoopName = name
        self._stopping = Stopping()
        self._no_more = threading.Event()
        self._line = _Line()
        self._line.announce(_START_ALLOWANCE_SECONDS)
        self._state: State = "running"
        self._death = ""
        self._thread = threading.Thread(target=self._run, args=(settings, options), name=name, daemon=True)
        self._thread.start()

    def _run(self, settings: Settings, options: Options) -> None:
        control = LoopControl(
            stopping=self._stopping,
            beat=self._beat,
            no_more=self._no_more.is_set,
            drain=options.once,
            share_timeout_seconds=settings.service.share_timeout_seconds,
        )
        structlog.contextvars.bind_contextvars(loop=self.name)
        how: State = "died"
        try:
            run_loop(self.name, settings, options, control)
            how = "ended"
        except GaveUp as reason:
            log.error("loop.gave_up", reason=str(reason))  # noqa: TRY400  the reason says it all
            how = "gave up"
        except Renewed:
            how = "renewed"
        finally:
            self._state = how

    def _beat(self, allowance_seconds: float) -> None:
        self._line.announce(allowance_seconds)
        self._line.signs += 1

    def state(self) -> State:
        """Say whether it runs, and if not, how it ended."""
        return self._state

    def overdue(self) -> bool:
        """Say whether it broke its word to give a sign of life."""
        return time.monotonic() > self._line.deadline

    def silent_seconds(self) -> float:
        """Give the time within which it announced a sign of life."""
        return self._line.allowance

    def signs_of_life(self) -> int:
        """Count its signs of life."""
        return self._line.signs

    def ask_to_stop(self) -> None:
        """Ask it to end; a second time: at the next step."""
        self._stopping.ask()

    def let_end(self) -> None:
        """Tell it that the room upstream has ended."""
        self._no_more.set()

    def kill(self) -> None:
        """Do nothing: a thread cannot be killed. It dies with the process, which the service then ends."""

    def describe_death(self) -> str:
        """Say how it died."""
        return "an exception; its traceback is in the log"
