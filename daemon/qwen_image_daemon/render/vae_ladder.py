"""Encoding and decoding with whatever memory there is: only that is tried again, rung by rung.

When a picture is decoded its latents are kept, and when one is encoded nothing was denoised yet.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import structlog
import torch
from PIL.Image import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render import devices
from qwen_image_daemon.render.decoding import decoded
from qwen_image_daemon.render.ladder import Ladder
from qwen_image_daemon.render.making_room import Room
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.renderer import HostOutOfMemory, OutOfMemory, RenderRequest
from qwen_image_daemon.render.translation import shortage, translated
from qwen_image_daemon.render.vae_rungs import ALONE, CPU, RUNGS, SLICED, WHOLE, VaeRung, VaeTask, VaeWork

log = structlog.get_logger()
Result = TypeVar("Result")

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
class VaeWay:
    """How what the VAE had to do for a picture was done."""

    work: VaeWork
    rungs: list[VaeRung] = field(default_factory=list)
    """Those that were taken: one for each picture that was encoded."""
    steps_down: list[str] = field(default_factory=list)
    """What was done because memory ran out, one after the other."""

    @property
    def last_rung(self) -> VaeRung:
        """Give the furthest down of those that were taken."""
        return max(self.rungs, key=RUNGS.index, default=WHOLE)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures, and how they were decoded."""

    pictures: tuple[Image, ...]
    way: VaeWay


class VaeLadder:
    """Encodes and decodes for one model's pictures. Afterwards its VAE is as it was, whatever failed."""

    def __init__(
        self,
        pipeline: Any,
        placement: WeightPlacement,
        ladder: Ladder,
        room: Room,
    ) -> None:
        self._pipeline = pipeline
        self._placement = placement
        self._ladder = ladder
        self._room = room

    def decoded(
        self, latents: torch.Tensor, size: Size, request: RenderRequest, alive: Callable[[], None]
    ) -> Decoded:
        """Decode the packed latents (1, tokens, channels) of a picture. `alive` is called before each try.

        The first two tries are alike: in between, room is made without giving anything up. Where the host's memory
        ran out another one is without the models that stand by. Raises OutOfMemory where no way is left, and else
        what `decoding.decoded` raises.
        """
        way = VaeWay("decoded")

        def tried(rung: VaeRung) -> tuple[Image, ...]:
            there = devices.off(latents) if rung is CPU else latents
            return decoded(self._pipeline, there, size, request.layers)

        task = self._task("decoded", size, request.layers or 1)
        return Decoded(self._found(way, task, request, tried, alive), way)

    @contextmanager
    def encoding(self, request: RenderRequest, alive: Callable[[], None]) -> Iterator[VaeWay]:
        """Let the pipelines encode their pictures rung by rung inside, and say how it was done.

        What the VAE is asked for raises OutOfMemory where no way is left. What was taken off the device for it is
        back when a pipeline goes on: for lack of room that raises what torch does.
        """
        vae, way = self._pipeline.vae, VaeWay("encoded")
        encode = vae.encode

        def encoded(pixels: torch.Tensor) -> Any:
            def tried(rung: VaeRung) -> Any:
                if rung is not CPU:
                    return encode(pixels)
                output = encode(devices.off(pixels))
                parameters = devices.onto(pixels.device, output.latent_dist.parameters)
                return type(output)(latent_dist=type(output.latent_dist)(parameters))

            *_, height, width = pixels.shape
            task = self._task("encoded", Size(width, height), pixels.shape[0])
            found = self._found(way, task, request, tried, alive)
            if way.rungs[-1] is not WHOLE:
                # Otherwise than after decoding, everything else is needed now.
                self._placement.settle()
            return found

        vae.encode = encoded
        try:
            yield way
        finally:
            del vae.encode

    def _found(
        self,
        way: VaeWay,
        task: VaeTask,
        request: RenderRequest,
        tried: Callable[[VaeRung], Result],
        alive: Callable[[], None],
    ) -> Result:
        """Try one rung after the other until one gives a result, and put down what was done."""
        rungs = self._ladder.ways_of_vae(request, task)
        rung, has_failed = rungs.pop(0), False
        while True:
            alive()
            try:
                result = translated(partial(self._tried, rung, tried), shortage)
            except OutOfMemory as error:
                how = self._room.again(error, is_first=not has_failed)
                has_failed = True
                if how is None:
                    below = _below(rungs, error)
                    if below is None:
                        raise
                    rung, how = below, f"as {below.name} instead of {rung.name}"
                way.steps_down.append(f"{task.work} {how}: {error}")
                log.warning("memory.vae_stepped_down", step=way.steps_down[-1])
            else:
                way.rungs.append(rung)
                if rung is not WHOLE:
                    self._ladder.vae_worked(rung, task.work, request)
                return result

    def _task(self, work: VaeWork, size: Size, pictures: int) -> VaeTask:
        plan = self._placement.plan
        has_device = plan is not None and not plan.on_cpu
        return VaeTask(
            work=work,
            size=size,
            pictures=pictures,
            quality=self._ladder.quality,
            has_device=has_device,
            has_company=has_device and bool(self._placement.beside_the_vae()),
        )

    def _tried(self, rung: VaeRung, tried: Callable[[VaeRung], Result]) -> Result:
        with ExitStack() as stack:
            stack.enter_context(_switched(self._pipeline.vae, rung))
            if RUNGS.index(rung) >= RUNGS.index(ALONE):
                self._placement.leave_only_the_vae()
            if rung is CPU:
                stack.enter_context(self._placement.vae_on_the_host())
            return tried(rung)


def _below(rungs: list[VaeRung], error: OutOfMemory) -> VaeRung | None:
    """Give the next way, and take it off the list. What makes room on the device does not help the host."""
    while rungs:
        rung = rungs.pop(0)
        if isinstance(error, HostOutOfMemory) and rung in {ALONE, CPU}:
            continue
        return rung
    return None


@contextmanager
def _switched(vae: Any, rung: VaeRung) -> Iterator[None]:
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
