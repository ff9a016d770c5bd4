"""A Samba server of our own on the loopback, with one share and one user."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture.ssh_server import free_port, wait_for_port

TOOLS = ("smbd", "smbclient", "smbpasswd")
SHARE = "inbox"
USER, PASSWORD = "root", "torture"
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


SMB_PORT = 445
MOUNTING_TOOLS = ("smbnetfs", "fusermount")
_PATIENCE_SECONDS = 20.0


class SambaServer:
    """Serves one folder as one share. One that is to be mounted has the usual port at an address of its own."""

    def __init__(self, shared: Path, *, mountable: bool = False) -> None:
        self.address = "127.0.0.77" if mountable else "127.0.0.1"
        self.port = SMB_PORT if mountable else free_port()
        # Short, whatever the test is called: Samba makes sockets in it, whose paths may have 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="smb-"))
        self._config = self._folder / "smb.conf"
        self._shared = shared

    @contextmanager
    def serving(self) -> Iterator["SambaServer"]:
        """Serve for the block."""
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
            wait_for_port(self.port, self.address)
            yield self
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(self._folder)

    @contextmanager
    def mounted(self, point: Path) -> Iterator[Path]:
        """Mount the share in user space for the block, and give its folder. Needs no kernel client."""
        home = self._folder / "home"
        settings = home / ".smb"
        settings.mkdir(parents=True)
        (settings / "smb.conf").write_text("[global]\nclient min protocol = SMB2\n")
        # The program reads no secrets that others could read.
        (settings / "smbnetfs.conf").touch(mode=0o600)
        (settings / "smbnetfs.conf").write_text(
            f'auth "{self.address}" "{USER}" "{PASSWORD}"\nhost {self.address} visible=true\n'
            'smb_query_browsers "false"\n'
        )
        point.mkdir()
        process = subprocess.Popen(["smbnetfs", str(point), "-f"], env={**os.environ, "HOME": str(home)})
        share = point / self.address / SHARE
        try:
            end = time.monotonic() + _PATIENCE_SECONDS
            while not share.is_dir():
                assert time.monotonic() < end, "the share was not mounted"
                time.sleep(0.05)
            yield share
        finally:
            subprocess.run(["fusermount", "-u", "-z", str(point)], check=True)
            process.wait()

    def client(self, command: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Start Samba's own client with one command."""
        return subprocess.Popen(
            [
                *self._program("smbclient"),
                f"//{self.address}/{SHARE}",
                f"--port={self.port}",
                f"--user={USER}%{PASSWORD}",
                f"--command={command}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=stdin,
        )

    def _program(self, name: str) -> list[str]:
        found = shutil.which(name, path=_PATH)
        assert found is not None
        return [found, f"--configfile={self._config}"]

    def _configure(self) -> None:
        names = (
            "private dir",
            "lock directory",
            "state directory",
            "cache directory",
            "pid directory",
            "ncalrpc dir",
        )
        own = {name: self._folder / name.replace(" ", "-") for name in names}
        for folder in own.values():
            folder.mkdir()
        general = {
            "server role": "standalone server",
            "smb ports": self.port,
            "interfaces": f"{self.address}/8",
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
