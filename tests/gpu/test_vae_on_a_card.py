"""The ladder of the VAE and the measured peaks on a real card: Qwen-Image's own VAE in full size, random weights.

The budgets are real: what the process may have of the card is cut with `set_per_process_memory_fraction`.
"""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
from diffusers.image_processor import VaeImageProcessor

import tiny_checkpoint
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.component_sizes import sizes_of
from qwen_image_daemon.render.devices import give_back
from qwen_image_daemon.render.ladder import Ladder, ModelFootprint
from qwen_image_daemon.render.making_room import Room
from qwen_image_daemon.render.memory import Memory
from qwen_image_daemon.render.peaks import PeakMeter
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.render.remembered import Remembered
from qwen_image_daemon.render.renderer import RenderRequest
from qwen_image_daemon.render.vae_ladder import Decoded, VaeLadder, VaeWay
from qwen_image_daemon.settings import Quality, RenderSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.timeout(1200),
]

SIZE = Size(1328, 1328)
REQUEST = RenderRequest(
    task="text-to-image",
    prompt="a lighthouse at dusk",
    negative_prompt=None,
    true_cfg_scale=1.0,
    num_inference_steps=2,
    width=SIZE.width,
    height=SIZE.height,
    seed=7,
)


@dataclass(frozen=True)
class Model:
    """The VAE beside two blocks of the transformer, in host memory."""

    pipeline: Any
    placement: WeightPlacement
    device: torch.device

    def ladder(self, quality: Quality) -> VaeLadder:
        """Make one that remembers nothing."""
        parts = [
            {name: tensor.numel() for name, tensor in part.named_parameters()}
            for part in (self.pipeline.transformer, self.pipeline.text_encoder, self.pipeline.vae)
        ]
        footprint = ModelFootprint("random", sizes_of(*parts), "bfloat16", SIZE, 3072, lambda _: 0, "none")
        ladder = Ladder(footprint, Memory(1, 1), RenderSettings(quality=quality), Remembered.in_folder(None, 3600))
        return VaeLadder(self.pipeline, self.placement, ladder, Room(lambda: give_back(self.device)))

    def latents(self) -> torch.Tensor:
        """Give the same ones each time."""
        generator = torch.Generator("cpu").manual_seed(1)
        tokens = (SIZE.height // 16) * (SIZE.width // 16)
        return torch.randn((1, tokens, 64), generator=generator).to(self.device, torch.bfloat16)

    def decoded(self, quality: Quality = "lossless") -> Decoded:
        """Decode with everything on the card at the beginning."""
        self.placement.settle()
        with torch.inference_mode():
            return self.ladder(quality).decoded(self.latents(), SIZE, REQUEST, lambda: None)


@pytest.fixture(scope="module")
def model() -> Model:
    device = torch.device("cuda", torch.cuda.current_device())
    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage().to(torch.bfloat16).eval()
    transformer = QwenImageTransformer2DModel(num_layers=2, out_channels=16).to(torch.bfloat16).eval()
    encoder = tiny_checkpoint.text_encoder(tiny_checkpoint.tokenizer())
    pipeline = SimpleNamespace(
        vae=vae,
        transformer=transformer,
        text_encoder=encoder,
        vae_scale_factor=8,
        image_processor=VaeImageProcessor(vae_scale_factor=16),
        _unpack_latents=QwenImagePipeline._unpack_latents,
    )
    placement = WeightPlacement(transformer, encoder, vae)
    placement.arrange(PLAN_OF["resident"], device)
    return Model(pipeline, placement, device)


@pytest.fixture(autouse=True)
def _whole_card(model: Model) -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, model.device)
    gc.collect()
    torch.cuda.empty_cache()


def cut_to(model: Model, budget: int) -> None:
    give_back(model.device)
    _, total = torch.cuda.mem_get_info(model.device)
    torch.cuda.set_per_process_memory_fraction(budget / total, model.device)


def reserved_for_decoding(model: Model) -> int:
    give_back(model.device)
    torch.cuda.reset_peak_memory_stats(model.device)
    assert model.decoded().way.last_rung.name == "whole"
    return torch.cuda.max_memory_reserved(model.device)


def test_without_room_beside_the_transformer_it_goes_and_the_picture_is_the_same(model: Model) -> None:
    expected = model.decoded()
    # The two blocks and what is around them have 1.4 GiB.
    cut_to(model, reserved_for_decoding(model) - 2**28)

    short = model.decoded()

    assert short.way.last_rung.name == "alone"
    assert short.pictures == expected.pictures


@pytest.mark.parametrize(
    ("quality", "way"), [("lossless", "cpu"), ("allow-quantized", "tiles-512")], ids=["lossless", "lossy"]
)
def test_without_room_for_the_picture_it_is_decoded_as_the_settings_allow(
    model: Model, quality: Quality, way: str
) -> None:
    expected = model.decoded()
    cut_to(model, 2**31)

    short = model.decoded(quality)

    assert short.way.last_rung.name == way
    assert len(short.way.steps_down) >= 2
    torch.cuda.set_per_process_memory_fraction(1.0, model.device)
    assert model.decoded().pictures == expected.pictures


def test_without_room_beside_the_transformer_it_goes_while_a_picture_is_encoded_and_comes_back(
    model: Model,
) -> None:
    pixels = torch.rand((1, 3, 1, SIZE.height, SIZE.width)).to(model.device, torch.bfloat16)

    def encoded() -> tuple[torch.Tensor, VaeWay]:
        model.placement.settle()
        with torch.inference_mode(), model.ladder("lossless").encoding(REQUEST, lambda: None) as way:
            return model.pipeline.vae.encode(pixels).latent_dist.mode(), way

    give_back(model.device)
    torch.cuda.reset_peak_memory_stats(model.device)
    expected, way = encoded()
    assert way.last_rung.name == "whole"
    cut_to(model, torch.cuda.max_memory_reserved(model.device) - 2**28)

    found, way = encoded()

    assert way.last_rung.name == "alone"
    assert torch.equal(found, expected)
    assert next(model.pipeline.transformer.parameters()).device == model.device


def test_a_transformer_that_was_left_on_the_card_is_taken_from_there(model: Model) -> None:
    weight = model.pipeline.transformer.transformer_blocks[0].attn.to_q.weight
    there = weight.data_ptr()

    kept = model.placement.park()

    assert kept > 2**30
    assert weight.device.type == "cpu"
    assert torch.cuda.memory_allocated(model.device) >= kept
    model.placement.arrange(PLAN_OF["resident"], model.device)
    assert weight.data_ptr() == there


def test_the_peak_of_one_picture_is_measured_and_the_report_covers_all(model: Model) -> None:
    meter = PeakMeter(model.device)
    meter.begin()
    model.decoded()
    large = meter.peak_bytes()
    meter.begin()
    small = meter.peak_bytes()

    assert large is not None
    assert small is not None
    assert large - small > 2**30
    assert meter.reported(small) == large
    assert meter.reported(small) == small


def test_pinned_memory_is_the_hosts(model: Model) -> None:
    """Blocks that are streamed rest in it; they come back the same."""
    expected = [tensor.clone() for tensor in model.pipeline.transformer.transformer_blocks[1].parameters()]
    model.placement.arrange(PLAN_OF["blocks"], model.device, staying=1)
    at_rest = next(model.pipeline.transformer.transformer_blocks[-1].parameters())
    assert at_rest.is_pinned() or at_rest.device == model.device
    model.placement.arrange(PLAN_OF["resident"], model.device)

    found = list(model.pipeline.transformer.transformer_blocks[1].parameters())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
