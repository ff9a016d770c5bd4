"""Transformers that stay on the device while their models stand by, where the plan has room for them. No torch.

They are copies: the host keeps every weight, so they can be dropped at any moment. The text encoder and the VAE,
which models may share, are not among them: these have one owner, the placement of the model at work.
"""

from collections.abc import Callable

import structlog

from qwen_image_daemon.render.component_sizes import ComponentSizes
from qwen_image_daemon.render.memory import BYTES, Claim, Memory
from qwen_image_daemon.render.plans import Plan
from qwen_image_daemon.settings import Precision

log = structlog.get_logger(__name__)


class Parking:
    """Knows what the models that stand by keep on one device. All models of a process share it.

    Where memory ran short all the same, nothing is kept any more until the process is renewed: what the plan says
    of this card is wrong then, and each change of models would cost a picture's time.
    """

    def __init__(self, *, is_open: bool = True) -> None:
        self._kept: dict[int, tuple[int, Callable[[], None]]] = {}
        """By owner, in the order in which they came to stand by: bytes, and what drops them."""
        self.is_open = is_open

    def keep(self, owner: object, size: int, drop: Callable[[], None]) -> None:
        """Note that a model which stands by keeps so many bytes on the device."""
        self._kept[id(owner)] = size, drop
        log.info("model.kept_on_device", bytes=size)

    def forget(self, owner: object) -> None:
        """Note that a model is at work again, or gone: what it kept is no matter of others any more."""
        self._kept.pop(id(owner), None)

    def bytes_beside(self, owner: object) -> int:
        """Say what others keep on the device."""
        return sum(size for key, (size, _) in self._kept.items() if key != id(owner))

    def leave_at_most(self, size: int, owner: object) -> bool:
        """Drop what others keep until it is no more than this, the oldest first. Says whether anything went."""
        was = self.bytes_beside(owner)
        for key in [key for key in self._kept if key != id(owner)]:
            if self.bytes_beside(owner) <= size:
                break
            _, drop = self._kept.pop(key)
            drop()
        now = self.bytes_beside(owner)
        if now < was:
            log.info("models.left_device", bytes=was - now)
        return now < was

    def close(self, owner: object) -> bool:
        """Drop all that others keep, and keep nothing from now on. Says whether anything went."""
        went = self.leave_at_most(0, owner)
        if went:
            self.is_open = False
        return went


def transformers_beside(
    plan: Plan, needs: Claim, sizes: ComponentSizes, precision: Precision, memory: Memory
) -> tuple[int, int]:
    """Say how many more transformers of models like this one have room on the device, and the bytes of each."""
    each = (sizes.transformer - (sizes.modulation if plan.table else 0)) * BYTES[precision]
    if memory.device is None or not plan.keeps_transformer:
        return 0, each
    return max(0, memory.device - needs.device) // each, each
