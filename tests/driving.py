"""The daemon from outside: real processes, folders, signals. What a person does, as a test can say it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from example_catalogue import CONTROLNETS, LORAS, MODELS
from qwen_image_daemon.outbox.results import JobResult

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""Longer than anything takes on a busy machine of two cores; a test that waits so long has failed."""


def eventually(look: Callable[[], T | None], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """Look again and again until there is something to see."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"{what}: not seen within {patience:.0f} s")


class Box:
    """A render box: one root folder with inbox, spool and outbox."""

    def __init__(self, root: Path, *, settle_seconds: float = 0.3, **settings: str) -> None:
        self.root = root
        self.inbox, self.spool, self.outbox = (root / name for name in ("inbox", "spool", "outbox"))
        self.failed = self.outbox / "failed"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "INBOX__SETTLE_SECONDS": str(settle_seconds),
            "INBOX__RESCAN_SECONDS": "1",
            "LOG__FORMAT": "json",
        } | settings

    def use_model(self, checkpoint: Path) -> None:
        """Make a checkpoint of the demo family the default model."""
        self._environment |= {
            "MODELS": json.dumps({"tiny": {"family": "demo", "source": str(checkpoint)}}),
            "DEFAULT_MODEL": "tiny",
            "RENDER__PRECISIONS": '["float32"]',
        }

    def use_everything(self) -> None:
        """Have a model for every task, LoRAs and ControlNets, in name: for dry runs."""
        loras = self.root / "loras"
        loras.mkdir()
        for name in LORAS:
            (loras / f"{name}.safetensors").write_bytes(b"")
        lightning = LORAS["lightning"]
        self._environment |= {
            "MODELS": json.dumps({name: {"family": name, "source": f"Qwen/{name}"} for name in MODELS}),
            "LORAS": json.dumps(
                {
                    "lightning": {
                        "file": "lightning.safetensors",
                        "family": lightning.family,
                        "distilled_steps": lightning.distilled_steps,
                    }
                }
            ),
            "CONTROLNETS": json.dumps(
                {
                    name: {"family": net.family, "kind": net.kind, "source": f"Qwen/{name}"}
                    for name, net in CONTROLNETS.items()
                }
            ),
        }

    def command(self, *arguments: str) -> list[str]:
        """Give a command line of the daemon for this box."""
        return [sys.executable, "-m", "qwen_image_daemon", *arguments, "--root", str(self.root)]

    def environment(self) -> dict[str, str]:
        """Give the environment that holds this box's settings."""
        ours = {f"QWEN_IMAGE_DAEMON_{key}": value for key, value in self._environment.items()}
        return {**os.environ, **ours, "PYTHONUNBUFFERED": "1"}

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the daemon to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator["Daemon"]:
        """Run the daemon for the block; it is killed at the end if it still runs."""
        with (self.root / "daemon.log").open("ab") as log:
            process = subprocess.Popen(
                self.command("run", *arguments), env=self.environment(), stdout=log, stderr=log
            )
        try:
            yield Daemon(process, self.root / "daemon.log")
        finally:
            process.kill()
            process.wait()

    def drop(self, name: str, content: str | bytes) -> Path:
        """Copy a file into the inbox as `cp` does: under its final name."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def move_in(self, name: str, content: str | bytes) -> Path:
        """Rename a whole file into the inbox as `mv` does."""
        outside = self.root / f"outside-{name}"
        outside.write_bytes(content.encode() if isinstance(content, str) else content)
        return outside.rename(self.inbox / name)

    def results(self) -> list[JobResult]:
        """Read every result that is out, in the order of the ids, which is the order of arrival."""
        found = (read_result(path.parent) for path in self.outbox.glob("[!.]*/**/result.json"))
        return sorted(found, key=lambda result: result.id)

    def folder_of(self, result: JobResult) -> Path:
        """Give the folder that a result lies in."""
        return next(path.parent for path in self.outbox.glob(f"[!.]*/**/*{result.id}/result.json"))

    def result(self, name: str) -> JobResult:
        """Wait for the result of a job."""

        def look() -> JobResult | None:
            return next((result for result in self.results() if result.name == name), None)

        return eventually(look, f"the result of {name}")

    def status(self) -> dict[str, Any]:
        """Read the status in the outbox; empty where there is none yet."""
        path = self.outbox / "status.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def wait_for_state(self, state: str) -> dict[str, Any]:
        """Wait until the status in the outbox shows a state."""
        return eventually(lambda: self.status() if self.status().get("state") == state else None, f"state {state}")

    def wait_for_count(self, name: str, number: int) -> dict[str, Any]:
        """Wait until the status in the outbox counts so many jobs somewhere."""

        def look() -> dict[str, Any] | None:
            return self.status() if self.status().get("counts", {}).get(name) == number else None

        return eventually(look, f"{number} {name}")

    def leftovers(self) -> list[str]:
        """List what is still on its way: nothing, when all is done."""
        states = ("tmp", "incoming", "queue", "active", "rendered")
        inside = [f"{state}/{path.name}" for state in states for path in (self.spool / state).iterdir()]
        half_built = [path.name for path in self.outbox.glob(".tmp-*")]
        claims = [path.name for path in (self.inbox / ".claims").iterdir()]
        return inside + half_built + claims


class Daemon:
    """A daemon that was started."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service process."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop, and give its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def children(self) -> dict[str, int]:
        """Give the process ids of the loops by name, as they say them in the lock files' folder."""
        return {path.stem: int(path.read_text() or 0) for path in self._locks()}

    def _locks(self) -> list[Path]:
        return sorted((self.log.parent / "spool" / "state").glob("*-*.lock")) + sorted(
            (self.log.parent / "spool" / "state").glob("render.lock")
        )

    def events(self) -> list[dict[str, Any]]:
        """Read the log lines so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def read_result(folder: Path) -> JobResult:
    """Read a result as its consumers do: strictly."""
    return JobResult.model_validate_json((folder / "result.json").read_bytes())


def files_of(folder: Path) -> set[str]:
    """Give the relative paths of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
