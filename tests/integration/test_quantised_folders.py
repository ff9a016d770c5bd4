"""Folders that are quantised already: drawn with as what they hold, labelled lossy, refused where they are no use.

The libraries wrote them; without them these tests are skipped (make slow installs them).
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from arranged import GUIDED, KINDS, difference, drawn, drawn_as, insert, opened, pipeline_of, rendered
from quantised_folders import PACKINGS, copied, quantise, turn_back, weights_of
from qwen_image_daemon.cli.planning import print_plans
from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.component_sizes import sizes_of_folder
from qwen_image_daemon.render.packed_layers import PackedLinear
from qwen_image_daemon.render.quantised_loading import load_quantised_transformer
from qwen_image_daemon.render.quantisers import is_installed
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.sdnq_library import sdnq_quantizer
from qwen_image_daemon.settings import PlanName
from tiny_models import Card, loaded

PARTS = ("transformer", "text_encoder")


def _needs(library: Any) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_installed(library), reason=f"{library} is not installed")


EACH = [
    pytest.param(name, marks=[_needs(packing.library), pytest.mark.slow], id=name)
    for name, packing in PACKINGS.items()
]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Let weights that come onto the device come onto this card instead, so that all are aligned alike."""
    card = Card()
    insert(card, monkeypatch)
    return card


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return copied(tiny_checkpoint, tmp_path / "copy")


@pytest.mark.parametrize("name", EACH)
def test_it_draws_what_the_librarys_own_weights_draw_in_every_kind_of_arrangement_and_is_called_lossy(
    name: str, tiny_checkpoint: Path, tmp_path: Path, card: Card
) -> None:
    packing = PACKINGS[name]
    packed, whole = (copied(tiny_checkpoint, tmp_path / kind) for kind in ("packed", "whole"))
    for part in PARTS:
        quantise(packed, part, packing)
        turn_back(whole, part, packing)
    with opened(whole) as renderer:
        expected = drawn(renderer)
        resting = card.used

    with opened(packed) as renderer:
        assert card.used < 0.8 * resting
        rendering = rendered(renderer)
        assert rendering.image.tobytes() == expected
        assert rendering.arrangement is not None
        assert rendering.arrangement.exactness == "lossy"
        assert rendering.arrangement.levers == tuple(f"{part} from {packed} in {packing.called}" for part in PARTS)
        for plan in KINDS:
            assert drawn_as(renderer, plan) == expected, plan
    assert card.used == 0


@pytest.mark.slow
@_needs("bitsandbytes")
def test_loras_lie_over_packed_matrices_and_leave_no_trace(
    tiny_checkpoint: Path, tmp_path: Path, card: Card
) -> None:
    assert card.used == 0
    packed, whole = (copied(tiny_checkpoint, tmp_path / kind) for kind in ("packed", "whole"))
    quantise(packed, "transformer", PACKINGS["nf4"])
    turn_back(whole, "transformer", PACKINGS["nf4"])
    noise = torch.Generator().manual_seed(3)
    weights: dict[str, torch.Tensor] = {}
    for layer, outputs in (("0.attn.to_q", 32), ("1.img_mod.1", 192)):
        key = f"transformer.transformer_blocks.{layer}.lora"
        weights[f"{key}_A.weight"] = torch.randn(2, 32, generator=noise)
        weights[f"{key}_B.weight"] = torch.randn(outputs, 2, generator=noise)
    save_file(weights, tmp_path / "strong.safetensors")
    with_lora = replace(GUIDED, loras=(LoraUse(name="strong", weight=0.5),))

    pictures = []
    for folder in (packed, whole):
        with loaded("qwen-image", folder, loras=LoraFolder(tmp_path, {})) as model:
            bare, changed = model.bytes_of(GUIDED), model.bytes_of(with_lora)
            assert bare != changed
            assert model.bytes_of(GUIDED) == bare
            pictures.append((bare, changed))
    assert difference(pictures[0][1], pictures[1][1]) < 0.01


@pytest.mark.slow
@_needs("bitsandbytes")
def test_what_the_files_headers_say_is_what_the_loaded_model_takes(copy: Path) -> None:
    whole = sizes_of_folder(copy, 4)
    for part in PARTS:
        quantise(copy, part, PACKINGS["nf4"])

    with opened(copy, "cpu") as renderer:
        entered = renderer._entered.loaded
        found = entered._ladder._model.sizes
    counted = sizes_of_folder(copy, 4)

    assert counted.is_quantised
    assert found.is_quantised
    # Descriptions of matrices are in the files, and not in the model.
    assert found.transformer == pytest.approx(counted.transformer, rel=0.2)
    assert found.modulation == pytest.approx(counted.modulation, rel=0.2)
    assert found.transformer * found.squeezed == pytest.approx(whole.transformer, rel=0.01)
    assert found.text_encoder < whole.text_encoder + whole.text_encoder_head


@pytest.mark.slow
@_needs("bitsandbytes")
@_needs("torchao")
def test_what_transformers_and_diffusers_save_themselves_is_loaded(copy: Path, tmp_path: Path) -> None:
    """Names of tensors are those of years ago in their files, and torchao's notes are beside the weights."""
    from torchao.quantization import Int8WeightOnlyConfig  # noqa: PLC0415  an extra

    four_bits = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    encoder = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        copy / "text_encoder", dtype=torch.bfloat16, quantization_config=four_bits, device_map="cpu"
    )
    transformer = diffusers.QwenImageTransformer2DModel.from_pretrained(
        copy / "transformer",
        dtype=torch.bfloat16,
        quantization_config=diffusers.TorchAoConfig(Int8WeightOnlyConfig()),
    )
    for part, model in zip(PARTS, (transformer, encoder), strict=True):
        weights_of(copy / part).unlink()
        model.save_pretrained(copy / part)

    with opened(copy, "cpu") as renderer:
        arrangement = rendered(renderer).arrangement
        layers = dict(pipeline_of(renderer).text_encoder.named_modules())

    assert arrangement is not None
    assert arrangement.levers[1:] == (
        f"transformer from {copy} in 8-bit integers (torchao)",
        f"text_encoder from {copy} in 4 bits (NF4, bitsandbytes)",
    )
    assert isinstance(layers["model.language_model.layers.1.mlp.up_proj"], PackedLinear)
    assert tmp_path in copy.parents


SDNQ: dict[str, dict[str, Any]] = {
    "uint4": {"weights_dtype": "uint4"},
    "uint4 with SVD": {"weights_dtype": "uint4", "use_svd": True, "svd_rank": 4},
    "int8 for multiplying": {"weights_dtype": "int8", "use_quantized_matmul": True},
}


@pytest.mark.slow
@_needs("sdnq")
@pytest.mark.parametrize("kind", SDNQ)
def test_matrices_of_sdnq_are_those_that_it_turns_back_itself(kind: str, copy: Path) -> None:
    how = sdnq_quantizer().SDNQConfig(minimum_allowed_numel=1, minimum_allowed_channel_size=1, **SDNQ[kind])
    kept = diffusers.QwenImageTransformer2DModel.from_pretrained(
        copy / "transformer", dtype=torch.bfloat16, quantization_config=how
    )
    weights_of(copy / "transformer").unlink()
    kept.save_pretrained(copy / "transformer")
    theirs = dict(
        diffusers.QwenImageTransformer2DModel.from_pretrained(
            copy / "transformer", dtype=torch.float32
        ).named_modules()
    )

    ours = load_quantised_transformer(copy, torch.float32)

    layers = {name: layer for name, layer in ours.named_modules() if isinstance(layer, PackedLinear)}
    assert len(layers) > 20
    for name, layer in layers.items():
        expected = theirs[name].dequantize().weight
        assert torch.allclose(layer.unpacked(), expected, rtol=1e-6, atol=1e-7), name


# --- what is refused ------------------------------------------------------------------------------------------


def described(folder: Path, component: str, how: dict[str, Any]) -> None:
    config = folder / component / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": how}))


def refusal(folder: Path, placement: PlanName = "resident") -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as refused, opened(folder, placement):
        pass
    assert refused.value.fix
    return refused.value


@pytest.fixture
def _with_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be looked at as where they are installed: what is refused is so before they are needed."""
    monkeypatch.setattr("qwen_image_daemon.render.quantised_files.is_installed", lambda _: True)


@pytest.mark.usefixtures("_with_libraries")
@pytest.mark.parametrize(
    ("component", "how", "told"),
    [
        ("text_encoder", {"quant_method": "nunchaku_lite"}, "nunchaku_lite: this program cannot unpack such"),
        ("transformer", {"quant_method": "quanto"}, "quanto: this program cannot unpack such weights"),
        ("vae", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "The vae of "),
        (
            "text_encoder",
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
            "torchao's Int4WeightOnlyConfig",
        ),
    ],
)
def test_what_cannot_be_unpacked_is_refused_before_anything_is_loaded(
    component: str, how: dict[str, Any], told: str, copy: Path
) -> None:
    described(copy, component, how)

    assert told in str(refusal(copy))


def test_without_the_library_it_is_refused_and_the_refusal_says_what_to_install(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library, extra in {"bitsandbytes": "nf4", "sdnq": "sdnq"}.items():
        monkeypatch.setitem(sys.modules, library, None)
        described(copy, "transformer", {"quant_method": library})

        refused = refusal(copy)

        assert f"was quantised with {library}, which is not installed" in str(refused)
        assert f"pip install 'qwen-image-daemon[{extra}]'." in refused.fix


@pytest.mark.usefixtures("_with_libraries")
def test_it_is_not_quantised_a_second_time(copy: Path) -> None:
    described(copy, "transformer", {"quant_method": "bitsandbytes"})

    assert f"would quantise the transformer of {copy} a second time" in str(refusal(copy, "float8"))


@pytest.mark.slow
@_needs("bitsandbytes")
def test_a_part_of_a_matrix_that_is_missing_is_named(copy: Path) -> None:
    quantise(copy, "transformer", PACKINGS["nf4"])
    file = weights_of(copy / "transformer")
    weights = load_file(file)
    gone = "transformer_blocks.1.attn.to_q.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, file, metadata={"format": "pt"})

    assert f"lacks {gone}, a part of a packed matrix" in str(refusal(copy))


@pytest.mark.slow
@_needs("bitsandbytes")
def test_a_tensor_that_the_model_has_no_place_for_is_named(copy: Path) -> None:
    quantise(copy, "transformer", PACKINGS["nf4"])
    file = weights_of(copy / "transformer")
    save_file(load_file(file) | {"left.over": torch.ones(3)}, file, metadata={"format": "pt"})

    assert "left.over first" in str(refusal(copy))


@pytest.mark.usefixtures("_with_libraries")
def test_plan_says_that_it_is_lossy_and_counts_the_files_bytes(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described(copy, "transformer", {"quant_method": "bitsandbytes", "load_in_4bit": True})
    settings = tmp_path / "daemon.toml"
    settings.write_text(f'[models.qwen-image]\nfamily = "demo"\nsource = "{copy}"\n', encoding="utf-8")

    print_plans(settings, None, "16GB", "64GB", "64x64", "allow-quantized")

    told = capsys.readouterr().out
    assert "Lossy in each of them: the transformer was quantised with bitsandbytes." in told
    assert "float8" not in told
