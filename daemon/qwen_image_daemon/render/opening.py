"""Choosing the renderer that the settings ask for. Importing this module imports no torch."""

import os

from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.dry_run import DryRunRenderer
from qwen_image_daemon.render.handed_over import Lasting
from qwen_image_daemon.render.renderer import Renderer
from qwen_image_daemon.settings import ModelSettings, RenderSettings


def open_renderer(
    model: ModelSettings,
    settings: RenderSettings,
    accessories: Accessories,
    lasting: Lasting | None = None,
    *,
    dry_run: bool,
) -> Renderer:
    """Give a renderer for the model, not yet entered: nothing is loaded but libraries.

    `lasting` holds what outlasts it, for the next model and the next process.

    Unless the settings trust remote code, diffusers' own switch against it is set for the whole process.
    """
    if dry_run:
        return DryRunRenderer(model, settings.dry_run_step_seconds)
    # torch's threads spin while they wait for each other, also where another program has their core: pictures on
    # the CPU then took many times as long (docs/decisions/0005). Read when the library is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    if not settings.trust_remote_code:
        # diffusers reads it once, when it is imported.
        os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    from qwen_image_daemon.render.diffusers_renderer import (  # noqa: PLC0415  seconds of imports, and the switch first
        DiffusersRenderer,
    )

    return DiffusersRenderer(model, settings, accessories, lasting)
