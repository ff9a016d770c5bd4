#!/usr/bin/env python3
"""The daemon's command line with a dry-run renderer that some prompts kill or hang.

The loops' processes import this file anew (multiprocessing's spawn), so the poison works in them too.
"""

import os
import signal
import time
from collections.abc import Callable

from qwen_image_daemon.cli.app import main
from qwen_image_daemon.render.dry_run import DryRunRenderer
from qwen_image_daemon.render.renderer import Progress, Rendering, RenderRequest

KILLS = "poison that kills"
HANGS = "poison that hangs"
ENDLESS_SECONDS = 3600.0

_wholesome = DryRunRenderer.render


def _render(renderer: DryRunRenderer, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
    if request.prompt == KILLS:
        os.kill(os.getpid(), signal.SIGKILL)
    if request.prompt == HANGS:
        time.sleep(ENDLESS_SECONDS)
    return _wholesome(renderer, request, progress)


DryRunRenderer.render = _render  # type: ignore[method-assign,assignment]

if __name__ == "__main__":
    main()
