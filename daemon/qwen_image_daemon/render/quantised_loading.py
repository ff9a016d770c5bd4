"""Components whose folder has their weights in fewer bits: loaded with these bits, for computing in a precision.

Not by diffusers and transformers: they make layers of the libraries' own, want a card for it, and keep scales out
of reach of the one owner of all weights.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import diffusers
import structlog
import torch
import transformers
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from qwen_image_daemon.render.nunchaku_files import sort_out_nunchaku
from qwen_image_daemon.render.packed_files import Sorted, UnknownPacking, sort_out
from qwen_image_daemon.render.packed_layers import PackedLinear
from qwen_image_daemon.render.quantised_files import quantisation_of
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.sdnq_files import sort_out_sdnq
from qwen_image_daemon.render.weight_files import shards_of

log = structlog.get_logger()

_CURE: Final = "Fetch the checkpoint again; or use the makers' checkpoint."


def load_quantised_transformer(checkpoint: Path, precision: torch.dtype) -> Any:
    """Load a transformer. Tensors that its files lack stay without data. Raises ModelUnavailable."""
    index = diffusers.DiffusionPipeline.load_config(checkpoint)
    folder = checkpoint / "transformer"
    kind = getattr(diffusers, index["transformer"][1])
    config = {name: value for name, value in kind.load_config(folder).items() if name != "quantization_config"}
    with init_empty_weights():
        transformer = kind.from_config(config)
    return filled(transformer, _sorted(transformer, folder, lambda name: name, precision), folder, precision)


def load_quantised_text_encoder(kind: str, checkpoint: Path, precision: torch.dtype) -> Any:
    """Load a text encoder, a class of transformers. Otherwise as `load_quantised_transformer`."""
    folder = checkpoint / "text_encoder"
    encoder_class = getattr(transformers, kind)
    # Not by AutoConfig, which a file may name a class of its own.
    described = json.loads((folder / "config.json").read_bytes())
    del described["quantization_config"]
    config = encoder_class.config_class.from_dict(described)
    with init_empty_weights():
        encoder = encoder_class._from_config(config, dtype=precision)  # noqa: SLF001  as its loader does
    found = _sorted(encoder, folder, _todays_names(encoder), precision)
    encoder = filled(encoder, found, folder, precision)
    encoder.tie_weights()
    generation = folder / transformers.utils.GENERATION_CONFIG_NAME
    if generation.is_file():
        encoder.generation_config = transformers.GenerationConfig.from_dict(json.loads(generation.read_bytes()))
    return encoder


def filled(skeleton: Any, found: Sorted, place: Path, precision: torch.dtype) -> Any:
    """Give the model with the weights that were found: packed matrices as they are, others in the precision.

    `place` is the folder or the file that they come from. Raises ModelUnavailable.
    """
    for name, matrix in found.packed.items():
        parent, _, own = name.rpartition(".")
        replaced = _module(skeleton, name)
        if not isinstance(replaced, nn.Linear) or (replaced.out_features, replaced.in_features) != matrix.shape:
            raise ModelUnavailable(
                f"{place} has a packed matrix {name} that its config.json has no layer for.",
                _CURE,
            )
        setattr(skeleton.get_submodule(parent), own, PackedLinear(matrix, replaced.bias, precision))
    weights = {
        name: tensor.to(precision) if tensor.is_floating_point() else tensor
        for name, tensor in found.others.items()
    }
    there = skeleton.state_dict()
    for name, tensor in weights.items():
        if name in there and there[name].shape != tensor.shape:
            raise ModelUnavailable(
                f"{place} has {name} in another shape, {list(tensor.shape)}, than its config.json says.",
                _CURE,
            )
    unexpected = skeleton.load_state_dict(weights, strict=False, assign=True).unexpected_keys
    if unexpected:
        raise ModelUnavailable(
            f"{place} has {len(unexpected)} tensors that its config.json has no layer for, {unexpected[0]} first.",
            _CURE,
        )
    log.info("weights.packed", place=place.name, layers=len(found.packed), tensors=len(weights))
    return skeleton.requires_grad_(requires_grad=False).train(mode=False)


@contextmanager
def refused_by_name(place: Path) -> Iterator[None]:
    """Raise ModelUnavailable where a part of a packed matrix is missing inside, or none that is known."""
    try:
        yield
    except KeyError as error:
        why = f"lacks {error.args[0]}, a part of a packed matrix"
    except UnknownPacking as error:
        why = f"cannot be used: {error}"
    else:
        return
    raise ModelUnavailable(f"{place} {why}.", _CURE)


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _sorted(skeleton: Any, folder: Path, renamed: Callable[[str], str], precision: torch.dtype) -> Sorted:
    """Map a component's files into memory, and tell what is packed in them. Raises ModelUnavailable.

    Everything is named as it is in the model.
    """
    tensors: dict[str, torch.Tensor] = {}
    notes: dict[str, str] = {}
    for file in shards_of(folder).files:
        with safe_open(file, framework="pt") as opened:
            notes |= opened.metadata() or {}
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    how = quantisation_of(folder)
    with refused_by_name(folder):
        if how["quant_method"] == "sdnq":
            named = {renamed(name): tensor for name, tensor in tensors.items()}
            return sort_out_sdnq(skeleton, how, named, precision)
        if how["quant_method"] == "nunchaku_lite":
            return sort_out_nunchaku(how, tensors)
        found = sort_out(tensors, notes)
        return Sorted(
            {renamed(f"{name}.weight").removesuffix(".weight"): matrix for name, matrix in found.packed.items()},
            {renamed(name): tensor for name, tensor in found.others.items()},
        )


def _todays_names(model: Any) -> Callable[[str], str]:
    """Give what translates a weight's name in a file, which may be years old, as transformers' own loader does."""
    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    there = model.state_dict()

    def renamed(name: str) -> str:
        found: str = rename_source_key(name, renamings, converters, model.base_model_prefix, there)[0]
        return found

    return renamed
