"""Train the VAE: windows of drawn pictures, most of them on an outline, where all the difficulty is."""

# Lots are drawn for pictures here, not for secrets, and a probability says itself what it is.
# ruff: noqa: S311, PLR2004

from __future__ import annotations

import copy
import json
import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that everybody knows)
from diffusers import AutoencoderKLQwenImage
from rich.progress import Progress

from .muon import Muon
from .precision import product_dtype
from .single_frame import decode, encode, forget_other_frames, two_dimensional
from .world import LAYOUTS, SHAPES, ByteArray, FloatArray, draw, jittered, render, training_scene

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LATENT_CHANNELS: Final = 8
_PICTURE_SIZES: Final = ((128, 128), (128, 128), (192, 192), (256, 256), (256, 144), (144, 256), (512, 512))
_WINDOWS: Final = {64: 16, 96: 8, 128: 4}
"""Side of a window in pixels, and how many make a batch."""
_WINDOW_SHARES: Final = (0.6, 0.25, 0.15)
_SAVE_EVERY_SECONDS: Final = 120.0
_STATISTICS_SCENES: Final = 120


@dataclass(frozen=True, slots=True)
class VaeSettings:
    """How to train; the defaults are for a start from nothing, a learning rate of 2e-3 is for going on."""

    minutes: float
    seed: int = 0
    learning_rate: float = 5e-3
    divergence: float = 1e-3
    foreign: float = 0.15


def new_vae() -> AutoencoderKLQwenImage:
    """Build an untrained VAE of 2.5 M parameters, initialised for single pictures.

    The classes' default initialisation barely learns: it counts the two temporal slices that a single picture
    never meets as inputs. Residual branches start quiet, the posterior narrow.
    """
    vae = AutoencoderKLQwenImage(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, False, False],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    with torch.no_grad():
        for name, module in vae.named_modules():
            weight = getattr(module, "weight", None)
            if weight is None or weight.ndim < 4:
                continue
            kernel = weight[:, :, -1] if weight.ndim == 5 else weight
            gain = 0.1 if name.endswith(("conv2", "proj")) else 1.0
            drawn = torch.randn_like(kernel) * gain / math.sqrt(kernel[0].numel())
            weight.zero_()
            kernel.copy_(drawn)
            if module.bias is not None:
                module.bias.zero_()
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = -4.0
    return vae


def _foreign_picture(side: int, rng: random.Random) -> FloatArray:
    """Draw what isn't of the world, for people bring other pictures: shapes over gradients or clouds."""
    lots = np.random.default_rng(rng.randrange(1 << 32))
    picture: FloatArray
    if rng.random() < 0.5:
        corners = lots.uniform(0, 255, (2, 2, 3))
        y, x = (axis[..., None] for axis in np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j])
        top = corners[0, 0] * (1 - x) + corners[0, 1] * x
        bottom = corners[1, 0] * (1 - x) + corners[1, 1] * x
        picture = top * (1 - y) + bottom * y
    else:
        picture = np.broadcast_to(lots.uniform(60, 190, 3), (side, side, 3)).copy()
        for cells in (4, 8, 16, 32):
            cloud = torch.from_numpy(lots.normal(size=(1, 3, cells, cells)) * 60 / math.sqrt(cells))
            cloud = F.interpolate(cloud, size=(side, side), mode="bicubic")
            picture += cloud[0].permute(1, 2, 0).numpy()
    for _ in range(rng.randint(0, 9)):
        x, y = rng.uniform(0, side), rng.uniform(0, side)
        draw(picture, rng.choice(SHAPES), lots.uniform(0, 255, 3).tolist(), (x, y), rng.uniform(0.05, 0.4) * side)
    return picture


def _window(side: int, rng: random.Random, foreign: float) -> ByteArray:
    """Draw a square window of a bigger picture, mostly around some point near an object's outline."""
    if rng.random() < foreign:
        return np.clip(_foreign_picture(side, rng), 0, 255).astype(np.uint8)
    width, height = rng.choice(_PICTURE_SIZES)
    shorter = min(width, height)
    scene = training_scene(rng, rng.choice(LAYOUTS))
    target = rng.choice(scene.things)
    angle, reach = rng.uniform(0, 2 * math.pi), target.radius * shorter * rng.uniform(0.2, 1.1)
    x = target.x * width + reach * math.cos(angle)
    y = target.y * height + reach * math.sin(angle)
    if rng.random() < 0.12:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
    left = min(max(0, int(x - side / 2)), width - side)
    top = min(max(0, int(y - side / 2)), height - side)
    # Smaller than any caption speaks of, now and then: the VAE mustn't be what limits the picture.
    shrunk = rng.uniform(0.6, 1.0) if rng.random() < 0.3 else 1.0
    picture = np.empty((side, side, 3), dtype=np.float64)
    picture[:] = jittered(scene.background, rng)
    for thing in scene.things:
        centre = (thing.x * width - left, thing.y * height - top)
        draw(picture, thing.shape, jittered(thing.colour, rng), centre, thing.radius * shorter * shrunk)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _batch(rng: random.Random, foreign: float, device: torch.device) -> Tensor:
    side = rng.choices(tuple(_WINDOWS), _WINDOW_SHARES)[0]
    pixels = np.stack([_window(side, rng, foreign) for _ in range(_WINDOWS[side])])
    pictures = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures.contiguous(memory_format=torch.channels_last)


def _loss(vae: AutoencoderKLQwenImage, pictures: Tensor, divergence: float) -> tuple[Tensor, float]:
    """Return the loss and the mean absolute error in levels of 255."""
    with torch.autocast(
        pictures.device.type, dtype=torch.bfloat16, enabled=product_dtype(pictures.device) == torch.bfloat16
    ):
        mean, log_variance = encode(vae, pictures)
        mean, log_variance = mean.float(), log_variance.float().clamp(-12, 4)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        decoded = decode(vae, latents).float()
    wrong = decoded - pictures
    # Differences between neighbours make a soft edge dear.
    edges = wrong.diff(dim=-1).abs().mean() + wrong.diff(dim=-2).abs().mean()
    prior = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
    absolute = wrong.abs().mean()
    return absolute + wrong.pow(2).mean() + 0.5 * edges + divergence * prior, absolute.item() * 127.5


def train_vae(vae: AutoencoderKLQwenImage, folder: Path, settings: VaeSettings, device: torch.device) -> None:
    """Train until the time budget is used and write the averaged VAE, with its latents' statistics, to `folder`.

    What an earlier run has written to `folder` is a start for the next, with a fresh budget.
    """
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    vae.to(device).train().requires_grad_(requires_grad=True)
    average = copy.deepcopy(vae).requires_grad_(requires_grad=False)
    kernels = [parameter for parameter in vae.parameters() if parameter.ndim > 1 and parameter[0].numel() > 1]
    vectors = [parameter for parameter in vae.parameters() if parameter.ndim == 1 or parameter[0].numel() == 1]
    muon = Muon(kernels, settings.learning_rate)
    adam = torch.optim.AdamW(vectors, lr=settings.learning_rate / 2, betas=(0.9, 0.95), weight_decay=0.0)
    began = saved = time.monotonic()
    step = 0
    folder.mkdir(parents=True, exist_ok=True)
    with two_dimensional(), Progress() as bar, (folder / "log.jsonl").open("a", encoding="utf-8") as journal:
        task = bar.add_task("VAE", total=60 * settings.minutes)
        while (used := (time.monotonic() - began) / (60 * settings.minutes)) < 1:
            rate = min(1.0, (step + 1) / 30) * (0.5 * (1 + math.cos(math.pi * used)) * 0.995 + 0.005)
            for optimiser, share in ((muon, 1.0), (adam, 0.5)):
                for group in optimiser.param_groups:
                    group["lr"] = settings.learning_rate * share * rate
            loss, error = _loss(vae, _batch(rng, settings.foreign, device), settings.divergence)
            vae.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            muon.step()
            adam.step()
            step += 1
            kept = min(0.998, (1 + step) / (20 + step))
            with torch.no_grad():
                for mean, current in zip(average.parameters(), vae.parameters(), strict=True):
                    mean.lerp_(current, 1 - kept)
            bar.update(task, completed=60 * settings.minutes * used)
            if step % 50 == 0:
                journal.write(
                    json.dumps({"step": step, "minutes": used * settings.minutes, "error": error}) + "\n"
                )
                journal.flush()
            if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                average.save_pretrained(folder)
                saved = time.monotonic()
    forget_other_frames(average)
    register_statistics(average, settings.seed)
    average.save_pretrained(folder)


@torch.no_grad()
def register_statistics(vae: AutoencoderKLQwenImage, seed: int) -> None:
    """Measure mean and deviation of each latent channel over drawn scenes, for the configuration."""
    rng = random.Random(seed)
    means = []
    with two_dimensional():
        for index in range(_STATISTICS_SCENES):
            pixels = render(training_scene(rng, LAYOUTS[index % len(LAYOUTS)]), 128, 128)
            picture = torch.from_numpy(pixels).to(vae.device).permute(2, 0, 1)[None].float() / 127.5 - 1
            means.append(encode(vae, picture)[0][0].flatten(1))
    latents = torch.cat(means, dim=1)
    vae.register_to_config(
        latents_mean=[round(value, 5) for value in latents.mean(1).tolist()],
        latents_std=[round(value, 5) for value in latents.std(1).tolist()],
    )
