"""What is done about a shortage of memory before anything of the picture is given up for it. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass

from qwen_image_daemon.render.renderer import HostOutOfMemory, OutOfMemory

WITHOUT_OTHERS = "again, without the models that stood by"
"""What is tried where there were some."""


def nothing_stands_by() -> bool:
    """Let go of nothing."""
    return False


@dataclass(frozen=True, slots=True)
class Room:
    """Gives back what nothing uses, and lets go of what is kept for later only."""

    give_back: Callable[[], None]
    """Returns what nothing uses any more to the device and the host."""
    let_go_of_others: Callable[[], bool] = nothing_stands_by
    """Unloads the models that stand by, and says whether there were any."""
    is_shared: bool = False
    """Device and host have one memory."""

    def without_others(self, error: OutOfMemory) -> bool:
        """Let go of the models that stand by, where they hold some of the memory that ran out.

        They hold none of a device, but for one whose memory is the host's. Says whether there were any.
        """
        return (self.is_shared or isinstance(error, HostOutOfMemory)) and self.let_go_of_others()
