"""What strangers drop, seen from outside a running daemon: its letters, logs and status are harmless to read."""

import json
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from driving import Box, eventually
from qwen_image_daemon.jobs.quoting import is_control

# It would set a terminal's title, turn its colour and direction, and begin another message to systemd.
EVIL = os.fsdecode(b"\x1b]0;owned\x07\xc2\x9b31m\xe2\x80\xae\xff\nSTOPPING=1\n")
WAITS = 'prompt = "x"\nimage = "nothing.png"'
SMALL = "width = 64\nheight = 64\nnum_inference_steps = 2\n"


def is_harmless(text: str) -> bool:
    text.encode()
    return not any(is_control(character) for character in text.replace("\n", ""))


class Systemd:
    """Listens as systemd does: on a socket of datagrams, which holds few of them until they are heard."""

    def __init__(self, place: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(place))
        self._socket.setblocking(False)
        self.messages: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def hear(self) -> list[str]:
        """Give all that was said so far."""
        with suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(65_536).decode())
        return self.messages


@pytest.mark.parametrize("how", ["json", "console"])
def test_nothing_that_strangers_write_steers_who_reads_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    box = Box(tmp_path / "box", LOG__FORMAT=how)
    box._environment["RENDER__DRY_RUN_STEP_SECONDS"] = "0.5"
    box.drop(f"{EVIL}good.toml", f'prompt = "x"\nseed = 1\n{SMALL}')
    box.drop(f"{EVIL}bad.toml", 'promt = "\\u001b[31m\\u0007"\n"\\u001b[2J" = 1\nimage = "\\u202e"')
    box.drop(f"{EVIL}control.json", '{"prompt": "\\u001b[31mred", "name": "a\\nb"}')
    box.drop(f"{EVIL}waits.toml", WAITS)
    # Not in tmp_path: such an address has a hundred characters at most.
    with tempfile.TemporaryDirectory() as folder, Systemd(Path(folder) / "notify") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        with box.running("--dry-run") as daemon:
            eventually(lambda: any("rendering %1B" in said for said in systemd.hear()), "the job to be drawn")
            eventually(lambda: systemd.hear() and len(box.results()) == 3, "the results")
            eventually(lambda: systemd.hear() and box.status().get("waiting"), "the one that waits")
            shown = box.call("status")
            shown_as_json = box.call("status", "--json")
            messages = list(systemd.hear())
            assert daemon.stop() == 0
    assert "waiting" in shown.stdout
    assert is_harmless(shown.stdout + shown.stderr)
    assert is_harmless(shown_as_json.stdout)
    letters = [path.read_text(encoding="utf-8") for path in box.failed.glob("*/ERROR.txt")]
    notes = [path.read_text(encoding="utf-8") for path in box.inbox.glob("*.waiting.txt")]
    assert (len(letters), len(notes)) == (2, 1)
    assert all(map(is_harmless, [*letters, *notes]))
    for path in (*box.outbox.rglob("result.json"), box.outbox / "status.json"):
        assert is_harmless(path.read_text(encoding="utf-8"))
    logs = [path.read_text(encoding="ascii") for path in box.outbox.rglob("job.log")]
    assert len(logs) == 3
    assert all(map(is_harmless, logs))
    written = daemon.log.read_text(encoding="utf-8")
    assert is_harmless(written)
    if how == "json":
        assert written.isascii()
        assert [json.loads(line) for line in written.splitlines()]
    # One line is one thing said: a name with a line end would say another.
    assert all("\n" not in message for message in messages)
    assert {message.partition("=")[0] for message in messages} == {"READY", "STATUS"}
    # What was dropped is given back under names that steer nothing either.
    assert all(is_harmless(path.name) and "\n" not in path.name for path in box.outbox.rglob("*"))
