"""What systemd is told: ready, what we do, that we are alive, that we stop. Outside systemd it says nothing."""

import os
import time
from collections.abc import Hashable
from typing import Final

from sdnotify import SystemdNotifier

EXTENSION_SECONDS: Final = 120.0
"""How much longer systemd waits for us, after each sign that a model's loading gets on."""


class Systemd:
    """The service's line to systemd."""

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        # Twice within the time that systemd allows, as sd_watchdog_enabled(3) recommends.
        self._interval = float(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
        self._last_beat = 0.0
        self._last_status = ""
        self._last_progress: Hashable = None

    def ready(self) -> None:
        """Say that drops are taken from now on."""
        self._notifier.notify("READY=1")

    def stopping(self) -> None:
        """Say that the daemon is about to end."""
        self._notifier.notify("STOPPING=1")

    def alive(self) -> None:
        """Say that we tick and the render loop keeps its word. Call it often: it is passed on when it is due."""
        if self._interval and time.monotonic() - self._last_beat >= self._interval:
            self._notifier.notify("WATCHDOG=1")
            self._last_beat = time.monotonic()

    def extend(self, progress: Hashable) -> None:
        """Ask systemd to wait longer for a start or a stop, where `progress` is not what it was the last time.

        What does not get on is not waited for longer: the unit's own times count.
        """
        if progress != self._last_progress:
            self._notifier.notify(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1e6:.0f}")
            self._last_progress = progress

    def status(self, sentence: str) -> None:
        """Set what `systemctl status` shows."""
        if sentence != self._last_status:
            self._notifier.notify(f"STATUS={sentence}")
            self._last_status = sentence
