"""The reader that scores the demo model sees what the world draws, and says so when a shape is not clear."""

# Lots are drawn for pictures here, not for secrets.
# ruff: noqa: S311

import random

import numpy as np
import pytest
from PIL import Image

from demo_model.curriculum import kept
from demo_model.judging import judge
from demo_model.reader import read
from demo_model.world import (
    LAYOUTS,
    THIN_SHAPES,
    Layout,
    Scene,
    Thing,
    evaluation_scene,
    in_training,
    render,
    training_scene,
)


def drawn(scene: Scene, width: int = 128, height: int = 128) -> Image.Image:
    return Image.fromarray(render(scene, width, height))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("width", "height"), [(128, 128), (144, 96)])
def test_every_drawn_scene_is_read_right(layout: Layout, width: int, height: int) -> None:
    rng = random.Random(5)
    for _ in range(12):
        scene = evaluation_scene(rng, layout)
        assert judge(scene, read(drawn(scene, width, height)), width, height).right, scene


def test_a_ring_whose_hole_is_a_little_off_the_background_is_a_ring() -> None:
    scene = Scene("blue", (Thing("ring", "pink", "small", 0.5, 0.5, 0.16),), "single", None, seed=1)
    pixels = np.asarray(drawn(scene)).copy()
    pixels[56:72, 56:72] = (70, 60, 190)
    [seen] = read(Image.fromarray(pixels)).objects
    assert (seen.shape, seen.colour) == ("ring", "pink")


def test_a_rectangle_is_no_square_and_half_a_cross_no_cross() -> None:
    for shape, box in (("square", (24, 48, 104, 80)), ("cross", (56, 20, 76, 108))):
        scene = Scene("white", (Thing(shape, "red", "medium", 0.5, 0.5, 0.3),), "single", None, seed=1)
        picture = Image.new("RGB", (128, 128), "white")
        picture.paste((220, 30, 30), box)
        assert not judge(scene, read(picture), 128, 128).shapes


def test_training_practises_thin_and_small_shapes_more_and_nothing_that_is_held_out() -> None:
    def share_of_hard(scenes: list[Scene]) -> float:
        hard = [scene.things[0].shape in THIN_SHAPES or scene.things[0].size == "small" for scene in scenes]
        return sum(hard) / len(hard)

    rng = random.Random(0)
    evenly = [training_scene(rng, "single") for _ in range(300)]
    practised = [training_scene(rng, "single", kept) for _ in range(300)]
    assert all(in_training(scene) for scene in practised)
    assert share_of_hard(practised) > share_of_hard(evenly) + 0.1
