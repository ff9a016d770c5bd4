"""What each arrangement holds of a card, added up from the model's own tensors as the card counts them."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import QwenImageTransformer2DModel
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from qwen_image_daemon.render.memory import Plan
from qwen_image_daemon.render.modulation_table import STREAMS

BLOCKS, HEADS = 14, 4
LAYERS, LAYER_WIDTH = 20, 512


def with_large_parts(tiny: Path, folder: Path) -> Path:
    """Copy a tiny checkpoint, with parts whose sizes are to each other as Qwen-Image's are.

    Many layers and blocks, each of them small beside the whole: so that every arrangement that comes later holds
    less. In the smallest checkpoint it is what lies around the text encoder's two layers that counts most.
    """
    shutil.copytree(tiny, folder)
    torch.manual_seed(0)
    transformer: Any = QwenImageTransformer2DModel.from_config(
        _config(folder / "transformer") | {"num_layers": BLOCKS, "num_attention_heads": HEADS}
    )
    transformer.save_pretrained(folder / "transformer")
    config = _config(folder / "text_encoder")
    config["text_config"] |= {
        "num_hidden_layers": LAYERS,
        "intermediate_size": LAYER_WIDTH,
        "layer_types": ["full_attention"] * LAYERS,
    }
    config["vision_config"] |= {"patch_size": 2, "spatial_merge_size": 1}
    encoder: Any = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    encoder.save_pretrained(folder / "text_encoder")
    return folder


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class CardWeights:
    """Bytes of a loaded model's parts. `encoding` is what is there of a streamed text encoder at its most."""

    transformer: int
    around_blocks: int
    block: int
    modulation: int
    modulation_layer: int
    leaf: int
    """The largest single layer of a block."""
    text_encoder: int
    encoding: int
    vae: int
    in_8_bits: int
    """The transformer, with the matrices of its blocks in float8."""
    modulation_in_8_bits: int

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """Add up what is loaded. All blocks are alike."""
        transformer, encoder = pipeline.transformer, pipeline.text_encoder
        blocks = list(transformer.transformer_blocks)
        modulation = [getattr(block, stream) for block in blocks for stream in STREAMS]
        layers = list(encoder.model.language_model.layers)
        return cls(
            transformer=_bytes(transformer),
            around_blocks=_bytes(transformer) - sum(map(_bytes, blocks)),
            block=_bytes(blocks[0]),
            modulation=sum(map(_bytes, modulation)),
            modulation_layer=max(map(_bytes, modulation)),
            leaf=max(_own_bytes(module.parameters(recurse=False)) for module in blocks[0].modules()),
            text_encoder=_bytes(encoder),
            # Of the layers one at a time; those that look at pictures stay where they are.
            encoding=_bytes(encoder)
            - sum(map(_bytes, (*layers, *encoder.model.visual.blocks)))
            + max(map(_bytes, layers)),
            vae=_bytes(pipeline.vae),
            in_8_bits=_bytes(transformer) - _saved_by_8_bits(blocks),
            modulation_in_8_bits=sum(map(_bytes, modulation)) - _saved_by_8_bits(modulation),
        )

    def of_plan(self, plan: Plan) -> int:
        """Give what an arrangement holds at its most, weights only."""
        transformer, modulation = self.transformer, self.modulation
        if plan.kept != "as loaded":
            transformer, modulation = self.in_8_bits, self.modulation_in_8_bits
        in_blocks = self.block - (self.modulation // BLOCKS if plan.table else 0)
        held = transformer - (modulation if plan.table else 0)
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


def _bytes(module: nn.Module) -> int:
    return _own_bytes((*module.parameters(), *module.buffers()))


def _own_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _saved_by_8_bits(modules: Iterable[nn.Module]) -> int:
    matrices = [part.weight for module in modules for part in module.modules() if isinstance(part, nn.Linear)]
    # One byte for each parameter, and a scale in the weights' own precision for each row.
    return sum(matrix.nbytes - matrix.numel() - len(matrix) * matrix.element_size() for matrix in matrices)
