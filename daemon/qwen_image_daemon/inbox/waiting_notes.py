"""`<name>.waiting.txt` beside a job that waits: what for, in the folder where its author looks."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog

from qwen_image_daemon.inbox.names import WAITING_SUFFIX, is_ignored, printable
from qwen_image_daemon.spool.durable import create_anew

log = structlog.get_logger(__name__)


def _jobs_with_notes(inbox: Path) -> Iterator[str]:
    """Find the notes that lie about. Folders that vanish while we look are passed over."""
    for folder, folders, names in os.walk(inbox):
        folders[:] = [name for name in folders if not is_ignored(name)]
        for name in names:
            if name.endswith(WAITING_SUFFIX):
                yield (Path(folder) / name).relative_to(inbox).as_posix().removesuffix(WAITING_SUFFIX)


class WaitingNotes:
    """Keeps one note beside each waiting job, and takes it away when the waiting is over."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        # Notes of an earlier run: each is written again or taken away at the first look.
        self._written = dict.fromkeys(_jobs_with_notes(inbox), "")

    def update(self, waiting: Mapping[str, str]) -> None:
        """Make the notes say what `waiting` says: reasons by path of the job file."""
        for path in self._written.keys() - waiting.keys():
            self._take_away(path)
        for path, reason in waiting.items():
            if self._written.get(path) != reason:
                log.info("drop.waiting", file=printable(path), reason=reason)
                self._write(path, reason)
        self._written = dict(waiting)

    def _write(self, path: str, reason: str) -> None:
        try:
            create_anew(self._note(path), _text(path, reason).encode())
        except OSError as error:
            # A name too long for the suffix, or a read-only share: the log and the status say it too.
            log.warning("note.unwritten", file=printable(path), reason=str(error))

    def _take_away(self, path: str) -> None:
        try:
            self._note(path).unlink(missing_ok=True)
        except OSError as error:
            # A folder of that name, or one that we may not write to: no reason to stop taking in.
            log.warning("note.left", file=printable(path), reason=str(error))

    def _note(self, path: str) -> Path:
        return self._inbox / f"{path}{WAITING_SUFFIX}"


def _text(path: str, reason: str) -> str:
    stop = "" if reason.endswith((".", "?")) else "."
    return f"{printable(Path(path).name)} {reason}{stop}\nIt starts by itself as soon as nothing is missing.\n"
