"""A job's pictures become a request that a model can draw to the letter, and what a mask keeps is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen_image_daemon.jobs.families import FAMILIES, FamilyName
from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.differences import size_differences
from qwen_image_daemon.render.job_pictures import PreparedJob, prepared
from qwen_image_daemon.render.renderer import RequestRefused
from qwen_image_daemon.render.request_checks import refuse_unfit

BASE: dict[str, Any] = {
    "model": "some",
    "prompt": "a boat",
    "negative_prompt": None,
    "true_cfg_scale": 1.0,
    "num_inference_steps": 2,
    "width": 128,
    "height": 64,
    "seed": 1,
    "num_images": 1,
}


@dataclass(frozen=True)
class Folder:
    """Pictures of a job: a square one, red on the left and blue on the right, and what goes with it."""

    path: Path

    def prepared(self, family: FamilyName, **settings: Any) -> PreparedJob:
        job = prepared(EffectiveParameters(**{**BASE, **settings}), family, self.path.joinpath)
        refuse_unfit(job.request, FAMILIES[family])
        return job


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    square = Image.new("RGB", (80, 80), "red")
    square.paste("blue", (40, 0, 80, 80))
    square.save(tmp_path / "square.png")
    mask = Image.new("L", (40, 40), 0)
    mask.paste(255, (0, 0, 20, 40))
    mask.save(tmp_path / "mask.png")
    hole = square.convert("RGBA")
    hole.paste((0, 0, 0, 0), (0, 0, 40, 80))
    hole.save(tmp_path / "hole.png")
    Image.new("RGB", (300, 100), "green").save(tmp_path / "wide.jpg")
    odd = Image.new("RGB", (103, 61), "red")
    odd.paste("blue", (51, 0, 103, 61))
    odd.save(tmp_path / "odd.png")
    kept = Image.new("L", (103, 61), 0)
    kept.paste(255, (0, 0, 51, 61))
    kept.save(tmp_path / "odd-mask.png")
    return Folder(tmp_path)


def levels(picture: Image.Image | None) -> Any:
    assert picture is not None
    return np.asarray(picture)


def test_words_alone_need_no_picture(folder: Folder) -> None:
    job = folder.prepared("qwen-image", task="text-to-image")
    assert job.notes == ()
    drawn = Image.new("RGB", (128, 64))
    assert job.finished(drawn) is drawn


@pytest.mark.parametrize(("fit", "what"), [("pad", "padded"), ("crop", "cut")])
def test_a_source_is_fitted_and_the_result_says_how(folder: Folder, fit: str, what: str) -> None:
    job = folder.prepared("qwen-image", task="image-to-image", image="square.png", strength=0.5, fit=fit)
    [note] = job.notes
    assert note.startswith("square.png, 80×80, was scaled to ")
    assert what in note
    assert tuple(levels(job.request.source)[32, 10]) == (255, 0, 0)
    assert tuple(levels(job.request.source)[32, 120]) == (0, 0, 255)


def test_a_mask_lies_where_its_picture_lies_and_keeps_the_rest(folder: Folder) -> None:
    job = folder.prepared(
        "qwen-image",
        task="inpaint",
        image="square.png",
        mask="mask.png",
        strength=1.0,
        preserve_unmasked=True,
    )
    mask = levels(job.request.mask)
    # The picture lies in the middle 64 columns; its left half is to be redrawn.
    assert (mask[:, 34:62] == 255).all()
    assert not mask[:, :30].any()
    assert not mask[:, 66:].any()
    finished = levels(job.finished(Image.new("RGB", (128, 64), "yellow")))
    assert (finished[:, 66:] == levels(job.request.source)[:, 66:]).all()
    assert tuple(finished[32, 48]) == (255, 255, 0)


def test_what_is_not_to_be_preserved_is_the_models(folder: Folder) -> None:
    job = folder.prepared("qwen-image", task="inpaint", image="square.png", mask="mask.png", strength=1.0)
    drawn = Image.new("RGB", (128, 64), "yellow")
    assert job.finished(drawn) is drawn


def test_a_pictures_own_transparency_is_its_mask(folder: Folder) -> None:
    job = folder.prepared("qwen-image", task="inpaint", image="hole.png", mask_from_alpha=True, strength=1.0)
    mask = levels(job.request.mask)
    assert (mask[:, 34:62] == 255).all()
    assert not mask[:, 66:].any()


def test_an_edits_picture_gets_the_results_shape_and_keeps_its_scale(folder: Folder) -> None:
    job = folder.prepared("qwen-image-edit", task="edit", images=("square.png",))
    [reference] = job.request.references
    assert reference.size == (160, 80)
    assert job.notes == ("square.png, 80×80, was padded to 160×80",)


def test_several_references_stay_as_they_are(folder: Folder) -> None:
    job = folder.prepared("qwen-image-edit-plus", task="edit", images=("square.png", "wide.jpg"))
    assert [reference.size for reference in job.request.references] == [(80, 80), (300, 100)]
    assert job.notes == ()


@pytest.mark.parametrize(("family", "mode"), [("qwen-image-edit-plus", "RGB"), ("qwen-image-2.1", "RGBA")])
def test_transparency_reaches_the_models_that_see_it(folder: Folder, family: FamilyName, mode: str) -> None:
    job = folder.prepared(family, task="edit", images=("hole.png",))
    assert job.request.references[0].mode == mode


def test_a_masked_edit_in_the_pictures_own_shape_is_drawn_as_asked(folder: Folder) -> None:
    job = folder.prepared(
        "qwen-image-edit",
        task="edit",
        images=("wide.jpg",),
        mask="mask.png",
        strength=1.0,
        width=1760,
        height=576,
        preserve_unmasked=True,
    )
    assert [*size_differences(job.request, FAMILIES["qwen-image-edit"])] == []
    assert job.request.references[0].size == (300, 100)
    finished = levels(job.finished(Image.new("RGB", (1760, 576), "yellow")))
    assert tuple(finished[300, 100]) == (255, 255, 0)
    assert abs(int(finished[300, 1700][1]) - 128) < 3


@pytest.mark.parametrize("images", [("odd.png",), ("odd.png", "square.png")])
def test_an_edit_comes_back_in_its_sources_exact_size(folder: Folder, images: tuple[str, ...]) -> None:
    job = folder.prepared(
        "qwen-image-edit-plus", task="edit", images=images, back_to_source=True, width=112, height=64
    )
    canvas = job.request.references[0]
    drawn = canvas.resize((112, 64), Image.Resampling.LANCZOS)
    finished = levels(job.finished(drawn))
    assert finished.shape == (61, 103, 3)
    # What is red on the left and blue on the right is so to the pixel next to the border.
    assert tuple(finished[30, 5]) == (255, 0, 0)
    assert tuple(finished[30, 98]) == (0, 0, 255)
    assert (abs(finished[:, 48:54].astype(int).mean((0, 1)) - [119, 0, 136]) < 12).all()
    assert job.notes == ("the picture was drawn at 112×64 and brought back to its source's 103×61",)


def test_what_a_masked_edit_keeps_is_its_source_to_the_pixel_in_its_own_size(folder: Folder) -> None:
    job = folder.prepared(
        "qwen-image-edit",
        task="edit",
        images=("odd.png",),
        mask="odd-mask.png",
        strength=1.0,
        width=1344,
        height=800,
        preserve_unmasked=True,
        back_to_source=True,
    )
    assert [*size_differences(job.request, FAMILIES["qwen-image-edit"])] == []
    finished = levels(job.finished(Image.new("RGB", (1344, 800), "yellow")))
    source = levels(Image.open(folder.path / "odd.png"))
    assert finished.shape == source.shape
    assert (finished[:, 60:] == source[:, 60:]).all()
    assert tuple(finished[30, 10]) == (255, 255, 0)


def test_layers_come_from_the_picture_with_its_transparency(folder: Folder) -> None:
    job = folder.prepared(
        "qwen-image-layered", task="layered", image="hole.png", layers=3, resolution=640, width=640, height=640
    )
    assert job.request.source is not None
    assert (job.request.source.mode, job.request.source.size) == ("RGBA", (80, 80))


def test_a_control_picture_is_fitted_like_a_source(folder: Folder) -> None:
    control = {"controlnet": "edges", "control_scale": 0.7, "control_start": 0.0, "control_end": 1.0}
    job = folder.prepared("qwen-image", task="controlnet", control_image="square.png", **control)
    assert job.request.control is not None
    assert job.request.control.image.size == (128, 64)
    masked = folder.prepared(
        "qwen-image",
        task="controlnet",
        control_image="square.png",
        mask="mask.png",
        preserve_unmasked=True,
        **control,
    )
    assert masked.request.mask is not None
    assert masked.untouched is not None


def test_a_copy_that_is_gone_is_told_by_name(folder: Folder) -> None:
    (folder.path / "square.png").write_bytes(b"nothing")
    with pytest.raises(RequestRefused, match=r"copy of square\.png cannot be read"):
        folder.prepared("qwen-image", task="image-to-image", image="square.png", strength=0.5)


def test_a_disk_that_fails_is_not_the_jobs_fault() -> None:
    def fail(_: str) -> Path:
        raise OSError(5, "Input/output error")

    path_of: Callable[[str], Path] = fail
    with pytest.raises(OSError, match="Input/output"):
        prepared(
            EffectiveParameters(**BASE, task="image-to-image", image="square.png", strength=0.5),
            "qwen-image",
            path_of,
        )
