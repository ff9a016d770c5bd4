"""A Samba server of our own on the loopback, with one share and one user."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture.ssh_server import free_port, wait_for_port

TOOLS = ("smbd", "smbclient", "smbpasswd")
SHARE = "inbox"
USER, PASSWORD = "root", "torture"
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class SambaServer:
    """Serves one folder as one share."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._shared = shared
        self._config = folder / "smb.conf"

    @contextmanager
    def serving(self) -> Iterator["SambaServer"]:
        """Serve for the block."""
        self._folder.mkdir(parents=True)
        self._configure()
        with (self._folder / "smbd.log").open("wb") as log:
            process = subprocess.Popen(
                [*self._program("smbd"), "--foreground", "--no-process-group", "--debug-stdout"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # When it is asked to end, it ends its whole process group.
                start_new_session=True,
            )
        try:
            wait_for_port(self.port)
            yield self
        finally:
            process.terminate()
            process.wait()

    def client(self, command: str, **options: int) -> "subprocess.Popen[bytes]":
        """Start Samba's own client with one command."""
        return subprocess.Popen(
            [
                *self._program("smbclient"),
                f"//127.0.0.1/{SHARE}",
                f"--port={self.port}",
                f"--user={USER}%{PASSWORD}",
                f"--command={command}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )

    def _program(self, name: str) -> list[str]:
        found = shutil.which(name, path=_PATH)
        assert found is not None
        return [found, f"--configfile={self._config}"]

    def _configure(self) -> None:
        names = ("private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir")
        own = {name: self._folder / name.replace(" ", "-") for name in names}
        for folder in own.values():
            folder.mkdir()
        general = {
            "server role": "standalone server",
            "smb ports": self.port,
            "interfaces": "127.0.0.1/8",
            "bind interfaces only": "yes",
            "load printers": "no",
            "disable spoolss": "yes",
            "log level": 0,
            **own,
        }
        share = {"path": self._shared, "read only": "no", "force user": USER}
        sections = {"global": general, SHARE: share}
        self._config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
                for name, settings in sections.items()
            )
        )
        smbpasswd = shutil.which("smbpasswd", path=_PATH)
        assert smbpasswd is not None
        subprocess.run(
            [smbpasswd, "-c", str(self._config), "-a", "-s", USER],
            input=f"{PASSWORD}\n{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )
