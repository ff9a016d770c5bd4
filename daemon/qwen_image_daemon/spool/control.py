"""What people ask of the daemon, as files in `spool/control/`: hold everything, drop one job. No port, no signal.

Whoever asks writes a file and is done; the render loop looks. What is asked while no daemon runs waits for one.
"""

from typing import Final, Literal, get_args

from qwen_image_daemon.spool.durable import sync_folder, write_durably
from qwen_image_daemon.spool.spool import Spool

PauseCause = Literal["command", "inbox"]

PAUSE_FILE: Final = "PAUSE"
"""In the inbox: nothing new is begun for as long as it lies there."""
CANCEL_SUFFIX: Final = ".cancel"
BY_FILE: Final = f"a {CANCEL_SUFFIX} file in the inbox"

_WHO: dict[PauseCause, str] = {
    "command": "Paused by the command `pause`; `resume` goes on.",
    "inbox": f"Paused by the file {PAUSE_FILE} in the inbox; when it is deleted, the daemon goes on.",
}


class Controls:
    """The requests that stand. Each method is one small file made, looked for, or taken away."""

    def __init__(self, spool: Spool) -> None:
        self._folder = spool.control

    def pause(self, cause: PauseCause) -> None:
        """Let the current image be finished and begin nothing more, until every cause is gone. Raises OSError."""
        path = self._folder / f"pause.{cause}"
        # Asked at every look of the take-in loop: a file that is there need not be written and synced again.
        if not path.exists():
            write_durably(path, b"")

    def resume(self, cause: PauseCause) -> None:
        """Take one cause away. Raises OSError."""
        path = self._folder / f"pause.{cause}"
        if path.exists():
            path.unlink(missing_ok=True)
            sync_folder(self._folder)

    def paused_by(self) -> tuple[PauseCause, ...]:
        """Say who holds the daemon; nobody, where it is empty."""
        return tuple(cause for cause in get_args(PauseCause) if (self._folder / f"pause.{cause}").exists())

    def cancel(self, job_id: str, by: str = BY_FILE) -> None:
        """Ask for the end of a job: before its start, or at its next step. `by` says who asked. Raises OSError."""
        write_durably(self._folder / f"{job_id}{CANCEL_SUFFIX}", by.encode(errors="backslashreplace"))

    def is_cancelled(self, job_id: str) -> bool:
        """Say whether a job's end was asked for. One look at one name: cheap enough for every step."""
        return (self._folder / f"{job_id}{CANCEL_SUFFIX}").exists()

    def cancelled_by(self, job_id: str) -> str:
        """Say who asked for a job's end."""
        return (self._folder / f"{job_id}{CANCEL_SUFFIX}").read_text(encoding="utf-8", errors="replace")

    def cancelled(self) -> list[str]:
        """List the jobs whose end was asked for."""
        names = (path.name for path in self._folder.iterdir())
        return sorted(name.removesuffix(CANCEL_SUFFIX) for name in names if _is_request(name))

    def forget_cancel(self, job_id: str) -> None:
        """Take the request away: the job has ended. Not synced: one that comes back is forgotten at the start."""
        (self._folder / f"{job_id}{CANCEL_SUFFIX}").unlink(missing_ok=True)


def who_paused(causes: tuple[PauseCause, ...]) -> str:
    """Say in a sentence who holds the daemon, and how it goes on."""
    return " ".join(_WHO[cause] for cause in causes)


def _is_request(name: str) -> bool:
    # Half-written ones begin with a dot.
    return name.endswith(CANCEL_SUFFIX) and not name.startswith(".")
