"""LoRAs on a transformer: checked before they touch it, kept from job to job, and taken off without a trace.

They are never fused: back and forth in bfloat16 does not come out even. Taking them off is exact to the bit.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError, safe_open

from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.jobs.quoting import quoted
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.differences import Difference
from qwen_image_daemon.render.renderer import RequestRefused

log = structlog.get_logger()

_PREFIX = "transformer."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class CheckedLora:
    """A LoRA that fits: its weights as diffusers names them, without those that match nothing."""

    name: str
    stamp: tuple[int, int]
    """Size and time of its file, which may be replaced between jobs."""
    weights: Mapping[str, torch.Tensor]
    unmatched: tuple[str, ...]
    """Keys for which the transformer has no layer."""


class Loras:
    """The LoRAs that lie on one model's transformer at present."""

    def __init__(self, transformer: Any, loader: Any, folder: LoraFolder) -> None:
        """`loader` is a pipeline class that knows how its family's LoRAs are written."""
        self._transformer = transformer
        self._loader = loader
        self._folder = folder
        self._on: tuple[CheckedLora, ...] = ()

    def checked(self, uses: Sequence[LoraUse]) -> tuple[CheckedLora, ...]:
        """Read and check what a job names. Raises RequestRefused."""
        if not uses:
            return ()
        files = self._folder.files()
        return tuple(self._checked(use.name, files) for use in uses)

    def put_on(self, loras: Sequence[CheckedLora], uses: Sequence[LoraUse]) -> None:
        """Let exactly these lie on the transformer, with their weights.

        Raises what diffusers raises; then none lies on it.
        """
        try:
            if [(lora.name, lora.stamp) for lora in loras] != [(lora.name, lora.stamp) for lora in self._on]:
                self.take_off()
                for place, lora in enumerate(loras):
                    self._on = (*self._on, lora)
                    self._load(lora, _adapter(place))
            if loras:
                names = [_adapter(place) for place in range(len(loras))]
                self._transformer.set_adapters(names, [use.weight for use in uses])
        except BaseException:
            # What is half on is of no use to anybody.
            self.take_off()
            raise

    def _load(self, lora: CheckedLora, adapter: str) -> None:
        with warnings.catch_warnings():
            # There is to be more than one.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            self._transformer.load_lora_adapter(dict(lora.weights), adapter_name=adapter)

    def take_off(self) -> None:
        """Take all of them off. Also what a failure left behind."""
        if self._on:
            self._on = ()
            self._transformer.unload_lora()
            log.info("loras.taken_off")

    def _checked(self, name: str, files: Mapping[str, Path]) -> CheckedLora:
        path = files.get(name)
        if path is None:
            raise RequestRefused(
                f"There is no LoRA {quoted(name)} any more.", f"Put {name}.safetensors into the LoRA folder."
            )
        stat = path.stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
        for lora in self._on:
            if (lora.name, lora.stamp) == (name, stamp):
                return lora
        weights = self._read(name, path)
        layers = {key for key, module in self._transformer.named_modules() if hasattr(_bare(module), "weight")}
        fitting: dict[str, torch.Tensor] = {}
        unmatched: list[str] = []
        for key, tensor in weights.items():
            layer = key.removeprefix(_PREFIX).removesuffix(_DOWN).removesuffix(_UP)
            if key.startswith(_PREFIX) and layer in layers:
                self._refuse_shape(name, layer, key, tensor)
                fitting[key] = tensor
            else:
                unmatched.append(key)
        if not fitting:
            raise RequestRefused(
                f"The LoRA {quoted(name)} has no layer that this model has: {unmatched[0]} matches nothing.",
                "Choose one made for this model; keys begin with transformer., diffusion_model. or lora_unet_.",
            )
        return CheckedLora(name, stamp, fitting, tuple(unmatched))

    def _read(self, name: str, path: Path) -> dict[str, torch.Tensor]:
        """Give the weights under diffusers' names. Raises RequestRefused for what is no LoRA."""
        try:
            weights: dict[str, torch.Tensor] = self._loader.lora_state_dict(_tensors_of(path))
        except (SafetensorError, ValueError, KeyError) as error:
            raise RequestRefused(
                f"The LoRA {quoted(name)} cannot be used: {' '.join(str(error).split())[:300]}.",
                "Fetch its file again; it must be a LoRA as safetensors.",
            ) from None
        ruined = next((key for key, tensor in weights.items() if not tensor.float().sum().isfinite()), None)
        if ruined is not None:
            raise RequestRefused(
                f"The LoRA {quoted(name)} holds values that are not numbers (NaN or infinite), first in {ruined}.",
                "Fetch its file again.",
            )
        return weights

    def _refuse_shape(self, name: str, layer: str, key: str, tensor: torch.Tensor) -> None:
        outputs, inputs = _shape(_bare(self._transformer.get_submodule(layer)).weight)
        fits = tensor.shape[1] == inputs if key.endswith(_DOWN) else tensor.shape[0] == outputs
        if not fits:
            raise RequestRefused(
                f"The LoRA {quoted(name)} is made for another model: {key} is {tuple(tensor.shape)}, "
                f"the layer {outputs}×{inputs}.",
                "Choose one that is made for this model.",
            )


def lora_differences(loras: Sequence[CheckedLora]) -> Iterator[Difference]:
    """Give the LoRAs of which a part matches nothing."""
    for lora in loras:
        if lora.unmatched:
            count, total = len(lora.unmatched), len(lora.unmatched) + len(lora.weights)
            yield Difference(
                f"{count} of the {total} tensors of the LoRA {quoted(lora.name)} match nothing in this model, "
                f"{lora.unmatched[0]} first.",
                "Choose a LoRA that is made for this model.",
                f"{count} of the {total} tensors of the LoRA {quoted(lora.name)} match nothing and were left out",
            )


def _tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Read a file as it is. Raises SafetensorError, or ValueError for what is no LoRA."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
    strange = next((key for key in tensors if "lora" not in key and not key.endswith(".alpha")), None)
    if strange is not None:
        raise ValueError(f"{strange} is no part of a LoRA")
    return tensors


def _bare(module: Any) -> Any:
    """Give the layer itself where a LoRA lies over it."""
    return getattr(module, "base_layer", module)


def _shape(weight: torch.Tensor) -> tuple[int, int]:
    # That of a matrix in a GGUF file counts bytes.
    outputs, inputs = getattr(weight, "quant_shape", weight.shape)[:2]
    return outputs, inputs


def _adapter(place: int) -> str:
    return f"job_{place}"
