"""Tiny checkpoints drawn with as the daemon does: what the tests of the renderer share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.renderer import Progress, Rendering, RenderRequest
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings, RenderSettings

SIDE = 64
SETTINGS = RenderSettings(device="cpu", precisions=("float32",))
PLAIN = RenderRequest(
    task="text-to-image",
    prompt="a lighthouse at dusk",
    negative_prompt=None,
    true_cfg_scale=1.0,
    num_inference_steps=2,
    width=SIDE,
    height=SIDE,
    seed=7,
)


def picture(colour: str = "orange", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Give a gradient in one colour."""
    black = Image.new("RGB", size)
    return Image.composite(Image.new("RGB", size, colour), black, Image.linear_gradient("L").resize(size))


def half_mask(size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Give a mask whose left half is white."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def read_small_references(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    """Scale what the pipelines read to our size: a megapixel takes a CPU a minute and shows nothing here."""
    for module, more in {"edit": (None,), "edit_inpaint": (None,), "edit_plus": (), "layered": ()}.items():
        place = f"diffusers.pipelines.qwenimage.pipeline_qwenimage_{module}.calculate_dimensions"
        monkeypatch.setattr(place, lambda *_, more=more: (width, height, *more))


class Card:
    """A card's memory: it counts what was brought onto it and is still there, and refuses beyond its budget."""

    def __init__(self) -> None:
        self.budget: float = float("inf")
        self.peak = 0
        self.came = 0
        """Bytes that were brought onto it, whatever became of them."""
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        """By the storage's address, which is not used again while the weak reference lives."""
        self._at_most = 0
        """Bytes held when they were last counted, and all that came since."""

    @property
    def used(self) -> int:
        self._held = {at: (storage, size) for at, (storage, size) in self._held.items() if not storage.expired()}
        self._at_most = sum(size for _, size in self._held.values())
        return self._at_most

    def onto(self, _: torch.device, resting: torch.Tensor) -> torch.Tensor:
        with _disable_current_modes():
            self._refuse_beyond_budget(resting.nbytes)
            copy = resting.clone()
        self.note(copy)
        self.came += copy.nbytes
        return copy

    def off(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self.holds(tensor):
            return tensor
        with _disable_current_modes():
            return tensor.clone()

    def holds(self, tensor: torch.Tensor) -> bool:
        return StorageWeakRef(tensor.untyped_storage()).cdata in self._held

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor that is on the card now. Refuses what is beyond the budget."""
        storage = StorageWeakRef(tensor.untyped_storage())
        if storage.cdata in self._held:
            return
        size = tensor.untyped_storage().nbytes()
        self._refuse_beyond_budget(size)
        self._held[storage.cdata] = (storage, size)
        self._at_most += size
        if self._at_most > self.peak:
            self.peak = max(self.peak, self.used)

    def _refuse_beyond_budget(self, size: int) -> None:
        if self._at_most + size > self.budget and self.used + size > self.budget:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")


class Computing(TorchDispatchMode):
    """Has a card's allocator serve the computation, too: what is computed from a tensor on the card is on it."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(map(self._card.holds, _tensors((args, kwargs)))):
            for tensor in _tensors(result):
                self._card.note(tensor)
        return result


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


@dataclass(frozen=True)
class TinyModel:
    """A loaded tiny checkpoint."""

    renderer: DiffusersRenderer
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def pipeline(self) -> Any:
        """Reach behind the seam: the pipeline that was loaded."""
        loaded = self.renderer._entered.loaded
        return loaded.warm._pipelines.loaded

    def draw(self, request: RenderRequest) -> Rendering:
        """Draw one picture."""

        def ignore(_: Progress) -> None:
            pass

        return self.renderer.render(request, ignore)

    def bytes_of(self, request: RenderRequest) -> bytes:
        """Draw one picture, and give its pixels."""
        return self.draw(request).image.tobytes()


@contextmanager
def loaded(
    family: FamilyName,
    folder: Path,
    *,
    controlnets: Mapping[str, ControlNetSettings] | None = None,
    loras: LoraFolder | None = None,
    settings: RenderSettings = SETTINGS,
) -> Iterator[TinyModel]:
    """Load a tiny checkpoint for the block."""
    given = {} if loras is None else {"loras": loras}
    accessories = Accessories(controlnets=controlnets or {}, **given)
    with DiffusersRenderer(ModelSettings(family=family, source=str(folder)), settings, accessories) as renderer:
        yield TinyModel(renderer)
