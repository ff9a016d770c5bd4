#!/usr/bin/env python3
"""How often the gate takes a picture for none that is one: the demo model's pictures of its whole world.

usage: python tests/benchmarks/false_alarms.py [PICTURES]

Small pictures of few steps, of scenes that it may draw badly, too: what counts is that they are pictures.
"""

import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from demo_model.captions import free_caption
from demo_model.world import LAYOUTS, evaluation_scene, training_scene
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.picture_gate import refuse_no_picture
from qwen_image_daemon.render.renderer import BadPicture, Progress, RenderRequest
from qwen_image_daemon.settings import EMBEDDED, ModelSettings, RenderSettings

PICTURES = 1_000
SIDES = (64, 96, 128)
OPEN = RenderSettings(
    device="cpu",
    precisions=("float32",),
    gate_black_level=-1,
    gate_flat_deviation=0,
    gate_unchanged_difference=0,
)
PLAIN = RenderRequest(
    task="text-to-image",
    prompt="",
    negative_prompt=" ",
    true_cfg_scale=4.0,
    num_inference_steps=6,
    width=64,
    height=64,
    seed=0,
)


def main() -> None:
    """Draw, look at every picture with the gate's defaults, and print."""
    pictures = int(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    rng = random.Random(0)  # noqa: S311  no secret
    alarms: Counter[str] = Counter()
    deviations, brightest = [], []
    with DiffusersRenderer(ModelSettings(family="demo", source=EMBEDDED), OPEN, Accessories()) as renderer:
        for seed in range(pictures):
            layout = LAYOUTS[seed % len(LAYOUTS)]
            scene = (training_scene if seed % 2 else evaluation_scene)(rng, layout)
            request = replace(
                PLAIN,
                prompt=free_caption(scene, rng),
                width=rng.choice(SIDES),
                height=rng.choice(SIDES),
                seed=seed,
            )
            image = renderer.render(request, _unheard).image
            levels = np.asarray(image).reshape(-1, 3)
            deviations.append(float(levels.std(axis=0).max()))
            brightest.append(int(levels.max()))
            try:
                refuse_no_picture(image, RenderSettings())
            except BadPicture as alarm:
                alarms[str(alarm).partition(" (")[0]] += 1
                print(f"seed {seed}: {request.prompt!r}: {alarm}", flush=True)
    lowest = sorted(deviations)[:5]
    print(f"{pictures} pictures, {alarms.total()} false alarms: {dict(alarms)}")
    print(f"least deviations {[round(value, 3) for value in lowest]}, least brightest level {min(brightest)}")


def _unheard(_: Progress) -> None:
    pass


if __name__ == "__main__":
    main()
