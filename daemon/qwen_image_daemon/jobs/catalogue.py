"""Which models and styles a job may name: the settings' model names with the family of each, and all styles."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.jobs.styles import STYLES, Style


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The names a job may use as `model`. `default` is one of them and is used where a job names none."""

    families: Mapping[str, Family]
    default: str
    styles: Mapping[str, Style] = field(default_factory=lambda: STYLES)

    def family_of(self, model: str | None) -> Family:
        """Give the family of a model named by a job, or of the default. Raises KeyError for an unknown name."""
        return self.families[model if model is not None else self.default]
