"""What can be added to a model while it draws: LoRAs and ControlNets. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.settings import ControlNetSettings, Settings


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
