"""The demo model knows what words mean: colour, shape, place, negative prompt, guidance, source picture, mask."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import QwenImageInpaintPipeline, QwenImagePipeline
from PIL import Image, ImageDraw

from demo_model.reader import Object, Reading, read
from qwen_image_daemon.jobs.families import ASPECT_RATIOS, DEMO, AspectRatio
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import ModelUnavailable, Progress, Renderer, RenderRequest
from qwen_image_daemon.settings import EMBEDDED, ModelSettings, RenderSettings

# Held out of the training or not. All but the star are in the documented vocabulary (the model card).
THINGS = [
    ("circle", "red", "white"),
    ("square", "blue", "yellow"),
    ("triangle", "green", "white"),
    ("star", "purple", "white"),
    ("heart", "pink", "black"),
    ("diamond", "orange", "blue"),
    ("circle", "yellow", "purple"),
    ("square", "black", "white"),
    ("triangle", "brown", "cyan"),
    ("heart", "red", "white"),
    ("diamond", "cyan", "black"),
    ("square", "gray", "green"),
]

PLAIN = RenderRequest(
    task="text-to-image",
    prompt="a red circle on a white background",
    negative_prompt=" ",
    true_cfg_scale=DEMO.recommended.true_cfg_scale,
    num_inference_steps=DEMO.recommended.num_inference_steps,
    width=128,
    height=128,
    seed=1,
)


@pytest.fixture(scope="module")
def demo() -> Iterator[Renderer]:
    with DiffusersRenderer(
        ModelSettings(family="demo", source=EMBEDDED),
        RenderSettings(device="cpu", precisions=("float32",)),
        Accessories(),
    ) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def pipeline() -> QwenImagePipeline:
    folder = ModelSettings(family="demo", source=EMBEDDED).folder
    loaded = QwenImagePipeline.from_pretrained(folder, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def ignore(_: Progress) -> None:
    pass


def draw(demo: Renderer, request: RenderRequest = PLAIN, **changes: object) -> Image.Image:
    return demo.render(replace(request, **changes), ignore).image  # type: ignore[arg-type]


def only(reading: Reading) -> Object:
    [seen] = reading.objects
    return seen


def sentence(shape: str, colour: str, background: str) -> str:
    article = "an" if colour[0] in "aeiou" else "a"
    return f"{article} {colour} {shape} on a {background} background"


def is_right(reading: Reading, shape: str, colour: str, background: str) -> bool:
    seen = [(one.shape, one.colour) for one in reading.objects]
    return reading.background == background and seen == [(shape, colour)]


def red_circle_on_the_left(background: str = "white") -> Image.Image:
    picture = Image.new("RGB", (128, 128), background)
    ImageDraw.Draw(picture).ellipse((16, 40, 64, 88), fill=(220, 30, 30))
    return picture


def test_the_colour_shape_and_background_of_the_prompt_are_in_the_picture(demo: Renderer) -> None:
    right = [is_right(read(draw(demo, prompt=sentence(*thing), seed=11)), *thing) for thing in THINGS]
    assert sum(right) >= len(THINGS) - 1, [thing for thing, good in zip(THINGS, right, strict=True) if not good]


def test_guidance_makes_pictures_follow_their_prompts_more_closely(demo: Renderer) -> None:
    def fit(scale: float) -> float:
        negative = " " if scale > 1 else None
        total = 0.0
        for thing in THINGS:
            picture = draw(demo, prompt=sentence(*thing), seed=23, true_cfg_scale=scale, negative_prompt=negative)
            reading = read(picture)
            if is_right(reading, *thing):
                total += only(reading).fit
        return total

    assert fit(4.0) > fit(1.0)


def test_another_seed_moves_or_resizes_what_is_shown(demo: Renderer) -> None:
    seen = [only(read(draw(demo, seed=seed))) for seed in range(4)]
    assert {(one.shape, one.colour) for one in seen} == {("circle", "red")}
    boxes = {(round(one.x, 2), round(one.y, 2), round(one.width, 2)) for one in seen}
    assert len(boxes) == 4


def test_a_negative_prompt_pushes_its_colour_away(demo: Renderer) -> None:
    open_colour = replace(PLAIN, prompt="a square on a white background")
    kept: Counter[bool] = Counter()
    for seed in range(8):
        plain = read(draw(demo, open_colour, seed=seed)).objects
        if len(plain) == 1:
            colour = plain[0].colour
            pushed = read(draw(demo, open_colour, seed=seed, negative_prompt=colour)).objects
            kept[any(one.colour == colour for one in pushed)] += 1
    assert kept[False] >= 4
    assert kept[True] <= 1


def test_little_strength_keeps_the_source_and_much_follows_the_prompt(demo: Renderer) -> None:
    source = red_circle_on_the_left()
    request = replace(PLAIN, task="image-to-image", source=source, prompt="a blue square on a yellow background")
    kept = read(draw(demo, request, strength=0.25))
    assert (only(kept).shape, only(kept).colour, kept.background) == ("circle", "red", "white")
    assert only(kept).x < 0.5
    redrawn = read(draw(demo, request, strength=1.0))
    assert (only(redrawn).shape, only(redrawn).colour, redrawn.background) == ("square", "blue", "yellow")


def test_a_mask_keeps_what_is_outside_and_redraws_what_is_inside(pipeline: QwenImagePipeline) -> None:
    source = red_circle_on_the_left()
    mask = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(mask).rectangle((8, 32, 71, 95), fill=255)
    inpaint = QwenImageInpaintPipeline(**pipeline.components)
    inpaint.set_progress_bar_config(disable=True)
    [image] = inpaint(
        prompt="a blue circle on a white background",
        negative_prompt=" ",
        true_cfg_scale=4.0,
        image=source,
        mask_image=mask,
        strength=1.0,
        width=128,
        height=128,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(3),
    ).images
    inside = np.asarray(mask) > 0
    before, after = (np.asarray(picture, dtype=int) for picture in (source, image))
    # What the VAE's own round trip leaves: a few levels.
    assert np.abs(after - before)[~inside].mean() < 6
    assert "red" not in {one.colour for one in read(image).objects}
    assert "blue" in {one.colour for one in read(image).objects}


def test_a_batch_and_single_calls_give_the_same_pictures_but_for_rounding(pipeline: QwenImagePipeline) -> None:
    settings = {"negative_prompt": " ", "width": 128, "height": 128, "num_inference_steps": 8}
    seeds = (1, 2)
    batch = pipeline(
        "a green heart",
        num_images_per_prompt=2,
        generator=[torch.Generator().manual_seed(s) for s in seeds],
        **settings,
    ).images
    for seed, together in zip(seeds, batch, strict=True):
        [alone] = pipeline("a green heart", generator=torch.Generator().manual_seed(seed), **settings).images
        difference = np.abs(np.asarray(together, dtype=int) - np.asarray(alone, dtype=int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.002


@pytest.mark.parametrize("ratio", ASPECT_RATIOS)
def test_every_aspect_ratio_is_exact_and_shows_what_was_asked(demo: Renderer, ratio: AspectRatio) -> None:
    size = DEMO.sizes[ratio]
    across, down = map(int, ratio.split(":"))
    assert size.width * down == size.height * across
    picture = draw(demo, width=size.width, height=size.height, seed=4)
    assert picture.size == (size.width, size.height)
    assert is_right(read(picture), "circle", "red", "white")


def test_a_checkpoint_with_an_altered_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = ModelSettings(family="demo", source=EMBEDDED).folder
    assert folder is not None
    for path in folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    model = ModelSettings(family="demo", source=str(tmp_path))
    renderer = DiffusersRenderer(model, RenderSettings(device="cpu"), Accessories())
    with pytest.raises(ModelUnavailable, match=r"vae/diffusion_pytorch_model\.safetensors was altered"):
        renderer.__enter__()


def test_the_shipped_model_is_small_enough_to_be_shipped() -> None:
    folder = ModelSettings(family="demo", source=EMBEDDED).folder
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 16_000_000
