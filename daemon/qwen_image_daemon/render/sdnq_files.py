"""Components that SDNQ quantised: its own library, where the operator installed it, says how, and turns them back.

It is GPL-3.0, and this program is not: nothing of it comes along; the extra `sdnq` only names it.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from torch import nn

from qwen_image_daemon.render.packed_files import Sorted, UnknownPacking
from qwen_image_daemon.render.packed_layers import PackedMatrix, Parts
from qwen_image_daemon.render.sdnq_library import sdnq_quantizer

_PARTS: Final = (
    "weight",
    "scale",
    "scale_2",
    "scale_zero_point",
    "zero_point",
    "zero_point_scale",
    "zero_point_2",
    "svd_up",
    "svd_down",
)
"""What a matrix may be made of, as its files call it. `weight` is what is packed."""
_COMPUTED_WITH: Final = ("scale", "zero_point", "svd_up", "svd_down")
_HALVES: Final = (torch.bfloat16, torch.float16)


def sort_out_sdnq(
    skeleton: Any, how: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], precision: torch.dtype
) -> Sorted:
    """Find the packed matrices among tensors that are named as the model's.

    `how` is what the component's config.json says of them. The skeleton's layers are replaced by the library's.
    Raises KeyError, UnknownPacking, and ImportError.
    """
    sdnq = sdnq_quantizer()
    config = sdnq.SDNQConfig.from_dict(dict(how))
    config.quantization_device = config.return_device = None
    # It is done: nothing is to be chosen any more.
    config.add_skip_keys = config.use_dynamic_quantization = False
    try:
        with init_empty_weights():
            sdnq.apply_sdnq_to_module(skeleton, config, torch_dtype=precision, pre_quantized=True)
    except KeyError as error:
        raise UnknownPacking(f"the installed sdnq does not know {error.args[0]}; a newer one may") from None
    left = dict(tensors)
    # As the library loads them: it turns back in float32 unless the checkpoint says otherwise.
    inner = torch.float32 if config.dequantize_fp32 else precision
    packed = {
        name: _packed(name, layer, left, inner)
        for name, layer in skeleton.named_modules()
        if hasattr(layer, "sdnq_dequantizer")
    }
    return Sorted(packed, left)


def _packed(name: str, layer: Any, tensors: dict[str, torch.Tensor], inner: torch.dtype) -> PackedMatrix:
    """Take a layer's matrix out of the tensors. It is turned back by computing in `inner`."""
    if not isinstance(layer, nn.Linear):
        raise UnknownPacking(f"{name} is packed, and no linear layer")
    found = {part: tensors.pop(f"{name}.{part}") for part in _PARTS if getattr(layer, part, None) is not None}
    turn_back: Any = layer.sdnq_dequantizer
    parts = {"packed" if part == "weight" else part: tensor for part, tensor in found.items()}

    def unpack(parts: Parts) -> torch.Tensor:
        given = {
            part: tensor.to(inner) if part in _COMPUTED_WITH and tensor.dtype in _HALVES else tensor
            for part, tensor in parts.items()
        }
        # Compiled it would differ by machine, and take minutes at the first picture.
        matrix: torch.Tensor = turn_back(
            given.pop("packed"), **given, skip_quantized_matmul=turn_back.use_quantized_matmul, skip_compile=True
        )
        return matrix

    shape = (layer.out_features, layer.in_features)
    return PackedMatrix(f"{turn_back.weights_dtype} (SDNQ)", shape, parts, unpack)
