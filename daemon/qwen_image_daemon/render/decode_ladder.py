"""Decoding with whatever memory there is. The latents are kept: only decoding is tried again, rung by rung."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
import torch
from PIL.Image import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render import devices
from qwen_image_daemon.render.decode_rungs import ALONE, CPU, RUNGS, SLICED, WHOLE, DecodeRung, Decoding
from qwen_image_daemon.render.decoding import decoded
from qwen_image_daemon.render.ladder import Ladder
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.renderer import HostOutOfMemory, OutOfMemory, RenderRequest
from qwen_image_daemon.render.translation import shortage, translated

log = structlog.get_logger()

_SWITCHES: Final = (
    "use_slicing",
    "use_tiling",
    "tile_sample_min_height",
    "tile_sample_min_width",
    "tile_sample_stride_height",
    "tile_sample_stride_width",
)
"""All that slicing and tiling set in a VAE; switching them off leaves the sizes of the tiles as they are."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures, and how they were decoded."""

    pictures: tuple[Image, ...]
    rung: DecodeRung
    steps_down: tuple[str, ...]
    """What was done because memory ran out, one after the other."""


class DecodeLadder:
    """Decodes the latents of one model's pictures. Afterwards its VAE is as it was, whatever failed."""

    def __init__(
        self,
        pipeline: Any,
        placement: WeightPlacement,
        ladder: Ladder,
        give_back: Callable[[], None],
    ) -> None:
        """`give_back` returns what nothing uses any more to the device and the host."""
        self._pipeline = pipeline
        self._placement = placement
        self._ladder = ladder
        self._give_back = give_back

    def decoded(
        self, latents: torch.Tensor, size: Size, request: RenderRequest, alive: Callable[[], None]
    ) -> Decoded:
        """Decode the packed latents (1, tokens, channels) of a picture. `alive` is called before each try.

        The first two tries are alike: in between, memory that nothing uses is given back. Raises OutOfMemory where
        no way is left, and else what `decoding.decoded` raises.
        """
        ways = self._ladder.ways_to_decode(request, self._task(size, request))
        rung, steps = ways.pop(0), list[str]()
        while True:
            alive()
            try:
                pictures = translated(partial(self._tried, rung, latents, size, request.layers), shortage)
            except OutOfMemory as error:
                self._give_back()
                below = self._below(ways, error) if steps else rung
                if below is None:
                    raise
                how = "again" if below is rung else f"as {below.name} instead of {rung.name}"
                steps.append(f"decoded {how}: {error}")
                log.warning("memory.decoding_stepped_down", step=steps[-1])
                rung = below
            else:
                if rung is not WHOLE:
                    self._ladder.decoded_as(rung, request)
                return Decoded(pictures, rung, tuple(steps))

    def _task(self, size: Size, request: RenderRequest) -> Decoding:
        plan = self._placement.plan
        return Decoding(
            size=size,
            pictures=request.layers or 1,
            quality=self._ladder.quality,
            has_device=plan is not None and not plan.on_cpu,
            has_company=plan is not None and not plan.on_cpu and bool(self._placement.beside_the_vae()),
        )

    def _below(self, ways: list[DecodeRung], error: OutOfMemory) -> DecodeRung | None:
        """Give the next way, and take it off the list. What makes room on the device does not help the host."""
        while ways:
            rung = ways.pop(0)
            if isinstance(error, HostOutOfMemory) and rung in {ALONE, CPU}:
                continue
            return rung
        return None

    def _tried(self, rung: DecodeRung, latents: torch.Tensor, size: Size, layers: int | None) -> tuple[Image, ...]:
        with ExitStack() as stack:
            stack.enter_context(_switched(self._pipeline.vae, rung))
            if RUNGS.index(rung) >= RUNGS.index(ALONE):
                self._placement.leave_only_the_vae()
            if rung is CPU:
                stack.enter_context(self._placement.vae_on_the_host())
                latents = devices.off(latents)
            return decoded(self._pipeline, latents, size, layers)


@contextmanager
def _switched(vae: Any, rung: DecodeRung) -> Iterator[None]:
    """Let the VAE slice and tile as the rung says, and be as before afterwards."""
    before = {name: getattr(vae, name) for name in _SWITCHES}
    try:
        if RUNGS.index(rung) >= RUNGS.index(SLICED):
            vae.enable_slicing()
        if rung.tile is not None:
            # As far apart as the VAE's own tiles are: a quarter of each lies over the next one.
            vae.enable_tiling(rung.tile, rung.tile, rung.tile * 3 // 4, rung.tile * 3 // 4)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
        # It keeps what it was computing with after a failure.
        vae.clear_cache()
