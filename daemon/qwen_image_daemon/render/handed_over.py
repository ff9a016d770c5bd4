"""Parts of a model that the next one has, too: Qwen-Image and Qwen-Image-Edit have one text encoder and one VAE.

At a change of models they stay in host memory: 15.7 GiB that are not loaded again. They do not stay on the device;
the next model is arranged anew there, in the memory that is free then. No torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from qwen_image_daemon.render.making_room import nothing_stands_by
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.parking import Parking
from qwen_image_daemon.render.renderer import Loading
from qwen_image_daemon.settings import ModelSettings, Precision

SHAREABLE: Final = ("text_encoder", "vae")
"""LoRAs lie on transformers, and schedulers have states: these are never shared."""


@dataclass(frozen=True, slots=True)
class Part:
    """A loaded component: from which files, and how."""

    component: str
    files: tuple[str, ...]
    precision: Precision
    is_whole: bool
    """The text encoder has its head. Most families take it off; one that needs it cannot do with theirs."""


class HandedOver:
    """Keeps the parts of the model that was let go until the next one has taken what it can use.

    And knows those of the models that stand by: they stay theirs, and are lent.
    """

    def __init__(self) -> None:
        self._kept: dict[Part, Any] = {}
        self._lent: dict[int, Mapping[Part, Any]] = {}

    def lend(self, owner: object, parts: Mapping[Part, Any]) -> None:
        """Offer what a loaded model has, as long as it is loaded."""
        self._lent[id(owner)] = dict(parts)

    def take_back(self, owner: object) -> None:
        """Offer no more what a model had."""
        self._lent.pop(id(owner), None)

    def leave(self, parts: Mapping[Part, Any]) -> None:
        """Keep what a model leaves behind."""
        self._kept = dict(parts)

    def claim(self, wanted: Mapping[str, Part]) -> dict[str, Any]:
        """Give the parts of the same files, by component, and let go of all others: the memory is needed."""
        there, self._kept = self._kept, {}
        for lent in self._lent.values():
            there |= lent
        return {component: there[part] for component, part in wanted.items() if part in there}


def unheard(_: Loading) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlasts a loaded model."""

    state: Path | None = None
    """A folder for what must outlast the process, too."""
    handed_over: HandedOver | None = None
    """What may outlast it in memory, until the next model is there."""
    tell: Callable[[Loading], None] = unheard
    """Who hears how far loading is, here and where a ControlNet is loaded later. What it raises passes through."""
    parking: Parking = field(default_factory=partial(Parking, is_open=False))
    """Knows whose transformers stay on the device while their models stand by; a closed one keeps none."""
    let_go_of_others: Callable[[], bool] = nothing_stands_by
    """Unloads the models that stand by, where the host's memory runs out, and says whether there were any."""


def parts_of(model: ModelSettings, precision: Precision) -> dict[str, Part]:
    """Say which parts a model is made of, by component; not those whose files are not on this machine yet."""
    folder = _folder_of(model)
    if folder is None:
        return {}
    files = {component: _identities(folder / component) for component in SHAREABLE}
    has_head = MODELS[model.family].needs_head
    return {
        component: Part(component, found, precision, is_whole=component != "text_encoder" or has_head)
        for component, found in files.items()
        if found
    }


def _folder_of(model: ModelSettings) -> Path | None:
    if model.folder is not None:
        return model.folder
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  a tenth of a second

    index = try_to_load_from_cache(model.source, "model_index.json", revision=model.revision or "main")
    return Path(index).parent if isinstance(index, str) else None


def _identities(folder: Path) -> tuple[str, ...]:
    """Give what tells files with other contents apart; two names for one file are the same.

    The hub's cache names its files by their hashes, so that one file of two repositories is known for the same.
    """
    found = []
    for path in sorted(folder.glob("*")):
        real = path.resolve()
        if not real.is_file():
            continue
        stat = real.stat()
        is_named_by_hash = real.parent.name == "blobs"
        content = real.name if is_named_by_hash else f"{stat.st_dev}:{stat.st_ino}:{stat.st_mtime_ns}"
        found.append(f"{path.name} {content} {stat.st_size}")
    return tuple(found)
