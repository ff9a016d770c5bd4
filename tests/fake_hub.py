"""A hub on this machine: the part of its protocol that huggingface_hub speaks when it fetches a model.

Written down from huggingface_hub 2.4 (`hf_api.py`, `file_download.py`): model info, the tree of a revision, and
files with their commit, hash and ranges. It can break connections, refuse, and hold back what it sends.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT: Final = "f" * 40
BRANCH: Final = "main"


@dataclass
class FakeHub:
    """Serves one folder as `owner/name`."""

    folder: Path
    name: str = "owner/name"
    commit: str = COMMIT
    refuses_with: str | None = None
    """The hub's error code for every request, for example GatedRepo."""
    gated: str | None = None
    """A name for which the hub wants consent first."""
    breaks_in: dict[str, int] = field(default_factory=dict)
    """For files by their paths: how many connections break in the middle of them."""
    sent: list[tuple[str, int]] = field(default_factory=list)
    """What was sent: a path, and at which byte it began."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Files with weights end only when it is set."""
    address: str = ""

    def files(self) -> dict[str, Path]:
        """Give the files by their paths."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.hub = hub


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve for the block; `hub.address` says where."""
    hub.gate.set()
    server = _Server(hub)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.gate.set()
        server.shutdown()
        server.server_close()


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def _hub(self) -> FakeHub:
        return self.server.hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if self._hub.refuses_with is not None:
            self._refuse(403, self._hub.refuses_with)
        elif self._hub.gated is not None and self._hub.gated in path:
            self._refuse(403, "GatedRepo")
        elif path.startswith(f"api/models/{self._hub.name}/revision/"):
            self._describe(path.rpartition("/")[2])
        elif path == f"api/models/{self._hub.name}":
            self._describe(BRANCH)
        elif path.startswith(f"api/models/{self._hub.name}/tree/"):
            self._list()
        elif path.startswith(f"{self._hub.name}/resolve/"):
            _, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._send_file(revision, file)
        else:
            self._refuse(404, "RepoNotFound")

    def _describe(self, revision: str) -> None:
        if revision not in {BRANCH, self._hub.commit}:
            self._refuse(404, "RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in self._hub.files()]
        self._send_json({"id": self._hub.name, "sha": self._hub.commit, "siblings": siblings})

    def _list(self) -> None:
        self._send_json(
            [
                {"type": "file", "oid": _hash_of(path), "size": path.stat().st_size, "path": name}
                for name, path in self._hub.files().items()
            ]
        )

    def _send_file(self, revision: str, name: str) -> None:
        path = self._hub.files().get(name)
        if revision not in {BRANCH, self._hub.commit}:
            self._refuse(404, "RevisionNotFound")
            return
        if path is None:
            self._refuse(404, "EntryNotFound")
            return
        content = path.read_bytes()
        first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self._wants_part() else 0
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", self._hub.commit)
        self.send_header("ETag", f'"{_hash_of(path)}"')
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if self.command == "GET":
            self._hub.sent.append((name, first))
            self._send(name, content[first:])

    def _wants_part(self) -> bool:
        return "Range" in self.headers

    def _send(self, name: str, content: bytes) -> None:
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        if self._hub.breaks_in.get(name, 0) > 0:
            self._hub.breaks_in[name] -= 1
            self.close_connection = True
            return
        if name.endswith(".safetensors"):
            self._hub.gate.wait(60)
        self.wfile.write(content[half:])

    def _send_json(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
