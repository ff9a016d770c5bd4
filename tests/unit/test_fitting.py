"""Pictures come to another size without being stretched, and their masks go with them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.fitting import placed, placed_mask, placed_on, shaped_like

sides = st.integers(min_value=1, max_value=4000)
sizes = st.builds(Size, sides, sides)
small = st.builds(Size, st.integers(1, 80), st.integers(1, 80))


def dot(size: Size) -> Image.Image:
    """Give a white picture with a black disc of half its shorter side in the middle."""
    picture = Image.new("RGB", (size.width, size.height), "white")
    radius = min(size.width, size.height) // 4
    middle = (size.width // 2, size.height // 2)
    ImageDraw.Draw(picture).circle(middle, radius, fill="black")
    return picture


def extent(picture: Image.Image) -> tuple[int, int]:
    """Give width and height of what is black."""
    left, upper, right, lower = picture.convert("L").point(lambda level: 255 - level).getbbox() or (0, 0, 0, 0)
    return right - left, lower - upper


@given(sizes, sizes)
def test_padding_keeps_the_shape_and_fills_one_side(source: Size, canvas: Size) -> None:
    inner = placed_on(source, canvas, "pad").scaled
    assert inner.width == canvas.width or inner.height == canvas.height
    assert 1 <= inner.width <= canvas.width
    assert 1 <= inner.height <= canvas.height
    scale = min(canvas.width / source.width, canvas.height / source.height)
    assert abs(inner.width - source.width * scale) <= 1
    assert abs(inner.height - source.height * scale) <= 1


@given(sizes, sizes)
def test_cutting_keeps_the_shape_and_covers_both_sides(source: Size, canvas: Size) -> None:
    outer = placed_on(source, canvas, "crop").scaled
    assert outer.width == canvas.width or outer.height == canvas.height
    assert outer.width >= canvas.width
    assert outer.height >= canvas.height
    scale = max(canvas.width / source.width, canvas.height / source.height)
    assert abs(outer.width - source.width * scale) <= 1
    assert abs(outer.height - source.height * scale) <= 1


@given(small, small, st.sampled_from(["pad", "crop", "scale"]))
def test_the_result_has_exactly_the_size_asked_for(source: Size, canvas: Size, fit: str) -> None:
    placement = placed_on(source, canvas, fit)  # type: ignore[arg-type]
    picture = placed(Image.new("RGB", (source.width, source.height), "teal"), placement)
    assert np.asarray(picture).reshape(-1, 3).tolist() == [[0, 128, 128]] * (canvas.width * canvas.height)
    assert picture.size == (canvas.width, canvas.height)
    mask = placed_mask(Image.new("L", (source.width, source.height), 255), placement)
    assert mask.size == picture.size


@given(small, small, st.sampled_from(["pad", "crop"]))
def test_a_reference_gets_the_shape_and_keeps_its_scale(source: Size, shape: Size, fit: str) -> None:
    placement = shaped_like(source, shape, fit)  # type: ignore[arg-type]
    assert placement.scaled == source
    canvas = placement.canvas
    # To the pixel that rounding costs.
    assert abs(canvas.width * shape.height - canvas.height * shape.width) <= max(shape.width, shape.height) + (
        max(shape.width, shape.height) if min(canvas.width, canvas.height) <= 1 else 0
    )
    if fit == "pad":
        assert canvas.width >= source.width
        assert canvas.height >= source.height


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    original = Image.effect_noise((64, 48), 80).convert("RGB")
    placement = placed_on(Size(64, 48), Size(64, 48), "pad")
    assert placed(original, placement).tobytes() == original.tobytes()
    assert placement.note("x.png") == ()


def test_a_circle_stays_a_circle_and_the_margins_repeat_the_edge() -> None:
    for fit in ("pad", "crop"):
        placement = placed_on(Size(200, 100), Size(128, 128), fit)
        wide, high = extent(placed(dot(Size(200, 100)), placement))
        assert abs(wide - high) <= 2
    half = Image.new("RGB", (100, 50), "red")
    half.paste("blue", (50, 0, 100, 50))
    image = placed(half, placed_on(Size(100, 50), Size(64, 64), "pad"))
    for row in (0, 32, 63):
        assert image.getpixel((5, row)) == (255, 0, 0)
        assert image.getpixel((58, row)) == (0, 0, 255)


def test_what_was_done_is_said() -> None:
    assert placed_on(Size(100, 50), Size(64, 64), "pad").note("x.png") == (
        "x.png, 100×50, was scaled to 64×32 and padded to 64×64",
    )
    assert placed_on(Size(100, 50), Size(64, 64), "crop").note("x.png") == (
        "x.png, 100×50, was scaled to 128×64 and cut to 64×64",
    )
    assert placed_on(Size(128, 64), Size(64, 32), "pad").note("x.png") == ("x.png, 128×64, was scaled to 64×32",)
    assert shaped_like(Size(100, 50), Size(64, 64), "pad").note("x.png") == (
        "x.png, 100×50, was padded to 100×100",
    )


def test_a_mask_follows_its_picture_at_any_scale_and_leaves_the_margins_alone() -> None:
    mask = Image.new("L", (50, 25), 0)
    mask.paste(255, (25, 0, 50, 25))
    placement = placed_on(Size(100, 50), Size(64, 64), "pad")
    upon = np.asarray(placed_mask(mask, placement))
    assert not upon[:16].any()
    assert not upon[48:].any()
    assert not upon[16:48, :28].any()
    assert (upon[16:48, 36:] == 255).all()
