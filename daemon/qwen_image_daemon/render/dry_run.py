"""A renderer without a model: flat colours in no time, for trying out folders, jobs and the service. No torch."""

import hashlib
import time
from collections.abc import Callable
from typing import Self

from PIL import Image

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.host_memory import host_memory
from qwen_image_daemon.render.renderer import (
    MemoryInfo,
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
    """Draws one flat colour that depends on everything that was asked; equal requests give equal bytes.

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
        picture = _painted(request)
        seconds = StageSeconds(encode=0.0, denoise=denoised - started, decode=time.perf_counter() - denoised)
        layers = tuple(picture.convert("RGBA") for _ in range(request.layers or 0))
        return Rendering(picture, seconds, steps, layers)

    def clean_up(self) -> MemoryInfo:
        """Report the host's memory."""
        return host_memory()


def _painted(request: RenderRequest) -> Image.Image:
    """Give the request's colour; a source shines through as far as the strength does not redraw it."""
    flat = Image.new("RGB", (request.width, request.height), _colour(request))
    if request.source is None or request.strength is None:
        return flat
    return Image.blend(request.source, flat, request.strength)


def _colour(request: RenderRequest) -> tuple[int, int, int]:
    wish = (request.prompt, request.negative_prompt, request.true_cfg_scale, request.seed)
    red, green, blue = hashlib.sha256(repr(wish).encode()).digest()[:3]
    return red, green, blue
