"""What a mask keeps is in the result to the pixel; what it redraws is the model's, with a soft edge inside."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qwen_image_daemon.render.masks import Untouched, mask_of_transparency, read_mask

SIZE = (96, 64)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


def mask_of(*boxes: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", SIZE, 0)
    for box in boxes:
        mask.paste(255, box)
    return mask


boxes = st.tuples(st.integers(0, 90), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40)).map(
    lambda box: (box[0], box[1], min(96, box[0] + box[2]), min(64, box[1] + box[3]))
)


@given(st.lists(boxes, min_size=1, max_size=4))
def test_outside_of_the_mask_not_one_pixel_differs(areas: list[tuple[int, int, int, int]]) -> None:
    source, drawn, mask = noise(1), noise(2), mask_of(*areas)
    result = np.asarray(Untouched(source, mask).put_into(drawn))
    outside = np.asarray(mask) < 128
    assert (result[outside] == np.asarray(source)[outside]).all()


def test_well_inside_of_the_mask_it_is_the_drawn_picture_and_at_the_edge_both() -> None:
    source, drawn = Image.new("RGB", SIZE, "black"), Image.new("RGB", SIZE, "white")
    result = np.asarray(Untouched(source, mask_of((20, 10, 80, 50))).put_into(drawn))[..., 0]
    assert (result[14:46, 24:76] == 255).all()
    assert 0 < result[30, 20] < 255
    assert result[30, 19] == 0


@pytest.mark.parametrize("width", [1, 2])
def test_a_thin_mask_is_redrawn_wholly(width: int) -> None:
    source, drawn = Image.new("RGB", SIZE, "black"), Image.new("RGB", SIZE, "white")
    result = np.asarray(Untouched(source, mask_of((40, 0, 40 + width, 64))).put_into(drawn))[..., 0]
    assert (result[:, 40 : 40 + width] == 255).all()


def test_a_soft_mask_is_cut_at_half_white_as_the_pipelines_do() -> None:
    mask = Image.new("L", SIZE, 127)
    mask.paste(128, (0, 0, 48, 64))
    source, drawn = Image.new("RGB", SIZE, "black"), Image.new("RGB", SIZE, "white")
    result = np.asarray(Untouched(source, mask).put_into(drawn))[..., 0]
    assert not result[:, 48:].any()
    assert (result[:, :44] == 255).all()


def test_what_is_transparent_is_redrawn() -> None:
    picture = Image.new("RGBA", SIZE, (10, 20, 30, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 48, 64))
    mask = np.asarray(mask_of_transparency(picture))
    assert (mask[:, :48] == 255).all()
    assert not mask[:, 48:].any()
    assert not np.asarray(mask_of_transparency(picture.convert("RGB"))).any()


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "RGBA", "I;16"])
def test_a_mask_is_read_by_its_brightness_in_every_mode(tmp_path: Path, mode: str) -> None:
    grey = mask_of((0, 0, 48, 64))
    made = Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    made.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tobytes() == grey.tobytes()
