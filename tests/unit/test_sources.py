"""Pictures are read as they were meant to be seen: upright, in sRGB, with their transparency."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from qwen_image_daemon.render.sources import on_white, read_picture, to_colours


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def levels(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    return tuple(np.asarray(image)[at[1], at[0]].tolist())


def test_a_plain_picture_is_not_touched(tmp_path: Path) -> None:
    original = Image.effect_noise((64, 48), 80).convert("RGB")
    image, notes = read_picture(saved(tmp_path / "x.png", original))
    assert image.tobytes() == original.tobytes()
    assert (image.mode, notes) == ("RGB", ())


def test_a_picture_that_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    lying = Image.new("RGB", (60, 40), "red")
    lying.paste("blue", (30, 0, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image, notes = read_picture(saved(tmp_path / "x.jpg", lying, exif=exif, quality=95))
    assert (image.size, notes) == ((40, 60), ())
    red, _, blue = levels(image, (20, 5))
    assert red > 200 > blue
    red, _, blue = levels(image, (20, 55))
    assert blue > 200 > red


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_kept_and_becomes_white_where_a_task_has_no_use_for_it(tmp_path: Path, mode: str) -> None:
    image, _ = read_picture(saved(tmp_path / "x.png", Image.new(mode, (4, 4), (0,) * len(mode))))
    assert (image.mode, levels(image)[3]) == ("RGBA", 0)
    assert levels(on_white(image)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_is_transparent_there(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 1), 1)
    read, _ = read_picture(saved(tmp_path / "x.png", image, transparency=0))
    assert levels(read)[3] == 0
    assert levels(read, (1, 1)) == (200, 100, 50, 255)


@pytest.mark.parametrize(("mode", "colour", "rgb"), [("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255))])
def test_grey_and_black_and_white_keep_their_levels(
    tmp_path: Path, mode: str, colour: int, rgb: tuple[int, int, int]
) -> None:
    read, _ = read_picture(saved(tmp_path / "x.png", Image.new(mode, (4, 4), colour)))
    assert levels(read) == rgb


def test_sixteen_bits_of_grey_keep_their_levels(tmp_path: Path) -> None:
    """Pillow's own conversion leaves 17 of 256 levels."""
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    read, _ = read_picture(saved(tmp_path / "x.png", Image.fromarray(ramp)))
    assert np.asarray(read)[..., 0].tolist() == (ramp >> 8).tolist()


def test_whole_numbers_out_of_range_are_clipped() -> None:
    image = Image.new("I", (1, 2))
    image.putpixel((0, 0), 40_000)
    image.putpixel((0, 1), 300_000)
    assert [pixel[0] for pixel in np.asarray(to_colours(image)).reshape(2, 3)] == [156, 255]


def test_printers_colours_become_screen_colours(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    read, _ = read_picture(saved(tmp_path / "x.jpg", image, quality=95))
    red, green, blue = levels(read, (4, 4))
    assert red > 240
    assert max(green, blue) < 15


def profile(swapped: bytes) -> bytes:
    """Give an sRGB profile under another name, with the colour named before the colon for the one behind it."""
    built = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for one, other in (swapped.split(b":"),):
        built = built.replace(one, b"\0" * 4).replace(other, one).replace(b"\0" * 4, other)
    return built.replace("sRGB".encode("utf-16-be"), "XRGB".encode("utf-16-be"))


def test_a_colour_profile_is_translated_into_srgb(tmp_path: Path) -> None:
    """In this one red and blue have changed places."""
    image = Image.new("RGB", (4, 4), (250, 10, 30))
    swapped = profile(b"rXYZ:bXYZ")
    read, notes = read_picture(saved(tmp_path / "x.png", image, icc_profile=swapped))
    assert notes == ()
    red, green, blue = levels(read)
    assert (abs(red - 30) < 3, abs(green - 10) < 3, abs(blue - 250) < 3) == (True, True, True)


def test_the_translation_of_colours_leaves_transparency_alone(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (250, 10, 30, 77))
    read, _ = read_picture(saved(tmp_path / "x.png", image, icc_profile=profile(b"rXYZ:bXYZ")))
    assert (read.mode, levels(read)[3]) == ("RGBA", 77)
    assert levels(read)[2] > 240


def test_the_usual_profile_changes_nothing(tmp_path: Path) -> None:
    original = Image.effect_noise((64, 48), 80).convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    read, notes = read_picture(saved(tmp_path / "x.png", original, icc_profile=srgb))
    assert (read.tobytes(), notes) == (original.tobytes(), ())


def test_a_broken_profile_is_told_and_the_picture_read_without_it(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), (250, 10, 30))
    read, [note] = read_picture(saved(tmp_path / "x.png", image, icc_profile=b"no profile"))
    assert levels(read) == (250, 10, 30)
    assert note.startswith("the colour profile of x.png cannot be used")


def test_a_profile_for_other_colours_than_the_pictures_is_told(tmp_path: Path) -> None:
    grey = Image.new("L", (4, 4), 100)
    held = io.BytesIO(profile(b"rXYZ:bXYZ")).getvalue().replace(b"RGB XYZ ", b"CMYKXYZ ", 1)
    read, [note] = read_picture(saved(tmp_path / "x.png", grey, icc_profile=held))
    assert levels(read) == (100, 100, 100)
    assert "cannot be used" in note
