"""Training pictures as latents: drawn once, encoded once, read many times.

A shard is a pair of files: NAME.safetensors with the packed latents and what each latent token shows, and
NAME.json with the scenes, from which captions are drawn anew each time.
"""

# Lots are drawn for pictures here, not for secrets.
# ruff: noqa: S311

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file

from .curriculum import PictureSize, kept
from .precision import product_dtype
from .single_frame import encode, two_dimensional
from .world import COLOURS, SHAPES, FloatArray, Layout, Scene, Thing, covers, render, training_scene

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusers import AutoencoderKLQwenImage
    from torch import Tensor

TOKEN_PIXELS: Final = 16
"""A token of the transformer is 2 x 2 latents of 8 x 8 pixels each."""
NOTHING: Final = 255
"""Stands in `colours` and `shapes` for a token that shows the background only."""
_OUTLINE_SAMPLES: Final = 8
"""Points per token and direction at which an outline is looked for, two pixels apart."""
_ENCODED_AT_ONCE: Final = 16 * 128 * 128


@dataclass(frozen=True, slots=True)
class Shard:
    """Pictures of one size: normalised, packed `latents` (n, tokens, 4 z) and, for each token, what it shows.

    `colours` and `shapes` (n, tokens) hold what is in its middle, `outlines` (n, tokens) 1 where an edge crosses.
    """

    width: int
    height: int
    scenes: tuple[Scene, ...]
    latents: Tensor
    colours: Tensor
    shapes: Tensor
    outlines: Tensor


def pack(latents: Tensor) -> Tensor:
    """Turn (n, z, h, w) into the transformer's tokens (n, h / 2 * w / 2, 4 z), as QwenImagePipeline does."""
    n, z, h, w = latents.shape
    return latents.view(n, z, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, z * 4)


def token_labels(scene: Scene, width: int, height: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return, for the middle of each token, the index of the colour and of the shape that is seen there."""
    columns, rows = width // TOKEN_PIXELS, height // TOKEN_PIXELS
    x: FloatArray = ((np.arange(columns, dtype=np.float64) + 0.5) * TOKEN_PIXELS)[None, :]
    y: FloatArray = ((np.arange(rows, dtype=np.float64) + 0.5) * TOKEN_PIXELS)[:, None]
    colours = np.full((rows, columns), list(COLOURS).index(scene.background), dtype=np.uint8)
    shapes = np.full((rows, columns), NOTHING, dtype=np.uint8)
    for thing in scene.things:
        radius = thing.radius * min(width, height)
        mask = covers(thing.shape, (x - thing.x * width) / radius, (y - thing.y * height) / radius)
        colours[mask] = list(COLOURS).index(thing.colour)
        shapes[mask] = SHAPES.index(thing.shape)
    return colours.reshape(-1), shapes.reshape(-1)


def token_outlines(scene: Scene, width: int, height: int) -> np.ndarray[Any, Any]:
    """Return 1 for each token that the edge of a thing crosses, 0 for the others."""
    columns, rows, step = width // TOKEN_PIXELS, height // TOKEN_PIXELS, TOKEN_PIXELS // _OUTLINE_SAMPLES
    x: FloatArray = ((np.arange(columns * _OUTLINE_SAMPLES) + 0.5) * step)[None, :]
    y: FloatArray = ((np.arange(rows * _OUTLINE_SAMPLES) + 0.5) * step)[:, None]
    crossed = np.zeros((rows, columns), dtype=np.bool_)
    for thing in scene.things:
        radius = thing.radius * min(width, height)
        mask = covers(thing.shape, (x - thing.x * width) / radius, (y - thing.y * height) / radius)
        part = mask.reshape(rows, _OUTLINE_SAMPLES, columns, _OUTLINE_SAMPLES).mean((1, 3))
        crossed |= (part > 0) & (part < 1)
    return crossed.astype(np.uint8).reshape(-1)


@torch.no_grad()
def _encoded(vae: AutoencoderKLQwenImage, scenes: list[Scene], width: int, height: int) -> Tensor:
    pixels = np.stack([render(scene, width, height) for scene in scenes])
    device = vae.device
    pictures = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=product_dtype(device) == torch.bfloat16):
        latents, _ = encode(vae, pictures)
    return pack((latents.float() - mean) / std).half().cpu()


def write_shard(
    file: Path, vae: AutoencoderKLQwenImage, layouts: Mapping[Layout, int], size: PictureSize, seed: int
) -> None:
    """Draw and encode so many scenes of each layout, none of them held out, and write them beside `file`."""
    width, height = size
    rng = random.Random(seed)
    scenes = [training_scene(rng, layout, kept) for layout, count in layouts.items() for _ in range(count)]
    rng.shuffle(scenes)
    at_once = max(1, _ENCODED_AT_ONCE // (width * height))
    with two_dimensional():
        latents = torch.cat(
            [
                _encoded(vae, scenes[start : start + at_once], width, height)
                for start in track(range(0, len(scenes), at_once), f"{width}x{height}")
            ]
        )
    labels = [token_labels(scene, width, height) for scene in scenes]
    tensors = {
        "latents": latents,
        "colours": torch.from_numpy(np.stack([colours for colours, _ in labels])),
        "shapes": torch.from_numpy(np.stack([shapes for _, shapes in labels])),
        "outlines": torch.from_numpy(np.stack([token_outlines(scene, width, height) for scene in scenes])),
    }
    described = {"width": width, "height": height, "scenes": [dataclasses.asdict(scene) for scene in scenes]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")
    # The tensors come last: who sees them finds the scenes too.
    unfinished = file.with_suffix(".unfinished")
    save_file(tensors, unfinished)
    unfinished.rename(file.with_suffix(".safetensors"))


def _scene(fields: dict[str, Any]) -> Scene:
    return Scene(
        background=fields["background"],
        things=tuple(Thing(**thing) for thing in fields["things"]),
        layout=fields["layout"],
        place=tuple(fields["place"]) if fields["place"] else None,
        seed=fields["seed"],
    )


def read_shard(file: Path) -> Shard:
    """Read the shard whose tensors are in `file`."""
    described = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    tensors = load_file(file)
    return Shard(
        width=described["width"],
        height=described["height"],
        scenes=tuple(_scene(fields) for fields in described["scenes"]),
        latents=tensors["latents"],
        colours=tensors["colours"],
        shapes=tensors["shapes"],
        outlines=tensors["outlines"],
    )
