"""Which models, ControlNets, LoRAs and styles a job may name: what the settings and the LoRA folder hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from qwen_image_daemon.jobs.families import DistilledSteps, Family, FamilyName
from qwen_image_daemon.jobs.models import AnyJob
from qwen_image_daemon.jobs.styles import STYLES, Style
from qwen_image_daemon.jobs.tasks import Task

ControlNetKind = Literal["union", "inpaint"]
LicensePolicy = Literal["label", "refuse"]


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA that jobs may name. What is None is not known."""

    family: FamilyName | None = None
    distilled_steps: DistilledSteps | None = None
    """It lets the model draw in so many steps, without guidance, on a schedule of its own."""


@dataclass(frozen=True, slots=True)
class ControlNet:
    """A ControlNet that jobs may name: for which models, and for what."""

    family: FamilyName
    kind: ControlNetKind
    """union: follows edges, depth, poses and the like. inpaint: redraws the masked part of a picture."""


def _no_loras() -> Mapping[str, Lora]:
    return {}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The names a job may use. `default` is one of the models and is used where a job names none."""

    families: Mapping[str, Family]
    """The models, in the order of the settings, with the family of each."""
    default: str
    styles: Mapping[str, Style] = field(default_factory=lambda: STYLES)
    loras: Callable[[], Mapping[str, Lora]] = _no_loras
    """Looks which LoRAs there are now: files come and go. Raises OSError."""
    controlnets: Mapping[str, ControlNet] = field(default_factory=dict)
    license_policy: LicensePolicy = "label"
    """What becomes of jobs for models whose licence forbids commercial use."""

    def family_of(self, model: str | None) -> Family:
        """Give the family of a model named by a job, or of the default. Raises KeyError for an unknown name."""
        return self.families[model if model is not None else self.default]

    def model_for(self, named: str | None, task: Task) -> str | None:
        """Give the model that draws a task: the one named, else the default if it can, else the first that can.

        None where none of them can.
        """
        if named is not None:
            return named
        able = self.models_for(task)
        return self.default if self.default in able else next(iter(able), None)

    def models_for(self, task: Task) -> tuple[str, ...]:
        """Give the models that can do a task, in the order of the settings."""
        return tuple(name for name, family in self.families.items() if task in family.tasks)

    def model_of(self, spec: AnyJob) -> str:
        """Give the model of a job that was read with this catalogue. Raises KeyError for another one."""
        model = self.model_for(spec.model, spec.task)
        if model is None:
            raise KeyError(spec.task)
        return model

    def controlnets_for(self, family: Family, kind: ControlNetKind) -> tuple[str, ...]:
        """Give the ControlNets for the models of a family and a purpose."""
        found = ((name, net) for name, net in self.controlnets.items() if net.family == family.name)
        return tuple(name for name, net in found if net.kind == kind)
