"""Source pictures become upright RGB of exactly the size asked for, and keep their shape."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.sources import fitted, load_source, to_rgb

sides = st.integers(min_value=1, max_value=4000)
sizes = st.builds(Size, sides, sides)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@given(sizes, sizes)
def test_the_shape_is_kept_and_one_side_is_filled(source: Size, target: Size) -> None:
    inner = fitted(source, target)
    assert inner.width == target.width or inner.height == target.height
    assert 1 <= inner.width <= target.width
    assert 1 <= inner.height <= target.height
    scale = min(target.width / source.width, target.height / source.height)
    assert abs(inner.width - source.width * scale) <= 1
    assert abs(inner.height - source.height * scale) <= 1


@given(
    st.builds(Size, st.integers(1, 60), st.integers(1, 60)),
    st.builds(Size, st.integers(1, 80), st.integers(1, 80)),
)
def test_the_result_has_exactly_the_size_asked_for(source: Size, target: Size) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved(Path(folder) / "x.png", Image.new("RGB", (source.width, source.height), "teal"))
        image, notes = load_source(path, target)
    assert image.size == (target.width, target.height)
    assert image.mode == "RGB"
    assert np.asarray(image).reshape(-1, 3).tolist() == [[0, 128, 128]] * (target.width * target.height)
    assert bool(notes) == (source != target)


def test_a_picture_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    original = Image.effect_noise((64, 48), 80).convert("RGB")
    image, notes = load_source(saved(tmp_path / "x.png", original), Size(64, 48))
    assert image.tobytes() == original.tobytes()
    assert notes == ()


def test_a_circle_stays_a_circle_and_the_rest_repeats_the_edge(tmp_path: Path) -> None:
    half = Image.new("RGB", (100, 50), "red")
    half.paste("blue", (50, 0, 100, 50))
    image, [note] = load_source(saved(tmp_path / "x.png", half), Size(64, 64))
    assert note == "x.png, 100×50, was scaled to 64×32 and padded to 64×64"
    for row in (0, 32, 63):
        assert image.getpixel((5, row)) == (255, 0, 0)
        assert image.getpixel((58, row)) == (0, 0, 255)


def test_a_picture_that_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    lying = Image.new("RGB", (60, 40), "red")
    lying.paste("blue", (30, 0, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image, notes = load_source(saved(tmp_path / "x.jpg", lying, exif=exif, quality=95), Size(40, 60))
    assert notes == ()
    red, _, blue = image.getpixel((20, 5))  # type: ignore[misc]
    assert red > 200 > blue
    red, _, blue = image.getpixel((20, 55))  # type: ignore[misc]
    assert blue > 200 > red


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 4), (0,) * len(mode))
    drawn, _ = load_source(saved(tmp_path / "x.png", image), Size(4, 4))
    assert drawn.getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_becomes_white_there(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 1), 1)
    drawn, _ = load_source(saved(tmp_path / "x.png", image, transparency=0), Size(4, 4))
    assert drawn.getpixel((0, 0)) == (255, 255, 255)
    assert drawn.getpixel((1, 1)) == (200, 100, 50)


@pytest.mark.parametrize(("mode", "colour", "rgb"), [("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255))])
def test_grey_and_black_and_white_keep_their_levels(
    tmp_path: Path, mode: str, colour: int, rgb: tuple[int, int, int]
) -> None:
    drawn, _ = load_source(saved(tmp_path / "x.png", Image.new(mode, (4, 4), colour)), Size(4, 4))
    assert drawn.getpixel((0, 0)) == rgb


def test_sixteen_bits_of_grey_keep_their_levels(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    drawn, _ = load_source(saved(tmp_path / "x.png", Image.fromarray(levels)), Size(16, 16))
    assert np.asarray(drawn)[..., 0].tolist() == (levels >> 8).tolist()


def test_printers_colours_become_screen_colours(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    drawn, _ = load_source(saved(tmp_path / "x.jpg", image, quality=95), Size(8, 8))
    red, green, blue = drawn.getpixel((4, 4))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 15


def test_whole_numbers_out_of_range_are_clipped() -> None:
    image = Image.new("I", (1, 2))
    image.putpixel((0, 0), 40_000)
    image.putpixel((0, 1), 300_000)
    assert [pixel[0] for pixel in np.asarray(to_rgb(image)).reshape(2, 3)] == [156, 255]
