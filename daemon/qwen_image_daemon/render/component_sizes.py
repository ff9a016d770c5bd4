"""How large a checkpoint's parts are, read from the headers of its files. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.quantised_files import quantised_in
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.weight_files import BrokenFile, TensorEntry, shards_of, tensors_in

_BLOCKS = "transformer_blocks."
_HEAD = "lm_head."
_FLOATS = ("F32", "BF16", "F16")
_PARAMETERS = (".weight", ".bias")
"""How the tensors end that are brought into the precision when they are loaded; scales stay as they are."""
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

    squeezed: float = 1.0
    """How many parameters the transformer computes with for each that is counted: more than one in fewer bits, as
    far as it is known; headers do not say it."""

    def with_transformer_of(self, parameters: int) -> "ComponentSizes":
        """Give the sizes where the transformer's weights, in fewer bits, take what so many parameters take."""
        return replace(
            self,
            transformer=parameters,
            modulation=self.modulation * parameters // self.transformer,
            block=self.block * parameters // self.transformer,
            is_quantised=True,
            squeezed=self.transformer / parameters,
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


def sizes_of_folder(folder: Path, bytes_each: int = 2) -> ComponentSizes:
    """Add up what the folder's safetensors headers say. Parameters are computed with in so many bytes each.

    Raises ModelUnavailable naming the file that is missing, cut short or unreadable.
    """
    quantised = quantised_in(folder)
    counted = (
        _as_many(folder / name, bytes_each) if name in quantised else _parameters_of(folder / name)
        for name in ("transformer", "text_encoder", "vae")
    )
    return replace(sizes_of(*counted), is_quantised="transformer" in quantised)


def parameters_in(place: Path) -> int:
    """Count the parameters in a safetensors file, or in those of a folder. Raises as `sizes_of_folder` does."""
    try:
        tensors = _tensors_of(place) if place.is_dir() else tensors_in(place)
        return sum(tensor.parameters for tensor in tensors.values())
    except BrokenFile as fault:
        raise ModelUnavailable(f"{fault.place} could not be loaded: {fault}.", _FIX) from None


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


def _parameters_of(component: Path) -> dict[str, int]:
    return {name: tensor.parameters for name, tensor in _tensors_of(component).items()}


def _as_many(component: Path, bytes_each: int) -> dict[str, int]:
    """Count what is packed, scales and all, as so many parameters as take the same."""
    return {
        name: tensor.parameters if _is_whole(name, tensor) else -(-tensor.size // bytes_each)
        for name, tensor in _tensors_of(component).items()
    }


def _is_whole(name: str, tensor: TensorEntry) -> bool:
    return tensor.format in _FLOATS and name.endswith(_PARAMETERS)


def _tensors_of(component: Path) -> dict[str, TensorEntry]:
    """Give each tensor by its name, over all shards."""
    try:
        return {name: tensor for file in shards_of(component).files for name, tensor in tensors_in(file).items()}
    except BrokenFile as fault:
        raise ModelUnavailable(f"{fault.place} could not be loaded: {fault}.", _FIX) from None
