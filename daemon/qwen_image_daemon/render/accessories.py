"""What can be added to a model while it draws: LoRAs and ControlNets. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.component_sizes import parameters_in
from qwen_image_daemon.render.renderer import ModelUnavailable, RenderRequest
from qwen_image_daemon.settings import ControlNetSettings, Settings

_CONTROLNET: Final = 1_770_000_000
"""Parameters of those for Qwen-Image on the hub, for one that is fetched when it is first used."""


def _no_loras() -> LoraFolder:
    return LoraFolder(Path("/nonexistent"), {})


@dataclass(frozen=True, slots=True)
class Accessories:
    """What the settings offer to all models."""

    loras: LoraFolder = field(default_factory=_no_loras)
    controlnets: Mapping[str, ControlNetSettings] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> "Accessories":
        """Take them out of the settings."""
        return cls(settings.lora_shelf, settings.controlnets)

    def parameters_beside(self, request: RenderRequest) -> int:
        """Count the parameters of the LoRAs and the ControlNet that a request names, from their files' headers.

        What cannot be read counts nothing: it is refused with its reason when it is loaded.
        """
        files = self.loras.files() if request.loras else {}
        places = [files[use.name] for use in request.loras if use.name in files]
        controlnet = None if request.control is None else self.controlnets.get(request.control.controlnet)
        if controlnet is not None and controlnet.folder is not None:
            places.append(controlnet.folder)
        fetched = _CONTROLNET if controlnet is not None and controlnet.folder is None else 0
        return fetched + sum(map(_parameters_in, places))


def _parameters_in(place: Path) -> int:
    try:
        return _counted(place, place.stat().st_mtime_ns)
    except (ModelUnavailable, OSError):
        return 0


@lru_cache(maxsize=64)
def _counted(place: Path, _: int) -> int:
    """Count them once for each time at which the file was changed: a plan asks several times for a picture."""
    return parameters_in(place)
