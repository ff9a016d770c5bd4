"""What is done about a shortage of memory before anything of the picture is given up for it. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from qwen_image_daemon.render.parking import Parking
from qwen_image_daemon.render.renderer import HostOutOfMemory, OutOfMemory

_AGAIN: Final = "again"
_ALONE_ON_DEVICE: Final = "again, with nothing on the device of models that stand by"
_WITHOUT_OTHERS: Final = "again, without the models that stood by"


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
    parking: Parking = field(default_factory=Parking)
    owner: object = None
    """The model whose room it is, as the parking knows it."""

    @property
    def kept_by_others(self) -> int:
        """Bytes of the device that models which stand by hold."""
        return self.parking.bytes_beside(self.owner)

    def make_way(self, free: int) -> None:
        """Have others keep no more of the device than what is free beside the work that comes."""
        if self.parking.leave_at_most(free, self.owner):
            self.give_back()

    def again(self, error: OutOfMemory, *, is_first: bool) -> str | None:
        """Make room without giving anything up, and say how the same is tried again; None where that is no use.

        What others keep on the device goes where that is short. They themselves go where the host is: they hold
        nothing else of a device, but for one whose memory is the host's.
        """
        is_hosts = isinstance(error, HostOutOfMemory)
        had_company = not is_hosts and self.parking.close(self.owner)
        self.give_back()
        if had_company:
            return _ALONE_ON_DEVICE
        if is_first:
            return _AGAIN
        return _WITHOUT_OTHERS if (is_hosts or self.is_shared) and self.let_go_of_others() else None
