"""Tabulated modulation gives the same bits as the layers, in every 1.x pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from qwen_image_daemon.render.modulation_table import ModulationTable
from tiny_models import read_small_references

WIDTH, HEIGHT = 96, 64
STEPS = 3
CPU = torch.device("cpu")
SOURCE = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
MASK = Image.linear_gradient("L").rotate(90).resize((WIDTH, HEIGHT)).point(lambda level: 255 * (level > 127))
PLAIN = {
    "prompt": "a lighthouse at dusk",
    "negative_prompt": " ",
    "true_cfg_scale": 4.0,
    "num_inference_steps": STEPS,
    "output_type": "latent",
}
SIZED = PLAIN | {"width": WIDTH, "height": HEIGHT}
PIPELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "QwenImagePipeline": ("qwen-image", SIZED),
    "QwenImageImg2ImgPipeline": ("qwen-image", SIZED | {"image": SOURCE, "strength": 0.7}),
    "QwenImageInpaintPipeline": ("qwen-image", SIZED | {"image": SOURCE, "mask_image": MASK, "strength": 1.0}),
    "QwenImageControlNetPipeline": ("qwen-image", SIZED | {"control_image": SOURCE}),
    "QwenImageControlNetInpaintPipeline": (
        "qwen-image",
        SIZED | {"control_image": SOURCE, "control_mask": MASK},
    ),
    "QwenImageEditPipeline": ("qwen-image-edit", SIZED | {"image": SOURCE}),
    "QwenImageEditInpaintPipeline": (
        "qwen-image-edit",
        SIZED | {"image": SOURCE, "mask_image": MASK, "strength": 1.0},
    ),
    "QwenImageEditPlusPipeline": ("qwen-image-edit-plus", SIZED | {"image": [SOURCE, SOURCE.rotate(180)]}),
    "QwenImageLayeredPipeline": (
        "qwen-image-layered",
        PLAIN | {"image": SOURCE.convert("RGBA"), "layers": 2, "resolution": 640, "output_type": "pil"},
    ),
}
CONTROLNETS = {
    "QwenImageControlNetPipeline": "controlnet-union",
    "QwenImageControlNetInpaintPipeline": "controlnet-inpaint",
}


def opened(name: str, tiny_family: Callable[[str], Path], dtype: torch.dtype) -> Any:
    family, _ = PIPELINES[name]
    loaded = diffusers.DiffusionPipeline.from_pretrained(tiny_family(family), dtype=dtype)
    parts = dict(loaded.components)
    if name in CONTROLNETS:
        folder = tiny_family(CONTROLNETS[name])
        parts["controlnet"] = diffusers.QwenImageControlNetModel.from_pretrained(folder, dtype=dtype)
    pipeline = getattr(diffusers, name)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: Any, **changes: Any) -> torch.Tensor:
    _, arguments = PIPELINES[type(pipeline).__name__]
    with torch.inference_mode(), torch.random.fork_rng([]):
        # The inpaint ControlNet's pipeline takes no generator for its mask's latents.
        torch.manual_seed(7)
        # Not the result: layered cannot give latents.
        steps: list[torch.Tensor] = []
        pipeline(
            **arguments | changes,
            generator=torch.Generator("cpu").manual_seed(7),
            callback_on_step_end=lambda *given: steps.append(given[3]["latents"].clone()) or {},
        )
    return torch.stack(steps)


def tabulated(pipeline: Any, table: ModulationTable, **changes: Any) -> torch.Tensor:
    with table.schedule(pipeline.scheduler):
        return latents(pipeline, **changes)


def is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other) and bool(one.isfinite().all())


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    read_small_references(monkeypatch, WIDTH, HEIGHT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_draws_the_same_bits_with_the_table_and_after_it(
    name: str, dtype: torch.dtype, tiny_family: Callable[[str], Path]
) -> None:
    pipeline = opened(name, tiny_family, dtype)
    expected = latents(pipeline)

    table = ModulationTable(pipeline.transformer, CPU)
    first, second = tabulated(pipeline, table), tabulated(pipeline, table)

    assert is_same(first, expected)
    assert is_same(second, expected)
    assert table.computed == 1
    table.remove()
    assert is_same(latents(pipeline), expected)


LAYERS = ("0.img_mod.1", "1.txt_mod.1", "1.attn.to_q")


def lora(seed: int) -> dict[str, torch.Tensor]:
    """Give weights that change the modulation of both streams, and a layer beside it."""
    random = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for layer in LAYERS:
        rows = 6 * 32 if "mod" in layer else 32
        weights[f"transformer.transformer_blocks.{layer}.lora_A.weight"] = torch.randn(2, 32, generator=random)
        weights[f"transformer.transformer_blocks.{layer}.lora_B.weight"] = (
            torch.randn(rows, 2, generator=random) / 8
        )
    return weights


def test_loras_on_the_tabulated_layers_count_with_their_scales_and_leave_no_trace(
    tiny_family: Callable[[str], Path],
) -> None:
    pipeline = opened("QwenImagePipeline", tiny_family, torch.float32)
    transformer = pipeline.transformer
    bare = latents(pipeline)

    def put_on(seed: int, scale: float) -> None:
        transformer.load_lora_adapter(lora(seed), adapter_name="job")
        transformer.set_adapters(["job"], [scale])

    expected: dict[tuple[int, float], torch.Tensor] = {}
    for seed, scale in ((1, 1.0), (2, 1.0)):
        put_on(seed, scale)
        expected[seed, scale] = latents(pipeline)
        transformer.set_adapters(["job"], [0.5])
        expected[seed, 0.5] = latents(pipeline)
        transformer.unload_lora()
    assert len({tuple(drawn.flatten().tolist()) for drawn in (bare, *expected.values())}) == 5

    table = ModulationTable(transformer, CPU)
    assert is_same(tabulated(pipeline, table), bare)
    for (seed, scale), drawn in expected.items():
        put_on(seed, scale)
        assert is_same(tabulated(pipeline, table), drawn)
        assert is_same(tabulated(pipeline, table), drawn)
        transformer.unload_lora()
        assert is_same(tabulated(pipeline, table), bare)
    table.remove()
    assert is_same(latents(pipeline), bare)


def test_a_schedule_is_computed_once_and_another_one_anew(tiny_family: Callable[[str], Path]) -> None:
    pipeline = opened("QwenImagePipeline", tiny_family, torch.float32)
    expected = latents(pipeline, num_inference_steps=4)
    table = ModulationTable(pipeline.transformer, CPU)

    for _ in range(3):
        tabulated(pipeline, table)
    assert table.computed == 1
    assert is_same(tabulated(pipeline, table, num_inference_steps=4), expected)
    assert table.computed == 2


def test_timesteps_that_no_schedule_told_are_computed_too(tiny_family: Callable[[str], Path]) -> None:
    """Slower, and right: one after the other."""
    pipeline = opened("QwenImagePipeline", tiny_family, torch.float32)
    expected = latents(pipeline)
    table = ModulationTable(pipeline.transformer, CPU)

    assert is_same(latents(pipeline), expected)
    assert table.computed == STEPS


def test_without_the_rows_nothing_of_the_weights_is_needed(tiny_family: Callable[[str], Path]) -> None:
    """They could be anywhere: here they are empty."""
    pipeline = opened("QwenImagePipeline", tiny_family, torch.float32)
    expected = latents(pipeline)
    table = ModulationTable(pipeline.transformer, CPU)
    tabulated(pipeline, table)

    kept = [(weight, weight.data) for weight in table.weights()]
    for weight, data in kept:
        weight.data = torch.empty(0, dtype=data.dtype)
    drawn = tabulated(pipeline, table)
    for weight, data in kept:
        weight.data = data

    assert is_same(drawn, expected)
    assert table.computed == 1
