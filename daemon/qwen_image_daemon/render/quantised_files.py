"""Checkpoints whose weights are in fewer bits already: which can be drawn with, and which are refused. No torch.

The operator chose them, so `render.quality` is not asked; every result is labelled lossy all the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qwen_image_daemon.render.quantisers import Library, how_to_install, is_installed
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.weight_files import BrokenFile, notes_in, tensors_in

_MAGIC: Final = b"GGUF"
_LITE: Final = "nunchaku_lite"
_NUNCHAKU: Final = ".safetensors"
_UNNAMED: Final = "an unnamed method"
_CURE: Final = (
    "Use a folder that bitsandbytes quantised (NF4 or int8), or the makers' checkpoint: with a GGUF file as the "
    'model\'s transformer, or with render.quality = "allow-quantized", where weights that do not fit are kept in '
    "fewer bits."
)
_UNPACKED_BY: Final[Mapping[str, Library | None]] = MappingProxyType(
    {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "sdnq": "sdnq", _LITE: None}
)
"""By the method that a configuration names. None: by this program itself."""
UNPACKABLE: Final = ("transformer", "text_encoder")
"""The components that may be so."""
_WEIGHT_ONLY: Final = ("Int8WeightOnlyConfig", "Float8WeightOnlyConfig")


def is_nunchakus(file: Path) -> bool:
    """Say whether a file that stands for a transformer is to be one of Nunchaku's; otherwise it is a GGUF file."""
    return file.suffix == _NUNCHAKU


def refuse_unusable(file: Path) -> None:
    """Raise ModelUnavailable where a file cannot stand for a transformer, or what reads it is not installed."""
    if is_nunchakus(file):
        _refuse_none_of_nunchakus(file)
        return
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


def _refuse_none_of_nunchakus(file: Path) -> None:
    try:
        tensors = tensors_in(file)
        config = _table_in(notes_in(file).get("config", ""))
    except BrokenFile as fault:
        raise ModelUnavailable(
            f"{file} could not be loaded: {fault}.",
            "Fetch the file again, and set the model's transformer to where it is.",
        ) from None
    if not config or not any(name.endswith(".qweight") for name in tensors):
        raise ModelUnavailable(
            f"{file} is no file of Nunchaku's: "
            f"{'none of its tensors is called qweight' if config else 'it has no config in its header'}.",
            "Of safetensors files only Nunchaku's (svdq-….safetensors) can stand for a transformer. A checkpoint "
            "in diffusers' layout is a source; for others use a GGUF file.",
        )


def _table_in(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def quantised_in(folder: Path) -> Mapping[str, str]:
    """Give the components of a checkpoint whose weights are in fewer bits, with the method that made it so."""
    return {component: _method(how) for component, how in _quantisations_in(folder).items()}


def refuse_unusable_folder(folder: Path, source: str, file: Path | None) -> None:
    """Raise ModelUnavailable where weights of the checkpoint are in fewer bits in a way that is of no use here.

    `file` is that which stands for its transformer.
    """
    for component, how in _quantisations_in(folder).items():
        _refuse_unusable(component, how, source)
        if component == "transformer" and file is not None:
            raise ModelUnavailable(
                f"The transformer of {source} is quantised itself; {file} cannot stand for it.",
                "Set the source to the makers' checkpoint, or name no file as the model's transformer.",
            )


def refuse_quantised_component(folder: Path, source: str) -> None:
    """Raise ModelUnavailable where a folder that is one component, a ControlNet, is in fewer bits."""
    method = quantisation_of(folder).get("quant_method")
    if method is not None:
        raise ModelUnavailable(
            f"{source} was quantised with {method}: this program draws with whole ControlNets only.",
            "Set its source to the makers' ControlNet.",
        )


def _quantisations_in(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Give what the components of a checkpoint say of fewer bits, by component, those that do."""
    found = {file.parent.name: quantisation_of(file.parent) for file in sorted(folder.glob("*/config.json"))}
    return {component: how for component, how in found.items() if how}


def _method(how: Mapping[str, Any]) -> str:
    return str(how.get("quant_method", _UNNAMED))


def _refuse_unusable(component: str, how: Mapping[str, Any], source: str) -> None:
    method = _method(how)
    components = ("transformer",) if method == _LITE else UNPACKABLE
    if method not in _UNPACKED_BY or component not in components:
        raise ModelUnavailable(
            f"The {component} of {source} was quantised with {method}: this program cannot unpack such weights.",
            _CURE,
        )
    kind = _kind_of_torchao(how)
    if kind is not None and kind not in _WEIGHT_ONLY:
        raise ModelUnavailable(
            f"The {component} of {source} was quantised with torchao's {kind}: of its kinds this program "
            f"draws with {' and '.join(_WEIGHT_ONLY)} only.",
            _CURE,
        )
    library = _UNPACKED_BY[method]
    if library is not None and not is_installed(library):
        raise ModelUnavailable(
            f"The {component} of {source} was quantised with {library}, which is not installed.",
            how_to_install(library),
        )


def _kind_of_torchao(how: Mapping[str, Any]) -> str | None:
    """Give the class of a torchao configuration, as diffusers and transformers write it."""
    kind = how.get("quant_type")
    inner = kind.get("default") if isinstance(kind, dict) else None
    return str(inner.get("_type")) if isinstance(inner, dict) else None


def quantisation_of(component: Path) -> dict[str, Any]:
    """Give what a component's configuration says of fewer bits; nothing where it does not."""
    try:
        config: Any = json.loads((component / "config.json").read_bytes())
    except (OSError, ValueError):
        # Loading it says so, with its name.
        return {}
    how = config.get("quantization_config") if isinstance(config, dict) else None
    if not how:
        return {}
    return how if isinstance(how, dict) else {"quant_method": _UNNAMED}
