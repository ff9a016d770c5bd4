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
        self._held: list[tuple[StorageWeakRef, int]] = []

    @property
    def used(self) -> int:
        self._held = [(storage, size) for storage, size in self._held if not storage.expired()]
        return sum(size for _, size in self._held)

    def onto(self, _: torch.device, resting: torch.Tensor) -> torch.Tensor:
        size = resting.nbytes
        if self.used + size > self.budget:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        copy = resting.clone()
        self._held.append((StorageWeakRef(copy.untyped_storage()), size))
        self.peak = max(self.peak, self.used)
        return copy


@dataclass(frozen=True)
class TinyModel:
    """A loaded tiny checkpoint."""

    renderer: DiffusersRenderer
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def pipeline(self) -> Any:
        """Reach behind the seam: the pipeline that was loaded."""
        loaded, _ = self.renderer._entered
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
