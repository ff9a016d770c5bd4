"""Nunchaku's weights: its own files, and folders of diffusers' nunchaku_lite, drawn with as what they are."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import nunchaku_packing as packing
from arranged import GUIDED, KINDS, drawn_as, insert, opened, rendered
from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.nunchaku_files import awq_layer, svdq_layer
from qwen_image_daemon.render.nunchaku_transformer import load_nunchaku_transformer
from qwen_image_daemon.render.packed_layers import PackedLinear, PackedMatrix
from qwen_image_daemon.render.quantised_loading import load_quantised_transformer
from qwen_image_daemon.render.renderer import ModelUnavailable, Rendering
from qwen_image_daemon.settings import ModelSettings
from tiny_models import SETTINGS, Card, TinyModel

WEIGHTS = Path("transformer", "diffusion_pytorch_model.safetensors")
CONFIG = Path("transformer", "config.json")
CALLED = {
    "int4": "4 bits (INT4 with a low-rank part, Nunchaku)",
    "nvfp4": "4 bits (NVFP4 with a low-rank part, Nunchaku)",
}
AWQ = "4 bits (AWQ, Nunchaku)"
PRECISIONS: tuple[packing.Precision, ...] = ("int4", "nvfp4")


# --- the layout -----------------------------------------------------------------------------------------------


def numbers(rows: int, columns: int, below: int) -> torch.Tensor:
    row, column = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
    return (row * 7919 + column * 104729 + row * column * 31) % 1009 % below


# Of mit-han-lab/deepcompressor at 69f3473f: NunchakuWeightPacker(bits=4), its pack_weight of numbers(384, 256, 16)
# less 8 as int32, pack_scale of numbers(384, 1, 128), numbers(384, 4, 128) and numbers(384, 16, 16) as bfloat16 in
# groups of -1, 64 and 16, pack_lowrank_weight of numbers(32, 256, 128) and numbers(384, 32, 128); tinychat's
# pack_w4 of numbers(384, 256, 16). The first 16 digits of the SHA-256 of the bytes that they give.
WRITTEN_BY_ITS_OWN_TOOL: dict[str, Callable[[], torch.Tensor]] = {
    "c8d539432d1075d2": lambda: packing.packed_codes(numbers(384, 256, 16) - 8),
    "35421b30ce75a1dd": lambda: packing.packed_channels(numbers(384, 1, 128)),
    "e9110310fbb8b7a4": lambda: packing.packed_channels(numbers(384, 4, 128)),
    "b3e89dbe5c9191fc": lambda: packing.packed_micro(numbers(384, 16, 16)),
    "b3da97f5adfd2662": lambda: packing.packed_down(numbers(32, 256, 128)),
    "e635a10ffaf66fd2": lambda: packing.packed_up(numbers(384, 32, 128)),
    "34e9c1aa46aac95d": lambda: packing.packed_awq(numbers(384, 256, 16)),
}


@pytest.mark.parametrize("digest", WRITTEN_BY_ITS_OWN_TOOL)
def test_what_these_tests_write_is_what_nunchakus_own_tool_writes(digest: str) -> None:
    packed = WRITTEN_BY_ITS_OWN_TOOL[digest]()

    assert hashlib.sha256(packed.view(torch.uint8).numpy().tobytes()).hexdigest()[:16] == digest


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), outputs=st.integers(1, 3), inputs=st.integers(1, 3))
def test_every_matrix_is_turned_back_into_what_it_stands_for(seed: int, outputs: int, inputs: int) -> None:
    draw = packing.Drawing(seed)
    for precision in PRECISIONS:
        layer = draw.svdq(128 * outputs, 128 * inputs, precision)
        found = svdq_layer("a", {f"a.{part}": tensor for part, tensor in layer.parts.items()}, precision)
        assert torch.equal(turned_back(found.matrix), layer.weight.float())
        assert found.bias is not None
        assert torch.equal(found.bias, layer.bias.float())
    layer = draw.awq(4 * outputs, 64 * inputs)
    matrix = awq_layer("a", {f"a.{part}": tensor for part, tensor in layer.parts.items()}).matrix
    assert torch.equal(turned_back(matrix), layer.weight.float())


def turned_back(matrix: PackedMatrix) -> torch.Tensor:
    return matrix.unpack(matrix.parts)


# --- the front door -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A checkpoint, and how it is opened."""

    source: Path
    file: Path | None = None

    def opened(self, loras: Path | None = None) -> DiffusersRenderer:
        given = {} if loras is None else {"loras": LoraFolder(loras, {})}
        model = ModelSettings(
            family="demo", source=str(self.source), transformer=None if self.file is None else str(self.file)
        )
        resident = SETTINGS.model_copy(update={"placement": "resident"})
        return DiffusersRenderer(model, resident, Accessories(**given))

    @property
    def place(self) -> Path:
        return self.file or self.source


@dataclass(frozen=True)
class Pair:
    """A model in fewer bits, and one of the values that these stand for."""

    packed: Model
    whole: Model


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Give a checkpoint whose transformer is wide enough for Nunchaku's tiles."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    there = json.loads((copy / CONFIG).read_text())
    torch.manual_seed(0)
    wide = {"attention_head_dim": 64, "num_attention_heads": 2, "axes_dims_rope": [16, 24, 24]}
    (copy / WEIGHTS).unlink()
    QwenImageTransformer2DModel.from_config(there | wide).save_pretrained(copy / "transformer")
    return copy


def own_file(checkpoint: Path, precision: packing.Precision) -> Pair:
    """Write one of Nunchaku's own files."""
    written = packing.as_nunchaku_writes(load_file(checkpoint / WEIGHTS), precision)
    file = checkpoint.parent / f"svdq-{precision}_r16-tiny.safetensors"
    config = (checkpoint / CONFIG).read_text()
    notes = {"config": config, "quantization_config": json.dumps({"method": "svdquant", "rank": packing.RANK})}
    save_file(written.packed, file, metadata=notes)
    whole = Path(shutil.copytree(checkpoint, checkpoint.parent / "whole"))
    save_file(written.whole, whole / WEIGHTS, metadata={"format": "pt"})
    # Beside such a file one keeps no other transformer.
    (checkpoint / WEIGHTS).unlink()
    return Pair(Model(checkpoint, file), Model(whole))


def lite_folder(checkpoint: Path, precision: packing.Precision) -> Pair:
    """Make a folder of nunchaku_lite of the checkpoint."""
    written = packing.as_diffusers_reads(load_file(checkpoint / WEIGHTS), precision)
    whole = Path(shutil.copytree(checkpoint, checkpoint.parent / "whole"))
    save_file(written.whole, whole / WEIGHTS, metadata={"format": "pt"})
    save_file(written.packed, checkpoint / WEIGHTS, metadata={"format": "pt"})
    modulation = sorted({name.rpartition(".")[0] for name in written.packed if "_mod." in name})
    low_rank = {"group_size": 64 if precision == "int4" else 16, "rank": packing.RANK, "targets": written.layers}
    how = {
        "quant_method": "nunchaku_lite",
        "svdq_w4a4": {"precision": precision} | low_rank,
        "awq_w4a16": {"precision": "int4", "group_size": 64, "targets": modulation},
    }
    described(checkpoint, how)
    return Pair(Model(checkpoint), Model(whole))


def described(checkpoint: Path, how: dict[str, object]) -> None:
    config = json.loads((checkpoint / CONFIG).read_text()) | {"quantization_config": how}
    (checkpoint / CONFIG).write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Let weights that come onto the device come onto this card instead, so that all are aligned alike."""
    card = Card()
    insert(card, monkeypatch)
    return card


@pytest.mark.parametrize(
    ("written", "precision"),
    [
        (own_file, "int4"),
        pytest.param(own_file, "nvfp4", marks=pytest.mark.slow),
        pytest.param(lite_folder, "int4", marks=pytest.mark.slow),
        pytest.param(lite_folder, "nvfp4", marks=pytest.mark.slow),
    ],
)
def test_it_draws_what_the_values_that_its_bits_stand_for_draw_in_every_kind_of_arrangement(
    written: Callable[[Path, packing.Precision], Pair], precision: packing.Precision, checkpoint: Path, card: Card
) -> None:
    pair = written(checkpoint, precision)
    with pair.whole.opened() as renderer:
        expected = rendered(renderer).image.tobytes()
        resting = card.used

    with pair.packed.opened() as renderer:
        assert card.used < 0.7 * resting
        rendering: Rendering = rendered(renderer)
        assert rendering.image.tobytes() == expected
        assert rendering.arrangement is not None
        assert rendering.arrangement.exactness == "lossy"
        assert rendering.arrangement.levers == (
            f"transformer from {pair.packed.place} in {', '.join(sorted((AWQ, CALLED[precision])))}",
        )
        for plan in KINDS:
            assert drawn_as(renderer, plan) == expected, plan
    assert card.used == 0


@pytest.mark.slow
def test_loras_lie_over_parts_of_a_layer_that_the_file_has_as_one_and_leave_no_trace(checkpoint: Path) -> None:
    pair = own_file(checkpoint, "int4")
    noise = torch.Generator().manual_seed(3)
    weights: dict[str, torch.Tensor] = {}
    for layer, outputs in (("0.attn.to_k", 128), ("1.img_mod.1", 768)):
        key = f"transformer.transformer_blocks.{layer}.lora"
        weights[f"{key}_A.weight"] = torch.randn(2, 128, generator=noise)
        weights[f"{key}_B.weight"] = torch.randn(outputs, 2, generator=noise)
    save_file(weights, checkpoint.parent / "strong.safetensors")
    with_lora = replace(GUIDED, loras=(LoraUse(name="strong", weight=0.5),))

    pictures = []
    for model in (pair.packed, pair.whole):
        with model.opened(checkpoint.parent) as renderer:
            tiny = TinyModel(renderer)
            bare, changed = tiny.bytes_of(GUIDED), tiny.bytes_of(with_lora)
            assert bare != changed
            assert tiny.bytes_of(GUIDED) == bare
            pictures.append(changed)
    assert sum(abs(a - b) for a, b in zip(*pictures, strict=True)) / len(pictures[0]) < 0.01


def test_the_files_own_bytes_are_in_the_layers_and_what_it_has_once_is_there_once(checkpoint: Path) -> None:
    pair = own_file(checkpoint, "int4")
    assert pair.packed.file is not None

    transformer = load_nunchaku_transformer(pair.packed.file, checkpoint, torch.bfloat16)

    layers = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, PackedLinear)}
    assert len(layers) == 2 * (6 + 6 + 2)
    first, second = (layers[f"transformer_blocks.0.attn.{name}"] for name in ("to_q", "to_k"))
    assert first.get_buffer("down") is second.get_buffer("down")
    in_the_file = {tensor.data_ptr() for tensor in first.buffers()} | {
        tensor.data_ptr() for tensor in second.buffers()
    }
    assert len(in_the_file) == 2 * len(("packed", "scales", "up")) + len(("smooth", "down"))
    distance = second.get_buffer("packed").data_ptr() - first.get_buffer("packed").data_ptr()
    assert distance == first.get_buffer("packed").nbytes


# --- what is refused ------------------------------------------------------------------------------------------


def refusal(model: Model) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as refused, model.opened():
        pass
    assert refused.value.fix
    return refused.value


def test_what_is_no_file_of_nunchakus_is_told_before_anything_is_loaded(checkpoint: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    assert f"{missing} could not be loaded: it is missing" in str(refusal(Model(checkpoint, missing)))
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"PK" * 100)
    assert "does not begin as a safetensors file does" in str(refusal(Model(checkpoint, junk)))
    save_file({"weight": torch.ones(1)}, junk)
    assert "it has no config in its header" in str(refusal(Model(checkpoint, junk)))
    save_file({"weight": torch.ones(1)}, junk, metadata={"config": '{"num_layers": 2}'})
    assert "none of its tensors is called qweight" in str(refusal(Model(checkpoint, junk)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"num_layers": 60}, "num_layers = 60; that of"),
        ({"axes_dims_rope": [16, 56, 56]}, "axes_dims_rope = [16, 56, 56]; that of"),
        ({"zero_cond_t": True}, "zero_cond_t = true; that of"),
        ({"patch_size": "a" * 1000}, f'patch_size = "{"a" * 59}; that of'),
    ],
)
def test_a_file_for_another_transformer_is_refused_with_what_differs(
    changed: dict[str, object], told: str, checkpoint: Path, tmp_path: Path
) -> None:
    config = json.loads((checkpoint / CONFIG).read_text())
    file = tmp_path / "svdq-int4_r32-other.safetensors"
    save_file({"a.qweight": torch.ones(1)}, file, metadata={"config": json.dumps(config | changed)})

    assert told in str(refusal(Model(checkpoint, file)))


def test_for_models_whose_packing_is_not_known_it_is_refused(
    tiny_family: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "svdq-int4_r32-qwen-image-2.1.safetensors"
    save_file({"a.qweight": torch.ones(1)}, file, metadata={"config": '{"num_layers": 2}'})
    source = tiny_family("qwen-image-2.1")
    model = ModelSettings(family="qwen-image-2.1", source=str(source), transformer=str(file))

    with pytest.raises(ModelUnavailable) as refused, DiffusersRenderer(model, SETTINGS, Accessories()):
        pass

    assert "cannot stand for the transformer of" in str(refused.value)
    assert "QwenImage21Transformer2DModel" in str(refused.value)


QKV = "transformer_blocks.1.attn.to_qkv"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({f"{QKV}.proj_up": None}, f"lacks {QKV}.proj_up, a part of a packed matrix"),
        (
            {f"{QKV}.wscales": torch.ones(3, 5).bfloat16()},
            f"{QKV}.wscales (3×5, bfloat16) is not as Nunchaku's kernels read it",
        ),
        ({f"{QKV}.bias": torch.ones(384)}, f"{QKV}.bias (384, float32) is not as Nunchaku's"),
        ({f"{QKV}.qweight": torch.zeros(384, 48, dtype=torch.int8)}, f"{QKV}.qweight (384×48, int8) is not as"),
        ({f"{QKV}.proj_up": torch.ones(384, 8).bfloat16()}, f"{QKV}.proj_up (384×8, bfloat16) is not as"),
        (
            {"transformer_blocks.0.txt_mlp.net.2.bias": None},
            "transformer_blocks.0.txt_mlp.net.2 has no bias to make up for what its input is shifted by",
        ),
        ({"img_in.bias": torch.ones(3)}, "has img_in.bias in another shape, [3], than its config.json says"),
        ({"left.over": torch.ones(3)}, "left.over first"),
    ],
)
def test_a_part_that_is_missing_or_not_as_it_must_be_is_named(
    changed: dict[str, torch.Tensor | None], told: str, checkpoint: Path
) -> None:
    pair = own_file(checkpoint, "int4")
    assert pair.packed.file is not None
    tensors = load_file(pair.packed.file) | changed
    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(there, pair.packed.file)

    with pytest.raises(ModelUnavailable) as refused:
        load_nunchaku_transformer(pair.packed.file, checkpoint, torch.float32)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({}, "its quantization_config is none of nunchaku_lite"),
        (
            {"svdq_w4a4": {"precision": "int4", "group_size": 32, "rank": 16, "targets": ["img_in"]}},
            "requires group_size=64, got 32",
        ),
        ({"awq_w4a16": {"precision": "int4", "group_size": 64, "targets": [3]}}, "targets must be strings."),
        ({"awq_w4a16": {"precision": "int4", "group_size": 32, "targets": ["img_in"]}}, "in groups of 32"),
        (
            {"awq_w4a16": {"precision": "int4", "group_size": 64, "targets": ["img_in"]}},
            "lacks img_in.qweight, a part of a packed matrix",
        ),
    ],
)
def test_a_folder_that_says_what_nobody_reads_is_refused(
    how: dict[str, object], told: str, checkpoint: Path
) -> None:
    described(checkpoint, {"quant_method": "nunchaku_lite"} | how)

    with pytest.raises(ModelUnavailable) as refused:
        load_quantised_transformer(checkpoint, torch.float32)

    assert told in str(refused.value)


def test_it_is_not_quantised_a_second_time(checkpoint: Path) -> None:
    described(checkpoint, {"quant_method": "nunchaku_lite"})

    with pytest.raises(ModelUnavailable) as refused, opened(checkpoint, "float8"):
        pass

    assert f"would quantise the transformer of {checkpoint} a second time" in str(refused.value)
