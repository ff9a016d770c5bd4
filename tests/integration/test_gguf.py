"""Transformers in GGUF files: drawn with as what they hold, labelled lossy, refused where they cannot be used."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from arranged import difference, drawn_as
from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import ModelUnavailable, Rendering
from qwen_image_daemon.settings import ModelSettings, RenderSettings
from tiny_models import PLAIN, SETTINGS, Card, TinyModel

WEIGHTS = Path("transformer", "diffusion_pytorch_model.safetensors")
Q8_0, F32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def file(tiny_checkpoint: Path, folder: Path) -> Path:
    """Give the tiny checkpoint's transformer with all matrices in 8 bits."""
    path = folder / "tiny-Q8_0.gguf"
    writer = gguf.GGUFWriter(path, "qwen_image")
    for name, tensor in load_file(tiny_checkpoint / WEIGHTS).items():
        values = tensor.float().numpy()
        kind = Q8_0 if values.ndim == 2 and values.shape[1] % 32 == 0 else F32
        writer.add_tensor(name, gguf.quantize(values, kind) if kind == Q8_0 else values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def rest(tiny_checkpoint: Path, folder: Path) -> Path:
    """Give the checkpoint without its transformer's weights, as one keeps it beside such a file."""
    copy = Path(shutil.copytree(tiny_checkpoint, folder / "rest"))
    (copy / WEIGHTS).unlink()
    return copy


@pytest.fixture(scope="module")
def turned_back(tiny_checkpoint: Path, folder: Path, file: Path) -> Path:
    """Give an ordinary checkpoint with the values that the file gives."""
    copy = Path(shutil.copytree(tiny_checkpoint, folder / "turned back"))
    values = {
        each.name: torch.from_numpy(gguf.dequantize(each.data, each.tensor_type).copy())
        for each in gguf.GGUFReader(file).tensors
    }
    originals = load_file(copy / WEIGHTS)
    save_file({name: values[name].reshape(tensor.shape) for name, tensor in originals.items()}, copy / WEIGHTS)
    return copy


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    monkeypatch.setattr("qwen_image_daemon.render.devices.onto", card.onto)
    return card


def opened(source: Path, file: Path | None, loras: Path, settings: RenderSettings = SETTINGS) -> DiffusersRenderer:
    model = ModelSettings(family="demo", source=str(source), transformer=str(file) if file else None)
    return DiffusersRenderer(model, settings, Accessories(loras=LoraFolder(loras, {})))


@pytest.fixture
def model(rest: Path, file: Path, tmp_path: Path, card: Card) -> Iterator[TinyModel]:
    assert card.used == 0
    noise = torch.Generator().manual_seed(3)
    weights = {"A": torch.randn(2, 32, generator=noise), "B": torch.randn(32, 2, generator=noise)}
    named = {f"transformer.transformer_blocks.0.attn.to_q.lora_{end}.weight": w for end, w in weights.items()}
    save_file(named, tmp_path / "strong.safetensors")
    with opened(rest, file, tmp_path) as renderer:
        yield TinyModel(renderer)


def test_a_gguf_file_is_drawn_with_as_what_it_holds_in_every_kind_of_arrangement_and_called_lossy(
    model: TinyModel, tiny_checkpoint: Path, turned_back: Path, tmp_path: Path, file: Path
) -> None:
    rendering: Rendering = model.draw(PLAIN)
    drawn = rendering.image.tobytes()

    assert rendering.arrangement is not None
    assert rendering.arrangement.exactness == "lossy"
    assert rendering.arrangement.levers == ("drawn on the CPU", f"transformer from {file} (Q8_0)")
    with opened(turned_back, None, tmp_path) as renderer:
        by_rounding = difference(TinyModel(renderer).bytes_of(PLAIN), drawn)
    with opened(tiny_checkpoint, None, tmp_path) as renderer:
        by_fewer_bits = difference(TinyModel(renderer).bytes_of(PLAIN), drawn)
    assert by_rounding < by_fewer_bits / 10, (by_rounding, by_fewer_bits)
    for plan in ("encoder-streamed-table", "by-turns", "blocks-table", "leaves"):
        assert drawn_as(model.renderer, plan, PLAIN) == drawn, plan


def test_loras_lie_over_it_and_leave_no_trace(model: TinyModel) -> None:
    bare = model.bytes_of(PLAIN)

    changed = model.bytes_of(replace(PLAIN, loras=(LoraUse(name="strong", weight=1.0),)))

    assert changed != bare == model.bytes_of(PLAIN)


def refusal(source: Path, file: Path | None, settings: RenderSettings = SETTINGS) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as refused, opened(source, file, source, settings):
        pass
    assert refused.value.fix
    return refused.value


def test_what_cannot_be_used_is_told_before_anything_is_loaded(
    rest: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none.gguf"
    assert f"{missing} could not be read: No such file" in str(refusal(rest, missing))
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"PK" * 100)
    assert "does not begin as a GGUF file does" in str(refusal(rest, junk))
    twice = SETTINGS.model_copy(update={"placement": "float8"})
    assert "would quantise" in str(refusal(rest, file, twice))
    monkeypatch.setitem(sys.modules, "gguf", None)
    without = refusal(rest, file)
    assert "needs gguf, which is not installed" in str(without)
    assert "pip install 'qwen-image-daemon[gguf]'" in without.fix
