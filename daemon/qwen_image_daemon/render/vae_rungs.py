"""The ways to decode a picture, or to encode one, from the best to the one that takes the least of the device.

Each takes what those before it left: what is off the device stays off, what is sliced stays sliced. No torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.renderer import Exactness
from qwen_image_daemon.settings import Quality

VaeWork = Literal["encoded", "decoded"]
"""What becomes of a picture."""

_TILES: Final = (512, 256, 128)
"""The VAEs' own tiles have 256 pixels a side. Larger ones leave fewer seams, smaller ones take less memory."""


@dataclass(frozen=True, slots=True)
class VaeRung:
    """One way to encode or to decode."""

    name: str
    how: str
    """It is done, in words that end a sentence."""
    exactness: Exactness = "exact"
    tile: int | None = None
    """Pixels of a tile's side; None: whole."""

    def said_of(self, work: VaeWork) -> str:
        """Say what is done, in a sentence without its full stop."""
        return f"the picture was {work} {self.how}"


WHOLE: Final = VaeRung("whole", "in one piece")
ALONE: Final = VaeRung("alone", "with everything but the VAE off the device")
SLICED: Final = VaeRung("sliced", "one layer after the other, not all together", "float-drift")
CPU: Final = VaeRung("cpu", "on the CPU", "float-drift")

RUNGS: Final[tuple[VaeRung, ...]] = (
    WHOLE,
    ALONE,
    # How a convolution is computed, and so how it rounds, may depend on how many pictures it is given.
    SLICED,
    *(VaeRung(f"tiles-{side}", f"in tiles of {side} pixels", "lossy", side) for side in _TILES),
    CPU,
)
"""Best first: what changes the picture most comes after what does not, but before minutes of the CPU."""

RUNG_OF: Final[Mapping[str, VaeRung]] = MappingProxyType({rung.name: rung for rung in RUNGS})


@dataclass(frozen=True, slots=True)
class VaeTask:
    """What there is to encode or to decode, and what is allowed for it."""

    work: VaeWork
    size: Size
    pictures: int
    """That are computed together: the layers of a layered request."""
    quality: Quality
    has_device: bool
    """There is a device beside the host's memory."""
    has_company: bool
    """There is something beside the VAE on the device that can go."""

    def rungs(self) -> Iterator[VaeRung]:
        """Give the ways that come into question, best first."""
        for rung in RUNGS:
            if rung is SLICED and self.pictures == 1:
                continue
            if (rung is ALONE and not self.has_company) or (rung is CPU and not self.has_device):
                continue
            if rung.tile is not None and (self.quality == "lossless" or self._is_one_tile(rung.tile)):
                continue
            yield rung

    def _is_one_tile(self, side: int) -> bool:
        return max(self.size.width, self.size.height) <= side
