"""A renderer without a model: flat colours in no time, for trying out folders, jobs and the service. No torch."""

import hashlib
import time
from collections.abc import Callable
from typing import Self

from PIL import Image

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.host_memory import host_memory
from qwen_image_daemon.render.renderer import (
    CleanUp,
    ModelInfo,
    Progress,
    Rendering,
    RenderRequest,
    StageSeconds,
)
from qwen_image_daemon.render.request_checks import refuse_unfit
from qwen_image_daemon.render.schedule import steps_that_run
from qwen_image_daemon.render.versions import versions_of
from qwen_image_daemon.settings import ModelSettings


class DryRunRenderer:
    """Draws flat colours that depend on what was asked, for every task; equal requests give equal bytes.

    `step_seconds` is how long each denoising step takes.
    """

    def __init__(self, model: ModelSettings, step_seconds: float = 0.0) -> None:
        self._model = model
        self._step_seconds = step_seconds

    def __enter__(self) -> Self:
        """Load nothing."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let go of nothing."""

    @property
    def info(self) -> ModelInfo:
        """Say that there is no model."""
        return ModelInfo(
            family=self._model.family,
            pipeline="DryRun",
            source=self._model.source,
            revision=self._model.revision,
            device="none",
            precision="none",
            notes=("Dry run: no model was loaded, the picture is a flat colour.",),
            versions=versions_of("pillow"),
            load_seconds=0.0,
        )

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Paint one picture, with the progress of a real one. Raises RequestRefused or what `progress` raises."""
        refuse_unfit(request, FAMILIES[self._model.family])
        steps = steps_that_run(request)
        progress(Progress("encode", 0, steps))
        progress(Progress("denoise", 0, steps))
        started = time.perf_counter()
        for step in range(1, steps + 1):
            time.sleep(self._step_seconds)
            progress(Progress("denoise", step, steps))
        denoised = time.perf_counter()
        progress(Progress("decode", steps, steps))
        layers = _layers(request)
        picture = _composed(layers) if layers else _painted(request)
        seconds = StageSeconds(encode=0.0, denoise=denoised - started, decode=time.perf_counter() - denoised)
        caption = None if request.prompt else "a picture that no model looked at"
        return Rendering(picture, seconds, steps, layers, caption)

    def stand_by(self) -> None:
        """Let go of nothing."""

    def clean_up(self) -> CleanUp:
        """Report the host's memory. There is nothing to clear."""
        memory = host_memory()
        return CleanUp(done=(), reason="there is no model", seconds=0.0, found=memory, left=memory)


def _painted(request: RenderRequest) -> Image.Image:
    """Give the request's colour; a source shines through as far as the strength does not redraw it."""
    size = (request.width, request.height)
    flat = Image.new("RGB", size, _colour(request))
    ground = _ground(request)
    if ground is None:
        return flat
    ground = ground.convert("RGB").resize(size)
    redrawn = flat if request.strength is None else Image.blend(ground, flat, request.strength)
    return redrawn if request.mask is None else Image.composite(redrawn, ground, request.mask.resize(size))


def _ground(request: RenderRequest) -> Image.Image | None:
    """Give the picture that is redrawn, wholly or within a mask."""
    if request.source is not None:
        return request.source
    if request.mask is not None and request.control is not None:
        return request.control.image
    return request.references[0] if request.mask is not None and request.references else None


def _layers(request: RenderRequest) -> tuple[Image.Image, ...]:
    """Give a layer's share of the height to each layer of a layered request, in a colour of its own."""
    count = request.layers or 0
    layers = []
    for index in range(count):
        layer = Image.new("RGBA", (request.width, request.height))
        top, bottom = (request.height * edge // count for edge in (index, index + 1))
        layer.paste((*_colour(request, index), 255), (0, top, request.width, bottom))
        layers.append(layer)
    return tuple(layers)


def _composed(layers: tuple[Image.Image, ...]) -> Image.Image:
    picture = layers[0]
    for layer in layers[1:]:
        picture = Image.alpha_composite(picture, layer)
    return picture.convert("RGB")


def _colour(request: RenderRequest, layer: int = 0) -> tuple[int, int, int]:
    """Make a colour of everything that was asked for, but for the source, which shines through."""
    pictures = (*request.references, *([request.control.image] if request.control is not None else []))
    wish = (
        request.prompt,
        request.negative_prompt,
        request.true_cfg_scale,
        request.seed,
        request.loras,
        request.scheduler,
        request.control and (request.control.controlnet, request.control.scale),
        [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures],
        layer,
    )
    red, green, blue = hashlib.sha256(repr(wish).encode()).digest()[:3]
    return red, green, blue
