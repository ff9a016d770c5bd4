"""Checkpoint folders in fewer bits, written by the libraries' own layers, and what these turn back into."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

State = dict[str, torch.Tensor]

AS_THEY_ARE = ("embed_tokens", "lm_head", "pos_embed", "addition_t_embedding", "proj_out")
"""What is no linear layer, and what those who quantise checkpoints leave whole."""


@dataclass(frozen=True)
class Packing:
    """One way to quantise."""

    library: str
    config: Mapping[str, Any]
    written: Callable[[nn.Linear], tuple[State, dict[str, str]]]
    """Gives what the library writes for a layer, and what beside it."""
    turned_back: Callable[[nn.Linear], torch.Tensor]
    """Gives the library's own idea of the matrix."""
    called: str
    """In results."""


def _four_bits(kind: str, *, nested: bool) -> Packing:
    def packed(layer: nn.Linear) -> Any:
        import bitsandbytes  # noqa: PLC0415  an extra

        made = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, compress_statistics=nested, quant_type=kind
        )
        made.weight = bitsandbytes.nn.Params4bit(
            layer.weight.data.clone(), requires_grad=False, compress_statistics=nested, quant_type=kind
        )
        return made.to("cpu")

    def turned_back(layer: nn.Linear) -> torch.Tensor:
        from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415  an extra

        weight = packed(layer).weight
        matrix: torch.Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return matrix

    return Packing(
        "bitsandbytes",
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind},
        lambda layer: (dict(packed(layer).state_dict()), {}),
        turned_back,
        f"4 bits ({kind.upper()}, bitsandbytes)",
    )


def _rows() -> Packing:
    def packed(layer: nn.Linear) -> Any:
        import bitsandbytes  # noqa: PLC0415  an extra

        made = bitsandbytes.nn.Linear8bitLt(
            layer.in_features, layer.out_features, bias=False, has_fp16_weights=False
        )
        made.weight = bitsandbytes.nn.Int8Params(layer.weight.data.clone(), requires_grad=False)
        return made.to("cpu")

    def turned_back(layer: nn.Linear) -> torch.Tensor:
        from bitsandbytes.functional import int8_vectorwise_dequant  # noqa: PLC0415  an extra

        weight = packed(layer).weight
        matrix: torch.Tensor = int8_vectorwise_dequant(weight.data, weight.SCB)
        return matrix

    return Packing(
        "bitsandbytes",
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        lambda layer: (dict(packed(layer).state_dict()), {}),
        turned_back,
        "8-bit integers (bitsandbytes)",
    )


def _torchao(config: str, called: str) -> Packing:
    def packed(layer: nn.Linear) -> Any:
        from torchao import quantization  # noqa: PLC0415  an extra

        copy = nn.Linear(layer.in_features, layer.out_features, bias=False, dtype=layer.weight.dtype)
        copy.weight.data = layer.weight.data.clone()
        quantization.quantize_(copy, getattr(quantization, config)())
        return copy.weight

    def written(layer: nn.Linear) -> tuple[State, dict[str, str]]:
        from torchao.prototype.safetensors import safetensors_support  # noqa: PLC0415  an extra

        state, notes = safetensors_support.flatten_tensor_state_dict({"layer.weight": packed(layer)})
        return (
            {name.removeprefix("layer."): tensor for name, tensor in state.items()},
            {"weight": notes["layer.weight"]},
        )

    return Packing(
        "torchao",
        {"quant_method": "torchao", "quant_type": {"default": {"_type": config, "_data": {}, "_version": 2}}},
        written,
        lambda layer: packed(layer).dequantize(),
        called,
    )


PACKINGS: Mapping[str, Packing] = {
    "nf4": _four_bits("nf4", nested=True),
    "nf4, plain scales": _four_bits("nf4", nested=False),
    "fp4": _four_bits("fp4", nested=True),
    "int8 by bitsandbytes": _rows(),
    "int8 by torchao": _torchao("Int8WeightOnlyConfig", "8-bit integers (torchao)"),
    "float8 by torchao": _torchao("Float8WeightOnlyConfig", "8-bit floating point (torchao)"),
}


def quantise(folder: Path, component: str, packing: Packing) -> None:
    """Quantise a component of a checkpoint in its place."""
    state: State = {}
    notes = {"format": "pt"}
    file = weights_of(folder / component)
    for name, tensor in load_file(file).items():
        layer = _layer(name, tensor)
        if layer is None:
            state[name] = tensor.bfloat16()
            continue
        written, beside = packing.written(layer)
        prefix = name.removesuffix("weight")
        state |= {prefix + part: value.contiguous() for part, value in written.items()}
        notes |= {prefix + part: text for part, text in beside.items()}
    save_file(state, file, metadata=notes)
    config = folder / component / "config.json"
    described = json.loads(config.read_text()) | {"quantization_config": dict(packing.config)}
    config.write_text(json.dumps(described), encoding="utf-8")


def turn_back(folder: Path, component: str, packing: Packing) -> None:
    """Give a component the values in its place that it has in fewer bits, as the library turns them back."""
    file = weights_of(folder / component)
    layers = {name: (tensor, _layer(name, tensor)) for name, tensor in load_file(file).items()}
    state = {
        name: tensor.bfloat16() if layer is None else packing.turned_back(layer)
        for name, (tensor, layer) in layers.items()
    }
    save_file(state, file, metadata={"format": "pt"})


def weights_of(component: Path) -> Path:
    """Give the file with the weights of a tiny component."""
    (file,) = component.glob("*.safetensors")
    return file


def copied(folder: Path, to: Path) -> Path:
    """Give a copy of a checkpoint that can be changed."""
    return Path(shutil.copytree(folder, to))


def _layer(name: str, tensor: torch.Tensor) -> nn.Linear | None:
    if not name.endswith(".weight") or tensor.ndim != 2 or any(part in name for part in AS_THEY_ARE):
        return None
    layer = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False, dtype=torch.bfloat16)
    layer.weight.data = tensor.bfloat16()
    return layer
