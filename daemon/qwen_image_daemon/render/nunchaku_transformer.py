"""A transformer of Qwen-Image 1.x in one of Nunchaku's own files, as layers of the makers' transformer.

What the file has otherwise than the makers' model is undone. Where it is told (nunchaku-tech/nunchaku):
- query, key and value are one layer (models/transformers/transformer_qwenimage.py, NunchakuQwenAttention);
- modulation comes as six numbers for each channel, not as six runs of channels, and one is added to what scales
  (the same file: mod_params, scale_shift=0; deepcompressor's backend/nunchaku/utils.py, adanorm_splits, adds it);
- with integers, the quantised part of the second layer behind GELU sees GELU's result and 0.171875 more, so that
  it is not negative; the low-rank part does not (ops/fused.py, src/kernels/zgemm/gemm_w4a4_launch_impl.cuh,
  SHIFT_GELU). What that adds to the result is constant and becomes part of the bias here.
"""

import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from accelerate import init_empty_weights
from safetensors import safe_open

from qwen_image_daemon.render.nunchaku_files import INT4, PACKED, Found, awq_layer, svdq_layer
from qwen_image_daemon.render.nunchaku_layout import TILE, awq_matrix, int4_residual
from qwen_image_daemon.render.packed_files import Sorted, UnknownPacking
from qwen_image_daemon.render.packed_layers import PackedMatrix, Parts
from qwen_image_daemon.render.quantised_loading import filled, refused_by_name
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.weight_files import notes_in

CONFIG: Final = "config"
"""Under which name a file's notes have the configuration of its transformer, as JSON."""
_CLASS: Final = "QwenImageTransformer2DModel"
_FUSED: Final = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
_BEHIND_GELU: Final = ("img_mlp.net.2", "txt_mlp.net.2")
_MODULATION: Final = ("img_mod.1", "txt_mod.1")
_MODULATED: Final = 6
_SCALING: Final = (1, 4)
"""Which of the six scale. The others shift and gate."""
_GELU_SHIFT: Final = 0.171875
_OF_ROWS: Final = ("packed", "scales", "up", "row_scales")
"""Parts of SVDQuant that belong to outputs, tile by tile. The others belong to inputs, and are shared."""
_UNUSED: Final = ".smooth_factor_orig"
_SHOWN: Final = 60
"""So many characters of a value are told."""


def refuse_another_transformer(file: Path, checkpoint: Path, source: str) -> None:
    """Raise ModelUnavailable where the file is none for the checkpoint's transformer, naming what differs."""
    found = diffusers.DiffusionPipeline.load_config(checkpoint)["transformer"][1]
    if found != _CLASS:
        raise ModelUnavailable(
            f"{file} cannot stand for the transformer of {source}, a {found}: how Nunchaku packs one is known for "
            f"{_CLASS} only.",
            "Take the transformer out of the model's settings, or use a GGUF file.",
        )
    config = json.loads((checkpoint / "transformer" / "config.json").read_bytes())
    said = json.loads(notes_in(file)[CONFIG])
    for name, default in _defaults().items():
        theirs, ours = said.get(name, default), config.get(name, default)
        if theirs != ours:
            raise ModelUnavailable(
                f"{file} is for a transformer with {name} = {_shown(theirs)}; that of {source} has "
                f"{_shown(ours)}.",
                "Set the source to the checkpoint that the file was made from, or name the file for this one.",
            )


def _shown(value: object) -> str:
    # A stranger's file: whatever there is in it, it fits into a sentence.
    return json.dumps(value)[:_SHOWN]


def load_nunchaku_transformer(file: Path, checkpoint: Path, precision: torch.dtype) -> Any:
    """Load it for computing in the precision, its file mapped. Tensors that it lacks stay without data.

    Raises ModelUnavailable.
    """
    kind = getattr(diffusers, _CLASS)
    with init_empty_weights():
        transformer = kind.from_config(kind.load_config(checkpoint / "transformer"))
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    with refused_by_name(file):
        found = _sorted(tensors)
    return filled(transformer, found, file, precision)


def _sorted(tensors: dict[str, torch.Tensor]) -> Sorted:
    left = {name: tensor for name, tensor in tensors.items() if not name.endswith(_UNUSED)}
    packed: dict[str, PackedMatrix] = {}
    for name in tensors:
        if not name.endswith(PACKED):
            continue
        for layer, found in _layers(name.removesuffix(PACKED), left):
            packed[layer] = found.matrix
            if found.bias is not None:
                left[f"{layer}.bias"] = found.bias
    return Sorted(packed, left)


def _layers(name: str, tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, Found]]:
    """Give the makers' layers that a layer of the file is."""
    if f"{name}.wzeros" in tensors:
        found = awq_layer(name, tensors)
        yield name, _in_makers_order(name, found) if name.endswith(_MODULATION) else found
        return
    found = svdq_layer(name, tensors, _precision(name, tensors))
    parent, _, own = name.rpartition(".")
    if own in _FUSED:
        for place, part in enumerate(_FUSED[own]):
            yield f"{parent}.{part}", _third(name, found, place)
    elif name.endswith(_BEHIND_GELU) and found.matrix.kept == INT4:
        yield name, _unshifted(name, found)
    else:
        yield name, found


def _precision(name: str, tensors: dict[str, torch.Tensor]) -> str:
    """Tell by its scales in which precision a matrix is; where the file leaves them out, others are one."""
    if tensors[f"{name}.wscales"].dtype != torch.float8_e4m3fn:
        return "int4"
    # As nunchaku's models/transformers/utils.py does, patch_scale_key.
    outputs = tensors[f"{name}.proj_up"].shape[:1]
    tensors.setdefault(f"{name}.wcscales", torch.ones(outputs, dtype=torch.bfloat16))
    tensors.setdefault(f"{name}.wtscale", torch.ones(1))
    return "nvfp4"


def _third(name: str, found: Found, place: int) -> Found:
    """Take one of three layers of the same size out of a fused one. Nothing is copied."""
    outputs, inputs = found.matrix.shape
    size, rest = divmod(outputs, 3)
    if rest or size % TILE:
        raise UnknownPacking(f"{name} has {outputs} outputs, which are not three layers in whole tiles of {TILE}")
    parts = {
        part: _run(part, tensor, place) if part in _OF_ROWS else tensor
        for part, tensor in found.matrix.parts.items()
    }
    return Found(
        replace(found.matrix, shape=(size, inputs), parts=parts),
        None if found.bias is None else found.bias.chunk(3)[place],
    )


def _run(part: str, tensor: torch.Tensor, place: int) -> torch.Tensor:
    """Give a third of a part. Tile lies behind tile in it, also in scales, whose shape has the outputs last."""
    if part == "scales":
        return tensor.reshape(3, -1)[place].view(tensor.shape[0], -1)
    return tensor.chunk(3)[place]


def _unshifted(name: str, found: Found) -> Found:
    """Let a layer that expects what it is given shifted take it as it is."""
    if found.bias is None:
        raise UnknownPacking(f"{name} has no bias to make up for what its input is shifted by")
    shifted = int4_residual(found.matrix.parts).sum(1) * _GELU_SHIFT
    return replace(found, bias=found.bias + shifted)


def _in_makers_order(name: str, found: Found) -> Found:
    outputs = found.matrix.shape[0]
    if outputs % _MODULATED:
        raise UnknownPacking(f"{name} has {outputs} outputs, which are not six for each channel")
    bias = found.bias
    if bias is not None:
        bias = _six_runs(bias).clone()
        for each in _SCALING:
            bias.view(_MODULATED, -1)[each] -= 1
    return Found(replace(found.matrix, unpack=_modulation), bias)


def _modulation(parts: Parts) -> torch.Tensor:
    return _six_runs(awq_matrix(parts))


def _six_runs(of_channels: torch.Tensor) -> torch.Tensor:
    return of_channels.view(-1, _MODULATED, *of_channels.shape[1:]).transpose(0, 1).reshape(of_channels.shape)


def _defaults() -> dict[str, Any]:
    """Give what makes up a transformer, with what is meant where a configuration does not say it."""
    parameters = inspect.signature(getattr(diffusers, _CLASS).__init__).parameters.values()
    return {
        each.name: list(each.default) if isinstance(each.default, tuple) else each.default
        for each in parameters
        if each.default is not inspect.Parameter.empty
    }
