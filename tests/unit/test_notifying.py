"""What systemd hears from us, over its socket."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qwen_image_daemon.service.notifying import Systemd

Heard = Callable[[], list[str]]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Give what gives all messages since the last look."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def messages() -> list[str]:
            found = []
            try:
                while True:
                    found.append(listening.recv(4096).decode())
            except BlockingIOError:
                return found

        yield messages


def test_systemd_waits_longer_as_long_as_loading_gets_on(heard: Heard) -> None:
    systemd = Systemd()
    with closing(systemd._notifier.socket):
        for progress in (1, 1, 2, 2, 2):
            systemd.extend(progress)

    assert heard() == ["EXTEND_TIMEOUT_USEC=120000000"] * 2


def test_a_status_is_said_once(heard: Heard) -> None:
    systemd = Systemd()
    with closing(systemd._notifier.socket):
        for sentence in ("idle", "idle", "fetching tiny from the hub, 0.10 of 0.20 GB (50 %)"):
            systemd.status(sentence)

    assert heard() == ["STATUS=idle", "STATUS=fetching tiny from the hub, 0.10 of 0.20 GB (50 %)"]
