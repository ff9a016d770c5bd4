"""Is a folder that may be on a share really there? A mount that died leaves an empty folder, without any error."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import structlog

from qwen_image_daemon.spool.durable import write_durably
from qwen_image_daemon.spool.mounts import Mount, mount_of
from qwen_image_daemon.spool.records import Record
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)

MARKER: Final = ".qwen-image-daemon"
"""A file of this name says that a folder is the real one, and not the bare point where it should be mounted."""
GONE_SECONDS: Final = 30.0
"""A folder that was there and is gone is made anew after so long: somebody may have moved it for a moment."""

_MARKER_TEXT: Final = b"""This file tells the qwen-image-daemon that this folder is really here.
Without it the folder counts as a share that went away, and nothing in it is touched. Leave it in place.
"""

PlaceName = Literal["inbox", "outbox"]


class Away(OSError):
    """The folder is not the one that we set up: nothing may be read from it or written into it."""


class _Known(Record):
    """Which folder was set up, and on which file system it was then."""

    folder: str
    mount: Mount


class Place:
    """The inbox or the outbox of one spool. The spool remembers that it was set up, and where."""

    def __init__(
        self, name: PlaceName, folder: Path, spool: Spool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name: PlaceName = name
        self._folder = folder
        self._file = spool.state / f"{name}.place.json"
        self._clock = clock
        self._known = self._read()
        self._was_there = False
        self._gone_since: float | None = None

    def enter(self) -> None:
        """Make sure that the folder is there; set it up where it never was. Raises Away, or another OSError.

        Without its marker it is set up anew only on the file system on which it was before: somebody emptied it,
        or made it again. On another one it is a mount point whose share is away.
        """
        if (self._folder / MARKER).exists():
            self._was_there, self._gone_since = True, None
            if self._known is None or self._known.mount != mount_of(self._folder):
                self._remember()
            return
        if self._known is not None and self._known.mount != mount_of(self._folder):
            raise Away(
                f"{self._folder} holds no file {MARKER}, so the share is away: before, {self._known.mount.source} "
                f"was mounted at {self._known.mount.point}. If it is the right folder, run: touch "
                f"{self._folder / MARKER}"
            )
        self._wait_for_its_return()
        self._folder.mkdir(parents=True, exist_ok=True)
        # The marker first: with only the memory of it, an interrupted set-up would look like a share that is away.
        write_durably(self._folder / MARKER, _MARKER_TEXT)
        self._remember()
        self._was_there, self._gone_since = True, None
        log.info("place.set_up", name=self._name, folder=str(self._folder))

    def _wait_for_its_return(self) -> None:
        if not self._was_there or self._folder.exists():
            return
        self._gone_since = self._clock() if self._gone_since is None else self._gone_since
        if self._clock() - self._gone_since < GONE_SECONDS:
            raise Away(
                f"The {self._name} folder {self._folder} is gone. It is made anew if it does not come back."
            )

    def _remember(self) -> None:
        self._known = _Known(folder=str(self._folder), mount=mount_of(self._folder))
        write_durably(self._file, self._known.to_bytes())

    def _read(self) -> _Known | None:
        try:
            known = _Known.model_validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return known if known.folder == str(self._folder) else None
