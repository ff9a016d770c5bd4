"""Checkpoints whose weights are in fewer bits already: GGUF files are drawn with, others are refused. No torch.

The operator chose them, so `render.quality` is not asked; every result is labelled lossy all the same.
"""

import json
from pathlib import Path
from typing import Any, Final

from qwen_image_daemon.render.quantisers import how_to_install, is_installed
from qwen_image_daemon.render.renderer import ModelUnavailable

_MAGIC: Final = b"GGUF"
_CURE: Final = (
    "Set the source to the makers' checkpoint, and name a GGUF file as the model's transformer; or set "
    'render.quality = "allow-quantized": weights are then kept in fewer bits where they do not fit otherwise.'
)


def refuse_unusable(file: Path) -> None:
    """Raise ModelUnavailable where a GGUF file is not there or is none, or what reads it is not installed."""
    if not is_installed("gguf"):
        raise ModelUnavailable(f"{file} needs gguf, which is not installed.", how_to_install("gguf"))
    try:
        with file.open("rb") as opened:
            begins = opened.read(len(_MAGIC))
    except OSError as error:
        raise ModelUnavailable(
            f"{file} could not be read: {error.strerror}.", "Set the model's transformer to where the file is."
        ) from None
    if begins != _MAGIC:
        raise ModelUnavailable(
            f"{file} does not begin as a GGUF file does.", "Fetch it again; only GGUF files can stand there."
        )


def refuse_quantised_folder(folder: Path, source: str) -> None:
    """Raise ModelUnavailable where a component of the checkpoint says that its weights are in fewer bits."""
    for file in sorted(folder.glob("*/config.json")):
        try:
            config: Any = json.loads(file.read_bytes())
        except (OSError, ValueError):
            # Loading it says so, with its name.
            continue
        if isinstance(config, dict):
            _refuse_quantised(config, file.parent.name, source)


def _refuse_quantised(config: dict[str, Any], component: str, source: str) -> None:
    """Raise ModelUnavailable where a component's configuration says that its weights are in fewer bits.

    Their libraries keep scales beside the tensors, out of reach of the one owner of all weights: moved to and fro,
    they would be apart.
    """
    how = config.get("quantization_config")
    if how:
        named = how if isinstance(how, dict) else {}
        method = named.get("quant_method", "an unnamed method")
        raise ModelUnavailable(
            f"The {component} of {source} was quantised with {method}: this program cannot arrange such weights.",
            _CURE,
        )
