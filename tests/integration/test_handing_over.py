"""Models with the same text encoder and VAE hand them over; nothing else is kept, and no picture differs."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from arranged import Shortage
from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.handed_over import SHAREABLE, HandedOver, Lasting
from qwen_image_daemon.render.memory import Memory
from qwen_image_daemon.render.parking import Parking
from qwen_image_daemon.render.renderer import Control
from qwen_image_daemon.render.streaming import tensors_of
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings, PlanName
from tiny_models import PLAIN, SETTINGS, Card, TinyModel, loaded, picture

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def renderer(
    folder: Path,
    handed_over: HandedOver | None = None,
    *,
    family: FamilyName = "demo",
    placement: PlanName = "auto",
    parking: Parking | None = None,
) -> DiffusersRenderer:
    model = ModelSettings(family=family, source=str(folder))
    settings = SETTINGS.model_copy(update={"placement": placement})
    return DiffusersRenderer(
        model, settings, Accessories(), Lasting(handed_over=handed_over, parking=parking or Parking(is_open=False))
    )


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


@dataclass(frozen=True)
class Pair:
    """Two models with a text encoder and a VAE in common, on a card, with what each draws alone."""

    first: DiffusersRenderer
    second: DiffusersRenderer
    parking: Parking
    first_alone: bytes
    second_alone: bytes
    all_of_one: int
    """Bytes on the card while one of them is at work."""
    transformer: int


@pytest.fixture
def paired(
    tiny_checkpoint: Path, sibling: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Card, int], AbstractContextManager[Pair]]:
    @contextmanager
    def pair(card: Card, spare: int) -> Iterator[Pair]:
        """Let the plan see so many bytes more than what one model and the transformer of another one take."""
        monkeypatch.setattr("qwen_image_daemon.render.devices.onto", card.onto)
        for name in ("_FIXED", "_ENCODING", "_DENOISING_PER_TOKEN", "_DECODING_PER_PIXEL"):
            # The estimates for computing are those of the real sizes: gibibytes.
            monkeypatch.setattr(f"qwen_image_daemon.render.memory.{name}", 0)
        with renderer(sibling) as alone:
            components = TinyModel(alone).pipeline
            one, transformer = (
                sum(tensor.nbytes for part in parts for tensor in tensors_of(part))
                for parts in (
                    (components.transformer, components.text_encoder, components.vae),
                    (components.transformer,),
                )
            )
        monkeypatch.setattr(
            "qwen_image_daemon.render.checkpoint_opening.free_memory",
            lambda _: Memory(one + transformer + spare - card.used, 2**40),
        )
        handed_over, parking = HandedOver(), Parking()
        with renderer(tiny_checkpoint, handed_over, placement="resident", parking=parking) as first:
            first_alone = TinyModel(first).bytes_of(PLAIN)
            all_of_one = card.used
            first.stand_by()
            with renderer(sibling, handed_over, placement="resident", parking=parking) as second:
                yield Pair(
                    first,
                    second,
                    parking,
                    first_alone,
                    TinyModel(second).bytes_of(PLAIN),
                    all_of_one,
                    transformer,
                )
        assert card.used == 0

    return pair


def test_where_there_is_room_a_transformer_stays_on_the_device_and_is_not_copied_again(
    paired: Callable[[Card, int], AbstractContextManager[Pair]],
) -> None:
    card = Card()
    with paired(card, 0) as two:
        assert card.used == two.all_of_one + two.transformer
        assert two.second.clean_up().left.standing_by_bytes == two.transformer
        two.second.stand_by()
        assert card.used == 2 * two.transformer
        came = card.came
        assert TinyModel(two.first).bytes_of(PLAIN) == two.first_alone
        assert card.came - came == two.all_of_one - two.transformer
        assert card.used == two.all_of_one + two.transformer
        assert two.first.clean_up().left.standing_by_bytes == two.transformer
        two.first.stand_by()
        assert TinyModel(two.second).bytes_of(PLAIN) == two.second_alone


def test_without_room_for_both_it_goes_before_the_other_one_comes(
    paired: Callable[[Card, int], AbstractContextManager[Pair]],
) -> None:
    card = Card()
    with paired(card, -1) as two:
        assert card.used == card.peak == two.all_of_one
        assert two.second.clean_up().left.standing_by_bytes == 0
        two.second.stand_by()
        assert TinyModel(two.first).bytes_of(PLAIN) == two.first_alone
        assert card.peak == two.all_of_one


def test_where_memory_runs_short_all_the_same_it_goes_first_and_nothing_is_kept_from_then_on(
    paired: Callable[[Card, int], AbstractContextManager[Pair]],
) -> None:
    card = Card()
    with paired(card, 0) as two:
        with Shortage(two.second, times=1):
            short = TinyModel(two.second).draw(PLAIN)

        assert short.image.tobytes() == two.second_alone
        assert card.used == two.all_of_one
        assert short.arrangement is not None
        assert short.arrangement.plan == "resident"
        (step,) = short.arrangement.steps_down
        assert step.startswith("again, with nothing on the device of models that stand by: Memory ran out")
        two.second.stand_by()
        assert card.used == 0
        assert TinyModel(two.first).bytes_of(PLAIN) == two.first_alone


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
