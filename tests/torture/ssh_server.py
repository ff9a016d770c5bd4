"""An SSH server of our own on the loopback: for sshfs, sftp, scp and rsync."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

TOOLS = ("sshd", "ssh-keygen")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class SshServer:
    """An SSH server of our own on the loopback, with a key of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.key = folder / "key"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> list[str]:
        """Give what ssh, scp and sftp need to reach it, without anything that the user has set."""
        settings = {
            "IdentityFile": str(self.key),
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "Port": str(self.port),
        }
        return ["-F", "/dev/null", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]

    @contextmanager
    def serving(self) -> Iterator["SshServer"]:
        """Serve for the block."""
        self.folder.mkdir(parents=True)
        for name in ("host", "key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        self.folder.chmod(0o700)
        # sshd wants it, also where it is not used.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
        }
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        sshd = shutil.which("sshd", path=_PATH)
        assert sshd is not None
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
        try:
            wait_for_port(self.port)
            yield self
        finally:
            for process in self._processes():
                process.kill()
            self._process.wait()

    @contextmanager
    def mounted(self, folder: Path, point: Path) -> Iterator[None]:
        """Mount a folder through the server for the block."""
        _run("sshfs", f"root@127.0.0.1:{folder}", str(point), *self.options)
        try:
            yield
        finally:
            _run("fusermount3", "-u", "-z", str(point))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its processes for the block: connections stay, and nobody answers."""
        processes = self._processes()
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]


def free_port() -> int:
    """Give a port on the loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, address: str = "127.0.0.1", patience: float = 20.0) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
