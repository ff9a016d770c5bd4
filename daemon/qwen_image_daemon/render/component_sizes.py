"""How large a checkpoint's parts are, read from the headers of its files. Imports no torch."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.renderer import ModelUnavailable

_LONGEST_HEADER = 100_000_000
"""The same limit as in the safetensors library."""
_BLOCKS = "transformer_blocks."
_HEAD = "lm_head."
_FIX = "Fetch the checkpoint again, or the file that is named."


@dataclass(frozen=True, slots=True)
class ComponentSizes:
    """Numbers of parameters, not bytes: what they take depends on the precision."""

    transformer: int
    modulation: int
    """Those of the transformer in `img_mod` and `txt_mod`, which see nothing but the timestep."""
    block: int
    """Those of the largest transformer block."""
    blocks: int
    """How many blocks the transformer has. The one number here that counts no parameters."""
    text_encoder: int
    """Without the head, which encoding does not use."""
    text_encoder_head: int
    text_encoder_leaf: int
    """Those of the largest single layer: the vocabulary."""
    vae: int
    mapped: bool = True
    """The host's tensors are the checkpoint's files, mapped, and take no memory that is needed elsewhere. They are
    copies where the files have another precision."""
    is_quantised: bool = False
    """The transformer's weights are in fewer bits in the checkpoint itself. What they take is then counted as that
    of so many parameters in the precision as take the same."""

    def with_transformer_of(self, parameters: int) -> "ComponentSizes":
        """Give the sizes where the transformer's weights, in fewer bits, take what so many parameters take."""
        return replace(
            self,
            transformer=parameters,
            modulation=self.modulation * parameters // self.transformer,
            block=self.block * parameters // self.transformer,
            is_quantised=True,
        )

    @property
    def total(self) -> int:
        """All of them, without the text encoder's head."""
        return self.transformer + self.text_encoder + self.vae


_QWEN_IMAGE_1 = ComponentSizes(
    transformer=20_430_401_088,
    modulation=6_796_984_320,
    block=339_831_296,
    blocks=60,
    text_encoder=7_747_169_280,
    text_encoder_head=544_997_376,
    text_encoder_leaf=544_997_376,
    vae=126_892_531,
)

_QWEN_IMAGE_2_1 = ComponentSizes(
    transformer=7_115_124_736,
    # Its one modulation layer is shared by all blocks.
    modulation=0,
    block=218_104_064,
    blocks=32,
    text_encoder=8_144_793_840,
    text_encoder_head=622_329_856,
    text_encoder_leaf=622_329_856,
    vae=337_740_404,
)

KNOWN_SIZES: Mapping[FamilyName, ComponentSizes] = MappingProxyType(
    {
        "qwen-image": _QWEN_IMAGE_1,
        "qwen-image-edit": _QWEN_IMAGE_1,
        "qwen-image-edit-plus": _QWEN_IMAGE_1,
        # Its few parameters more (a condition, an alpha channel) are less than a thousandth.
        "qwen-image-layered": _QWEN_IMAGE_1,
        "qwen-image-2.1": _QWEN_IMAGE_2_1,
        "qwen-image-2.1-turbo": _QWEN_IMAGE_2_1,
    }
)
"""For checkpoints that are not on this machine yet. Counted on the meta device, published configurations."""


def refuse_incomplete_folder(folder: Path, components: Iterable[str]) -> None:
    """Raise ModelUnavailable naming a file of these components that is missing, cut short or unreadable."""
    for name in components:
        for _ in _tensors_of(folder / name):
            pass


def sizes_of_folder(folder: Path) -> ComponentSizes:
    """Add up what the folder's safetensors headers say.

    Raises ModelUnavailable naming the file that is missing, cut short or unreadable.
    """
    return sizes_of(*(dict(_tensors_of(folder / name)) for name in ("transformer", "text_encoder", "vae")))


def parameters_in(place: Path) -> int:
    """Count the parameters in a safetensors file, or in those of a folder. Raises as `sizes_of_folder` does."""
    if place.is_dir():
        return sum(count for _, count in _tensors_of(place))
    return sum(count for _, count in _tensors_in(place))


def sizes_of(transformer: Mapping[str, int], encoder: Mapping[str, int], vae: Mapping[str, int]) -> ComponentSizes:
    """Add up the numbers of parameters, given for each tensor by its name."""
    blocks: dict[str, int] = {}
    for name, count in transformer.items():
        if name.startswith(_BLOCKS):
            number = name.removeprefix(_BLOCKS).partition(".")[0]
            blocks[number] = blocks.get(number, 0) + count
    return ComponentSizes(
        transformer=sum(transformer.values()),
        modulation=_sum(transformer, lambda name: ".img_mod." in name or ".txt_mod." in name),
        block=max(blocks.values(), default=0),
        blocks=len(blocks),
        text_encoder=_sum(encoder, lambda name: _HEAD not in name),
        text_encoder_head=_sum(encoder, lambda name: _HEAD in name),
        text_encoder_leaf=max(encoder.values(), default=0),
        vae=sum(vae.values()),
    )


def _sum(tensors: Mapping[str, int], chosen: Callable[[str], bool]) -> int:
    return sum(count for name, count in tensors.items() if chosen(name))


def _tensors_of(component: Path) -> Iterator[tuple[str, int]]:
    """Give name and number of parameters of each tensor, over all shards."""
    for file in _files_of(component):
        yield from _tensors_in(file)


def _files_of(component: Path) -> list[Path]:
    indexes = sorted(component.glob("*.safetensors.index.json"))
    if not indexes:
        files = sorted(component.glob("*.safetensors"))
        if not files:
            raise _unusable(component, "no safetensors file is in it")
        return files
    try:
        shards = json.loads(indexes[0].read_bytes())["weight_map"].values()
        return [component / shard for shard in sorted(set(shards))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(indexes[0], f"it is no index of shards: {error}") from None


def _tensors_in(file: Path) -> list[tuple[str, int]]:
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(min(length, _LONGEST_HEADER))
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        tensors = [(name, prod(entry["shape"])) for name, entry in header.items()]
        found = file.stat().st_size
    except FileNotFoundError:
        raise _unusable(file, "it is missing") from None
    except OSError as error:
        raise _unusable(file, f"it cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _unusable(file, "it does not begin as a safetensors file does") from None
    if found != expected:
        raise _unusable(file, f"it has {found} bytes instead of {expected}")
    return tensors


def _unusable(place: Path, why: str) -> ModelUnavailable:
    return ModelUnavailable(f"{place} could not be loaded: {why}.", _FIX)
