"""Keeping a daemon up, as systemd would, and killing it, as nobody should."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import psutil

from driving import Box

LOOPS = ("take-in", "render", "give-out")
Kill = Literal["whole", "service", "take-in", "render", "give-out"]


class Keeper:
    """One box's daemon over all its lives. Whenever it has ended, `ensure` starts it again at once."""

    def __init__(
        self,
        box: Box,
        *arguments: str,
        program: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.box = box
        self._environment = {**box.environment(), **(environment or {})}
        command = box.command("run", *arguments)
        # A launcher of ours in the place of `python -m qwen_image_daemon`.
        self._command = command if program is None else [command[0], *program, *command[3:]]
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.exit_codes: list[int] = []

    @property
    def pid(self) -> int:
        """Give the service's process id."""
        assert self._process is not None
        return self._process.pid

    def ensure(self) -> None:
        """Start the daemon where it does not run."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.exit_codes.append(self._process.returncode)
        with (self.box.root / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1

    def kill(self, what: Kill) -> bool:
        """Send SIGKILL, and say whether it met anything."""
        if self._process is None or self._process.poll() is not None:
            return False
        if what == "whole":
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return True
        if what == "service":
            self._process.kill()
            self._process.wait()
            return True
        return self._kill_loop(what)

    def loops(self) -> dict[str, psutil.Process]:
        """Give the processes of the loops by name; those that run."""
        running: dict[str, psutil.Process] = {}
        for name in LOOPS:
            try:
                process = psutil.Process(int((self.box.spool / "state" / f"{name}.lock").read_text()))
                # The number of a dead one may belong to anybody by now.
                if process.ppid() == self.pid:
                    running[name] = process
            except (OSError, ValueError, psutil.Error):
                continue
        return running

    def processes(self) -> dict[str, psutil.Process]:
        """Give the service and its loops by name; those that run."""
        try:
            return {"service": psutil.Process(self.pid), **self.loops()}
        except psutil.NoSuchProcess:
            return {}

    def log(self) -> str:
        """Read the log of all lives. Kills cut lines short, and loops write into each other's: not for parsing."""
        return (self.box.root / "daemon.log").read_text(errors="replace")

    def _kill_loop(self, name: str) -> bool:
        process = self.loops().get(name)
        if process is None:
            return False
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def freeze(self, number: Literal[signal.Signals.SIGSTOP, signal.Signals.SIGCONT]) -> None:
        """Stop all its processes where they are, or let them go on."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def stop(self) -> int | None:
        """Ask the daemon to end, and give its exit code."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill("whole")
        return self._process.returncode

    @contextmanager
    def keeping(self) -> Iterator["Keeper"]:
        """Have it started for the block, and nothing of it after the block."""
        self.ensure()
        try:
            yield self
        finally:
            if self._process is not None:
                self.kill("whole")


def patiently(
    done: Callable[[], bool],
    measure: Callable[[], object],
    keeper: Keeper | None = None,
    *,
    patience: float = 120.0,
    glance: float = 0.05,
) -> bool:
    """Wait until it is done, and keep the daemon up. Gives up when `measure` has stood still for so long."""
    last, since = measure(), time.monotonic()
    while not done():
        if keeper is not None:
            keeper.ensure()
        if (now := measure()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            return False
        time.sleep(glance)
    return True
