"""A transformer whose weights are in a GGUF file. diffusers turns them back for each layer's forward."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import GGUFQuantizationConfig


def load_gguf_transformer(file: Path, place: str, revision: str | None, precision: torch.dtype) -> Any:
    """Load it for computing in the precision; its shape is that of the transformer of the checkpoint at `place`.

    The file is read whole into host memory. Tensors that it lacks stay without data. Raises what diffusers raises.
    """
    index = diffusers.DiffusionPipeline.load_config(place, revision=revision)
    kind = getattr(diffusers, index["transformer"][1])
    return kind.from_single_file(
        str(file),
        config=place,
        subfolder="transformer",
        config_revision=revision,
        quantization_config=GGUFQuantizationConfig(compute_dtype=precision),
        dtype=precision,
    )


def formats_of(transformer: Any) -> list[str]:
    """Give the names of the GGUF formats that its weights are in, none where it was loaded otherwise."""
    formats = {getattr(tensor, "quant_type", None) for tensor in transformer.parameters()}
    return sorted(each.name for each in formats if each is not None)
