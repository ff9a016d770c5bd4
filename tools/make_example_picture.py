#!/usr/bin/env python3
"""Draw the photograph-like picture of the examples: a harbour at dusk, from gradients, light, blur and grain.

    python tools/make_example_picture.py jobs_example/harbour.jpg

The picture is the project's own, and the same on every run.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT, HORIZON = 960, 640, 372
SUN = (655, 318)
TOWN_ENDS_AT = 420
LIT_WINDOWS = 0.45

Floats = NDArray[np.floating[Any]]


def main() -> None:
    """Draw the picture, and write it to the path on the command line."""
    target = Path(sys.argv[1])
    dice = np.random.default_rng(7)
    picture = _sky(dice)
    picture = _with_hills(picture, dice)
    picture = _with_town(picture, dice)
    picture = _with_water(picture, dice)
    picture = _with_boats(picture)
    picture = _with_bokeh(picture, dice)
    _developed(picture, dice).save(target, quality=86, optimize=True)
    print(f"{target}: {target.stat().st_size:,} bytes")


def _noise(dice: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Smooth noise from -1 to 1: a small random picture, enlarged. Both sizes are (height, width)."""
    small = Image.fromarray(dice.integers(0, 256, cells, dtype=np.uint8))
    large = small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(large, dtype=np.float32) / 127.5 - 1.0


def _clouds(dice: np.random.Generator) -> Floats:
    shape = (HORIZON, WIDTH)
    octaves = [(6, 4), (12, 9), (24, 20), (48, 44), (96, 90)]
    heap = sum(_noise(dice, shape, cells) / 1.7**level for level, cells in enumerate(octaves))
    return np.asarray(np.clip((heap - 0.15) / 1.3, 0.0, 1.0), dtype=np.float32)


def _sky(dice: np.random.Generator) -> Image.Image:
    rows, columns = np.mgrid[0:HORIZON, 0:WIDTH].astype(np.float32)
    height = np.power(rows / HORIZON, 1.25)[..., None]
    above, middle, below = np.array([34, 58, 112]), np.array([176, 128, 142]), np.array([255, 190, 120])
    low = np.clip(height * 2 - 1, 0, 1)
    sky = (above + (middle - above) * np.clip(height * 2, 0, 1)) * (1 - low) + below * low
    distance = np.hypot((columns - SUN[0]) * 0.75, (rows - SUN[1]) * 1.15)
    sky += np.exp(-distance / 120)[..., None] * np.array([130, 92, 40])
    cover = _clouds(dice)[..., None] * np.clip(1.15 - height * 0.8, 0, 1)
    lit = np.exp(-distance / 330)[..., None]
    sky = sky * (1 - 0.75 * cover) + (np.array([86, 80, 112]) + lit * np.array([170, 96, 46])) * 0.75 * cover
    sun = np.clip(1.6 - distance / 17, 0, 1)[..., None]
    sky = sky * (1 - sun) + np.array([255, 244, 214]) * sun
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    picture.paste(Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8)), (0, 0))
    return picture


def _with_hills(picture: Image.Image, dice: np.random.Generator) -> Image.Image:
    """Lay three ranges before one another; the farther, the more they take the colour of the air."""
    for base, rise, cells, colour in (
        (322, 34, 6, (158, 122, 138)),
        (344, 24, 9, (112, 92, 116)),
        (361, 17, 13, (66, 60, 84)),
    ):
        ridge = base - rise * _noise(dice, (1, WIDTH), (1, cells))[0] - 3 * _noise(dice, (1, WIDTH), (1, 90))[0]
        mask = Image.new("L", picture.size)
        points = [(x, float(y)) for x, y in enumerate(ridge)]
        ImageDraw.Draw(mask).polygon([*points, (WIDTH, HORIZON), (0, HORIZON)], fill=255)
        picture.paste(colour, mask=mask.filter(ImageFilter.GaussianBlur(1.2)))
    return picture


def _with_town(picture: Image.Image, dice: np.random.Generator) -> Image.Image:
    """Put houses with lit windows, a church and a lighthouse on the shore."""
    draw = ImageDraw.Draw(picture)
    x = -10
    while x < TOWN_ENDS_AT:
        wide, tall = int(dice.integers(20, 42)), int(dice.integers(24, 54)) + max(0, 26 - x // 14)
        shade = int(dice.integers(0, 26))
        top = HORIZON - tall
        draw.rectangle((x, top, x + wide, HORIZON), fill=(52 + shade, 44 + shade, 58 + shade))
        roof = [(x - 2, top), (x + wide // 2, top - int(dice.integers(8, 17))), (x + wide + 2, top)]
        draw.polygon(roof, fill=(74 + shade, 42 + shade // 2, 44 + shade // 2))
        for column in range(x + 5, x + wide - 5, 9):
            for row in range(top + 7, HORIZON - 8, 12):
                if dice.random() < LIT_WINDOWS:
                    dim = int(dice.integers(0, 50))
                    draw.rectangle((column, row, column + 3, row + 5), fill=(255, 206 - dim // 2, 120 - dim))
        x += wide + int(dice.integers(-1, 4))
    draw.rectangle((212, 268, 232, HORIZON), fill=(58, 50, 64))
    draw.polygon([(208, 270), (222, 212), (236, 270)], fill=(44, 42, 58))
    draw.polygon([(796, HORIZON), (801, 268), (819, 268), (824, HORIZON)], fill=(214, 196, 190))
    draw.polygon([(798, 332), (800, 303), (820, 303), (822, 332)], fill=(172, 60, 56))
    draw.rectangle((799, 252, 821, 268), fill=(60, 44, 52))
    draw.rectangle((803, 255, 817, 266), fill=(255, 236, 170))
    draw.polygon([(799, 252), (810, 240), (821, 252)], fill=(120, 44, 46))
    draw.polygon([(720, HORIZON), (770, 360), (880, 358), (960, 366), (960, HORIZON)], fill=(48, 44, 58))
    far = picture.filter(ImageFilter.GaussianBlur(0.9))
    glow = far.filter(ImageFilter.GaussianBlur(9))
    light = np.asarray(far, dtype=np.float32) + 0.35 * np.clip(np.asarray(glow, dtype=np.float32) - 90, 0, 255)
    return Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))


def _with_water(picture: Image.Image, dice: np.random.Generator) -> Image.Image:
    """Mirror what is above the horizon, stirred by waves that grow towards the viewer."""
    above = np.asarray(picture, dtype=np.float32)[:HORIZON]
    depth = np.arange(HEIGHT - HORIZON, dtype=np.float32)
    near = depth / depth[-1]
    rows, columns = np.mgrid[0 : len(depth), 0:WIDTH]
    waves = _noise(dice, rows.shape, (70, 10)) + 0.6 * _noise(dice, rows.shape, (134, 40))
    # Farther waves look flatter: the noise is read faster towards the horizon.
    read = (np.sqrt(near) * (len(depth) - 1)).astype(int)
    waves = waves[read]
    source_rows = HORIZON - 2 - depth[:, None] * 1.32 + waves * (2 + 15 * near[:, None])
    source_columns = columns + waves * (1 + 9 * near[:, None])
    mirrored = above[
        np.clip(source_rows, 0, HORIZON - 1).astype(int), np.clip(source_columns, 0, WIDTH - 1).astype(int)
    ]
    sea = np.array([22, 40, 66], dtype=np.float32)
    strength = (0.80 - 0.34 * near)[:, None, None]
    water = mirrored * strength + sea * (1 - strength)
    path = np.exp(-(((columns - SUN[0]) / (26 + 110 * near[:, None])) ** 2))
    sparkle = np.clip(waves - 0.15, 0, 1) * path
    water += sparkle[..., None] * np.array([250, 176, 92])
    whole = np.asarray(picture).copy()
    whole[HORIZON:] = np.clip(water, 0, 255).astype(np.uint8)
    return Image.fromarray(whole)


def _with_boats(picture: Image.Image) -> Image.Image:
    """Moor three sailing boats, each with its reflection."""
    for x, y, size, hull in (
        (330, 420, 0.8, (196, 190, 186)),
        (492, 398, 0.5, (150, 60, 54)),
        (190, 492, 1.5, (38, 74, 104)),
    ):
        layer = Image.new("RGBA", (WIDTH * 2, HEIGHT * 2))
        draw = ImageDraw.Draw(layer)
        unit = size * 2

        def at(
            points: list[tuple[float, float]], x: int = x, y: int = y, unit: float = unit
        ) -> list[tuple[float, float]]:
            return [(2 * x + unit * right, 2 * y + unit * down) for right, down in points]

        draw.line(at([(2, -4), (2, -108)]), fill=(46, 36, 36, 255), width=max(2, round(1.6 * unit)))
        draw.polygon(at([(5, -14), (5, -104), (44, -18)]), fill=(236, 216, 192, 255))
        draw.polygon(at([(-1, -14), (-1, -92), (-30, -14)]), fill=(206, 178, 160, 255))
        draw.polygon(at([(-46, -8), (52, -10), (38, 9), (-34, 9)]), fill=(*hull, 255))
        draw.polygon(at([(-46, -8), (52, -10), (51, -6), (-45, -4)]), fill=(240, 228, 210, 255))
        draw.polygon(at([(-34, 9), (38, 9), (40, 5), (-37, 5)]), fill=(30, 26, 34, 255))
        boat = layer.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        waterline = y + round(9 * size)
        mirror = boat.crop((0, 2 * waterline - HEIGHT, WIDTH, waterline)).transpose(
            Image.Transpose.FLIP_TOP_BOTTOM
        )
        mirror = mirror.filter(ImageFilter.GaussianBlur(1.6 * size + 0.8))
        mirror.putalpha(mirror.getchannel("A").point([level * 45 // 100 for level in range(256)]))
        picture.paste(mirror, (0, waterline), mirror)
        picture.paste(boat, (0, 0), boat)
    return picture


def _with_bokeh(picture: Image.Image, dice: np.random.Generator) -> Image.Image:
    """Let lamps near the viewer blur into discs, as a wide aperture does."""
    light = Image.new("RGB", picture.size)
    for _ in range(13):
        disc = Image.new("L", picture.size)
        x, y = int(dice.integers(690, WIDTH + 20)), int(dice.integers(470, HEIGHT + 10))
        radius = int(dice.integers(14, 36))
        draw = ImageDraw.Draw(disc)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=95, outline=140, width=2)
        colour = ((255, 190, 110), (255, 150, 90), (255, 222, 170))[int(dice.integers(0, 3))]
        light.paste(colour, mask=disc.filter(ImageFilter.GaussianBlur(1.8)))
    lit = 255 - (255 - np.asarray(picture, dtype=np.float32)) * (255 - np.asarray(light, dtype=np.float32)) / 255
    return Image.fromarray(lit.astype(np.uint8))


def _developed(picture: Image.Image, dice: np.random.Generator) -> Image.Image:
    """Add what a lens and a film add: softness, dark corners, a curve and grain."""
    values = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.5)), dtype=np.float32) / 255
    rows, columns = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    values *= (1.04 - 0.30 * (rows**2 + columns**2) / 2 * 1.3)[..., None]
    values = np.clip(values, 0, 1)
    values = values * values * (3 - 2 * values) * 0.45 + values * 0.55
    values += dice.normal(0, 0.011, values.shape[:2])[..., None]
    return Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))


if __name__ == "__main__":
    main()
