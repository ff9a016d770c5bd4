"""The clients that people really use: each delivers jobs with a picture, in both orders."""

import hashlib
import io
import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from driving import Box
from torture import samba_server, ssh_server
from torture.drops import SIZE
from torture.keeper import Keeper, patiently
from torture.ledger import Dropped, Ledger
from torture.mounts import lacking_tools
from torture.samba_server import PASSWORD, SHARE, USER, SambaServer
from torture.ssh_server import SshServer
from torture.table import Row
from torture.watcher import Watcher

TOOLS = (*samba_server.TOOLS, *ssh_server.TOOLS, "rsync", "scp", "sftp")
SLOW_PIECES = 8
SLOW_PAUSE_SECONDS = 0.3

Deliver = Callable[[Path, str], object]
"""Brings a file into the inbox under a name."""


def deliver_by_clients(where: Path, *, jobs: int = 6, settle_seconds: float = 1.0) -> Row:
    """Let each client deliver so many jobs, each with a picture, every other one the picture first."""
    if reason := lacking_tools(*TOOLS) or ("" if os.geteuid() == 0 else "needs root, for servers of its own"):
        return Row.left_out("clients", reason)
    began = time.monotonic()
    box = Box(where / "box", settle_seconds=settle_seconds, INBOX__RESCAN_SECONDS="1")
    ledger = Ledger()
    keeper = Keeper(box, "--dry-run")
    with (
        SshServer(where / "ssh").serving() as ssh,
        SambaServer(box.inbox).serving() as samba,
        Watcher().watching(box.outbox, box.root / "watcher.json") as watcher,
        keeper.keeping(),
    ):
        clients = Clients(box.inbox, ssh, samba).all()
        deliveries = [Delivery(name, deliver, where / name, ledger, jobs) for name, deliver in clients.items()]
        with ThreadPoolExecutor(len(clients)) as threads:
            list(threads.map(Delivery.run, deliveries))
        pictures = {name: digest for delivery in deliveries for name, digest in delivery.pictures.items()}
        finished = patiently(lambda: ledger.out(box) >= len(pictures), lambda: ledger.out(box), keeper)
        code = keeper.stop()
        verdict = ledger.verdict([box], watcher.torn)
    failures = [] if finished else ["the jobs did not come out"]
    if code != 0 or keeper.starts > 1:
        failures.append(f"{keeper.starts} starts, exit code {code}")
    failures += _cut_short(box, pictures)
    return Row(
        "clients",
        f"{', '.join(clients)}: {jobs} jobs each, with a picture, every other one the picture first",
        (verdict,),
        time.monotonic() - began,
        failures=tuple(failures),
    )


def _cut_short(box: Box, pictures: dict[str, str]) -> list[str]:
    """Compare the pictures that the daemon copied with those that were sent."""
    records = [json.loads(path.read_bytes()) for path in box.spool.glob("done/succeeded/*/job.json")]
    copied = {picture["path"]: picture["sha256"] for record in records for picture in record["inputs"]}
    return [f"{name} was copied while it was being written" for name in copied if copied[name] != pictures[name]]


@dataclass
class Delivery:
    """One client's jobs."""

    name: str
    deliver: Deliver
    home: Path
    """Where the client has its files."""
    ledger: Ledger
    jobs: int

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.pictures: dict[str, str] = {}

    def run(self) -> None:
        """Deliver one job after the other."""
        for number in range(self.jobs):
            stem = f"{self.name}-{number}".replace(" ", "-")
            picture = _noise(number)
            self.pictures[f"{stem}.jpg"] = hashlib.sha256(picture).hexdigest()
            (self.home / f"{stem}.jpg").write_bytes(picture)
            content = f'prompt = "{self.name}"\nimage = "{stem}.jpg"\nstrength = 0.5\nseed = 1\n{SIZE}'.encode()
            drop = self.ledger.note(Dropped(f"{stem}.toml", content))
            (self.home / drop.name).write_bytes(content)
            order = [drop.name, f"{stem}.jpg"]
            for name in order if number % 2 == 0 else reversed(order):
                self.deliver(self.home / name, name)


def _noise(number: int) -> bytes:
    """Give a JPEG that no half of may pass for: each is another."""
    file = io.BytesIO()
    Image.effect_noise((640 + 16 * number, 480), 60).convert("RGB").save(file, "JPEG", quality=95)
    return file.getvalue()


class Clients:
    """Every way into one inbox."""

    def __init__(self, inbox: Path, ssh: SshServer, samba: SambaServer) -> None:
        self._inbox = inbox
        self._ssh = ssh
        self._samba = samba

    def all(self) -> dict[str, Deliver]:
        """Give each client by its name."""
        remote_shell = " ".join(["ssh", *self._ssh.options])
        return {
            "smbclient": self._smbclient,
            "smbclient slowly": self._smbclient_slowly,
            "smbprotocol preallocating": self._preallocating,
            "rsync -a": partial(self._rsync, "-a", f"--rsh={remote_shell}"),
            "rsync -a --inplace": partial(self._rsync, "-a", "--inplace", f"--rsh={remote_shell}"),
            "rsync slowly": partial(self._rsync, "--inplace", "--bwlimit=200", f"--rsh={remote_shell}"),
            "scp": self._scp,
            "sftp": partial(self._sftp, "put {source} {target}"),
            "sftp and rename": partial(
                self._sftp, "put {source} {target}.filepart\nrename {target}.filepart {target}"
            ),
            "mv": lambda source, name: source.rename(self._inbox / name),
            "cp": lambda source, name: _run("cp", str(source), str(self._inbox / name)),
            "ln": lambda source, name: os.link(source, self._inbox / name),
        }

    def _smbclient(self, source: Path, name: str) -> None:
        _check(self._samba.client(f'put "{source}" "{name}"'), "smbclient")

    def _smbclient_slowly(self, source: Path, name: str) -> None:
        """Feed the client piece by piece: it writes what it has."""
        client = self._samba.client(f'put /dev/stdin "{name}"', stdin=subprocess.PIPE)
        assert client.stdin is not None
        for piece in _pieces(source.read_bytes()):
            client.stdin.write(piece)
            client.stdin.flush()
            time.sleep(SLOW_PAUSE_SECONDS)
        client.stdin.close()
        _check(client, "smbclient")

    def _preallocating(self, source: Path, name: str) -> None:
        """Show the full size at once, as Windows' explorer does, and write the content piece by piece."""
        # Loaded here: only this client needs it.
        import smbclient  # noqa: PLC0415

        content = source.read_bytes()
        path = f"//127.0.0.1/{SHARE}/{name}"
        access = {"username": USER, "password": PASSWORD, "port": self._samba.port}
        with smbclient.open_file(path, mode="wb", buffering=0, share_access="rw", **access) as file:
            file.truncate(len(content))
            for piece in _pieces(content):
                time.sleep(SLOW_PAUSE_SECONDS)
                file.write(piece)

    def _rsync(self, *arguments: str | Path) -> None:
        *options, source, name = map(str, arguments)
        _run("rsync", *options, source, f"root@127.0.0.1:{self._inbox}/{name}")

    def _scp(self, source: Path, name: str) -> None:
        _run("scp", *self._ssh.options, str(source), f"root@127.0.0.1:{self._inbox}/{name}")

    def _sftp(self, commands: str, source: Path, name: str) -> None:
        batch = commands.format(source=_quoted(source), target=_quoted(self._inbox / name))
        _check(
            subprocess.Popen(
                ["sftp", "-b", "-", *self._ssh.options, "root@127.0.0.1"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            ),
            "sftp",
            batch.encode(),
        )


def _quoted(path: Path) -> str:
    return str(path).replace(" ", "\\ ")


def _pieces(content: bytes) -> list[bytes]:
    size = -(-len(content) // SLOW_PIECES)
    return [content[start : start + size] for start in range(0, len(content), size)]


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OSError(f"{command[0]}: {ran.stderr.strip()}")


def _check(process: "subprocess.Popen[bytes]", name: str, said: bytes | None = None) -> None:
    process.communicate(said)
    if process.returncode:
        raise OSError(f"{name} ended with {process.returncode}")
