"""What each arrangement holds of a card, added up from the model's own tensors as the card counts them."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

import diffusers
import torch
import transformers
from torch import nn

from qwen_image_daemon.render.modulation_table import STREAMS
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.plans import PLANS, Plan
from qwen_image_daemon.render.quantisers import Format
from tiny_models import Card, Computing
from ways_down import AT_HAND

TINY_BLOCKS: Final = 14
_MLP_RATIO: Final = 12
"""Of 2.1, whose blocks are small beside its text encoder otherwise."""
_REPEATED: Final = ("model.language_model.layers", "model.visual.blocks", "model.visual.deepstack_merger_list")
"""What is streamed of a text encoder one by one. Only 2.1 has the last."""


@dataclass(frozen=True)
class Parts:
    """How large a tiny checkpoint's parts are made. All widths squared grow alike."""

    blocks: int = TINY_BLOCKS
    heads: int = 4
    layers: int = 20
    layer_width: int = 512
    precision: torch.dtype = torch.float32


def with_large_parts(tiny: Path, folder: Path, parts: Parts = Parts()) -> Path:
    """Copy a tiny checkpoint, 1.x or 2.1, with parts whose sizes are to each other as Qwen-Image's are.

    Many layers and blocks, each of them small beside the whole: so that every arrangement that comes later holds
    less. In the smallest checkpoint it is what lies around the text encoder's two layers that counts most.
    """
    shutil.copytree(tiny, folder)
    torch.manual_seed(0)
    config = _config(folder / "transformer")
    config |= {"num_layers": parts.blocks, "num_attention_heads": parts.heads}
    if "mlp_ratio" in config:
        config["mlp_ratio"] = _MLP_RATIO
    transformer = getattr(diffusers, config["_class_name"]).from_config(config)
    transformer.to(parts.precision).save_pretrained(folder / "transformer")
    config = _config(folder / "text_encoder")
    config["text_config"] |= {"num_hidden_layers": parts.layers, "intermediate_size": parts.layer_width}
    if "layer_types" in config["text_config"]:
        config["text_config"]["layer_types"] = ["full_attention"] * parts.layers
    config["vision_config"] |= {"patch_size": 2, "spatial_merge_size": 1}
    [name] = config["architectures"]
    kind: Any = getattr(transformers, name)
    encoder = kind(kind.config_class(**config))
    encoder.to(parts.precision).save_pretrained(folder / "text_encoder")
    return folder


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class CardWeights:
    """Bytes of a loaded model's parts. `encoding` is what is there of a streamed text encoder at its most."""

    transformer: Mapping[Format, int]
    """By how the matrices of its blocks are kept, in formats that are at hand here."""
    around_blocks: int
    block: int
    modulation: Mapping[Format, int]
    """Nothing, where the blocks have none of their own."""
    modulation_of_a_block: int
    modulation_layer: int
    leaf: int
    """The largest single layer of a block."""
    text_encoder: int
    encoding: int
    vae: int

    @classmethod
    def of(cls, pipeline: Any, card: Card) -> Self:
        """Add up what is loaded, and pack it on a card that is empty. All blocks are alike."""
        transformer, encoder = pipeline.transformer, pipeline.text_encoder
        blocks = list(transformer.transformer_blocks)
        modulation = [getattr(block, stream) for block in blocks for stream in STREAMS if hasattr(block, stream)]
        inside = dict(encoder.named_modules())
        layers = [*inside[_REPEATED[0]]]
        kinds: list[tuple[Format, int, int]] = [("as loaded", _bytes(transformer), sum(map(_bytes, modulation)))]
        if modulation:
            kinds += _packed(pipeline, card)
        repeated = chain.from_iterable(inside.get(name, ()) for name in _REPEATED)
        return cls(
            transformer={kept: size for kept, size, _ in kinds},
            around_blocks=_bytes(transformer) - sum(map(_bytes, blocks)),
            block=_bytes(blocks[0]),
            modulation={kept: size for kept, _, size in kinds},
            modulation_of_a_block=sum(map(_bytes, modulation)) // len(blocks),
            modulation_layer=max(map(_bytes, modulation), default=0),
            leaf=max(_own_bytes(module.parameters(recurse=False)) for module in blocks[0].modules()),
            text_encoder=_bytes(encoder),
            # Of the layers one at a time; those that look at pictures stay where they are.
            encoding=_bytes(encoder) - sum(map(_bytes, repeated)) + max(map(_bytes, layers)),
            vae=_bytes(pipeline.vae),
        )

    def of_plan(self, plan: Plan) -> int:
        """Give what an arrangement holds at its most, weights only."""
        in_blocks = self.block_of(plan)
        held = self.transformer[plan.kept] - (self.modulation[plan.kept] if plan.table else 0)
        # Tabulating borrows one layer after the other, before the first block is at work.
        borrowed = self.modulation_layer if plan.table else 0
        at_rest, at_work = {
            "resident": (held, held + borrowed),
            "by turns": (0, held + borrowed),
            "blocks streamed": (self.around_blocks, self.around_blocks + max(borrowed, in_blocks)),
            "leaves streamed": (self.around_blocks, self.around_blocks + max(borrowed, self.leaf)),
        }[plan.transformer]
        if plan.encoder == "resident":
            return self.vae + self.text_encoder + at_work
        return self.vae + max(at_rest + self.encoding, at_work)

    def block_of(self, plan: Plan) -> int:
        """Give what one block takes where the plan streams it."""
        return self.block - (self.modulation_of_a_block if plan.table else 0)


def _bytes(module: nn.Module) -> int:
    return _own_bytes((*module.parameters(), *module.buffers()))


def _own_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _packed(pipeline: Any, card: Card) -> Iterator[tuple[Format, int, int]]:
    """Give, for each format at hand, what a transformer takes whose blocks are packed, and its modulation's share.

    How much a library needs beside the bits is its own affair: it is counted. Nothing of the model may be on the
    card.
    """
    host = torch.device("cpu")
    placement = WeightPlacement(pipeline.transformer, pipeline.text_encoder, pipeline.vae)
    for kept in AT_HAND:
        whole, without_modulation = (plan for plan in PLANS if plan.kept == kept)
        with Computing(card):
            placement.arrange(whole, host)
            taken = card.used
            placement.arrange(without_modulation, host)
            less = card.used
            placement.undo()
        yield kept, taken - _bytes(pipeline.vae), taken - less
