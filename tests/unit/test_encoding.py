"""Finished pictures as files: the recipe is inside, and can be read back."""

import io
import json
from typing import Any

import pytest
from PIL import Image

from qwen_image_daemon.jobs.models import Output, OutputFormat
from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.encoding import PNG_KEY, encode

PICTURE = Image.effect_noise((64, 48), 60).convert("RGB")
DESCRIPTION = 0x010E


def parameters(
    format_: OutputFormat, prompt: str = "ein Schiff 🐈\nzweite Zeile", **more: Any
) -> EffectiveParameters:
    return EffectiveParameters(
        task="text-to-image",
        model="demo",
        prompt=prompt,
        negative_prompt=" ",
        true_cfg_scale=4.0,
        num_inference_steps=20,
        width=64,
        height=48,
        seed=7,
        num_images=3,
        output=Output(format=format_, **more),
    )


def recipe_of(content: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        text = image.info[PNG_KEY] if image.format == "PNG" else image.getexif()[DESCRIPTION]
    return dict(json.loads(text))


@pytest.mark.parametrize("format_", ["png", "webp", "jpeg"])
def test_the_recipe_to_draw_a_picture_again_can_be_read_out_of_it(format_: OutputFormat) -> None:
    recipe = recipe_of(encode(PICTURE, parameters(format_), 9, png_compression=1))
    assert recipe == {
        "task": "text-to-image",
        "model": "demo",
        "prompt": "ein Schiff 🐈\nzweite Zeile",
        "negative_prompt": " ",
        "true_cfg_scale": 4.0,
        "num_inference_steps": 20,
        "width": 64,
        "height": 48,
        "seed": 9,
    }


@pytest.mark.parametrize("format_", ["png", "webp"])
def test_nothing_is_lost_in_files_that_promise_so(format_: OutputFormat) -> None:
    with Image.open(io.BytesIO(encode(PICTURE, parameters(format_), 9, png_compression=9))) as image:
        assert image.format == format_.upper()
        assert image.convert("RGB").tobytes() == PICTURE.tobytes()


def test_jpeg_quality_is_what_was_asked() -> None:
    sizes = [len(encode(PICTURE, parameters("jpeg", quality=q), 9, png_compression=1)) for q in (30, 95)]
    assert sizes[0] < sizes[1]
    assert len(encode(PICTURE, parameters("jpeg"), 9, png_compression=1)) == sizes[1]


@pytest.mark.parametrize("format_", ["png", "webp", "jpeg"])
def test_the_same_picture_gives_the_same_bytes(format_: OutputFormat) -> None:
    once, twice = (encode(PICTURE, parameters(format_), 9, png_compression=4) for _ in range(2))
    assert once == twice


@pytest.mark.parametrize("format_", ["png", "webp", "jpeg"])
def test_the_longest_prompt_fits_or_says_where_it_is(format_: OutputFormat) -> None:
    prompt = "🐈" * 10_000
    recipe = recipe_of(encode(PICTURE, parameters(format_, prompt), 9, png_compression=1))
    assert recipe["seed"] == 9
    assert recipe["prompt"] == (prompt if format_ != "jpeg" else "(too long for JPEG: see result.json)")
