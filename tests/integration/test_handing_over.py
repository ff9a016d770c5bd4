"""Models with the same text encoder and VAE hand them over; nothing else is kept, and no picture differs."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.handed_over import SHAREABLE, HandedOver, Lasting
from qwen_image_daemon.render.renderer import Control
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings, PlanName
from tiny_models import PLAIN, SETTINGS, Card, TinyModel, loaded, picture

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def renderer(
    folder: Path,
    handed_over: HandedOver | None = None,
    *,
    family: FamilyName = "demo",
    placement: PlanName = "auto",
) -> DiffusersRenderer:
    model = ModelSettings(family=family, source=str(folder))
    settings = SETTINGS.model_copy(update={"placement": placement})
    return DiffusersRenderer(model, settings, Accessories(), Lasting(handed_over=handed_over))


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


@pytest.mark.parametrize("plan", ["resident", "encoder-streamed-table"])
def test_what_is_handed_over_is_whole_and_off_the_device_however_the_model_was_arranged(
    plan: PlanName, tiny_checkpoint: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card()
    monkeypatch.setattr("qwen_image_daemon.render.devices.onto", card.onto)
    with renderer(sibling, placement="leaves") as alone:
        expected = TinyModel(alone).bytes_of(PLAIN)
    handed_over = HandedOver()
    with renderer(tiny_checkpoint, handed_over, placement=plan) as first:
        left = parts(TinyModel(first))
        TinyModel(first).draw(PLAIN)
        assert card.used > 0
    assert card.used == 0
    modules = [module for part in left.values() for module in part.modules()]
    hooks = [
        hook
        for module in modules
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    assert not [hook for hook in hooks if hook.__module__.startswith("qwen_image_daemon")]
    with renderer(sibling, handed_over, placement="leaves") as second:
        assert parts(TinyModel(second)) == left
        assert TinyModel(second).bytes_of(PLAIN) == expected


def test_models_that_stand_by_leave_the_device_share_their_parts_and_draw_as_before(
    tiny_checkpoint: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card()
    monkeypatch.setattr("qwen_image_daemon.render.devices.onto", card.onto)
    handed_over = HandedOver()
    with renderer(tiny_checkpoint, handed_over, placement="resident") as first:
        alone = TinyModel(first).bytes_of(PLAIN)
        most = card.used
        first.stand_by()
        assert card.used == 0
        with renderer(sibling, handed_over, placement="resident") as second:
            assert parts(TinyModel(second)) == parts(TinyModel(first))
            other = TinyModel(second).bytes_of(PLAIN)
            for at_work, expected in ((first, alone), (second, other), (first, alone)):
                (first if at_work is second else second).stand_by()
                assert card.used == 0
                assert TinyModel(at_work).bytes_of(PLAIN) == expected
                assert card.used == most
        # The second one was let go of while the first was at work.
        assert card.used == most
        assert TinyModel(first).bytes_of(PLAIN) == alone
    assert alone != other
    assert card.used == 0


def test_a_controlnet_leaves_the_device_with_its_model(
    tiny_family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card()
    monkeypatch.setattr("qwen_image_daemon.render.devices.onto", card.onto)
    nets = {"edges": ControlNetSettings(source=str(tiny_family("controlnet-union")))}
    settings = SETTINGS.model_copy(update={"placement": "resident"})
    request = replace(PLAIN, task="controlnet", control=Control(picture("blue"), "edges"))
    with loaded("qwen-image", tiny_family("qwen-image"), controlnets=nets, settings=settings) as model:
        before = model.bytes_of(request)
        model.renderer.stand_by()
        assert card.used == 0
        assert model.bytes_of(request) == before


def test_a_model_that_describes_pictures_takes_no_text_encoder_whose_head_is_off(
    tiny_family: Callable[[str], Path], tmp_path: Path
) -> None:
    layered = tmp_path / "layered"
    shutil.copytree(tiny_family("qwen-image-layered"), layered, copy_function=os.link)
    shutil.rmtree(layered / "text_encoder")
    plain = tiny_family("qwen-image")
    shutil.copytree(plain / "text_encoder", layered / "text_encoder", copy_function=os.link)
    handed_over = HandedOver()
    with renderer(plain, handed_over, family="qwen-image") as first:
        left = parts(TinyModel(first))
    with renderer(layered, handed_over, family="qwen-image-layered") as second:
        model = TinyModel(second)
        assert model.pipeline.text_encoder is not left["text_encoder"]
        source = picture(size=(80, 80)).convert("RGBA")
        request = replace(PLAIN, task="layered", prompt="", source=source, layers=1, resolution=640)
        assert model.draw(replace(request, width=640, height=640)).caption
