"""Models with the same text encoder and VAE hand them over; nothing else is kept, and no picture differs."""

import gc
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.handed_over import SHAREABLE, HandedOver
from qwen_image_daemon.settings import ModelSettings
from tiny_models import PLAIN, SETTINGS, TinyModel

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def renderer(folder: Path, handed_over: HandedOver | None = None) -> DiffusersRenderer:
    model = ModelSettings(family="demo", source=str(folder))
    return DiffusersRenderer(model, SETTINGS, Accessories(), handed_over)


@pytest.fixture
def sibling(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Give a model with a transformer of its own, and the rest by other names for the same files."""
    folder = tmp_path / "sibling"
    shutil.copytree(tiny_checkpoint, folder, copy_function=os.link)
    weights = load_file(folder / TRANSFORMER)
    (folder / TRANSFORMER).unlink()
    noise = torch.Generator().manual_seed(3)
    changed = {key: tensor + 0.1 * torch.randn(tensor.shape, generator=noise) for key, tensor in weights.items()}
    save_file(changed, folder / TRANSFORMER, metadata={"format": "pt"})
    return folder


def parts(model: TinyModel) -> dict[str, Any]:
    return {name: model.pipeline.components[name] for name in SHAREABLE}


def test_the_next_model_takes_what_it_has_in_common_and_draws_the_same(
    tiny_checkpoint: Path, sibling: Path
) -> None:
    with renderer(sibling) as alone:
        expected = TinyModel(alone).bytes_of(PLAIN)
    handed_over = HandedOver()
    with renderer(tiny_checkpoint, handed_over) as first:
        model = TinyModel(first)
        before = parts(model)
        other = model.bytes_of(PLAIN)
        transformer = weakref.ref(model.pipeline.transformer)
        del model
    assert transformer() is None
    with renderer(sibling, handed_over) as second:
        model = TinyModel(second)
        assert parts(model) == before
        assert model.pipeline.scheduler is not None
        assert model.bytes_of(PLAIN) == expected != other


def test_what_the_next_model_has_no_use_for_is_let_go_before_it_is_loaded(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    shutil.copytree(tiny_checkpoint, stranger)
    handed_over = HandedOver()
    with renderer(tiny_checkpoint, handed_over) as first:
        kept = [weakref.ref(part) for part in parts(TinyModel(first)).values()]
    assert all(part() is not None for part in kept)
    with renderer(stranger, handed_over) as second:
        gc.collect()
        assert all(part() is None for part in kept)
        assert TinyModel(second).draw(PLAIN).image.size == (64, 64)
