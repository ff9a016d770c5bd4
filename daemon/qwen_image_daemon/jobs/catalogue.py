"""Which models, ControlNets, LoRAs and styles a job may name: what the settings and the LoRA folder hold."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from qwen_image_daemon.jobs.families import DistilledSteps, Family, FamilyName
from qwen_image_daemon.jobs.models import AnyJob, source_images
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
class Demand:
    """What a model must be able to do for a job."""

    task: Task
    references: int = 0
    """How many pictures an edit reads."""
    masked: bool = False
    loras: frozenset[FamilyName] = frozenset()
    """The families that its LoRAs are for."""

    def is_met_by(self, family: Family) -> bool:
        """Say whether the models of a family can do the job."""
        if self.task == "edit" and (
            self.references > family.max_references or (self.masked and not family.edits_with_mask)
        ):
            return False
        return self.task in family.tasks and self.loras <= {family.name}


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

    def model_for(self, named: str | None, demand: Demand) -> str | None:
        """Give the model for a job: the one named, else the default if it can do the job, else the first that can.

        Where none of them can do all of it, the one that can do the task at least; None where none can do that.
        """
        if named is not None:
            return named
        in_order = (self.default, *self.families)
        usable = [name for name in in_order if demand.task in self.families[name].tasks and self.may_use(name)]
        return next((name for name in usable if demand.is_met_by(self.families[name])), next(iter(usable), None))

    def may_use(self, model: str) -> bool:
        """Say whether the settings let jobs use a model, for its licence."""
        return self.license_policy == "label" or self.families[model].commercial_use

    def models_for(self, task: Task) -> tuple[str, ...]:
        """Give the models that can do a task, in the order of the settings."""
        return tuple(name for name, family in self.families.items() if task in family.tasks)

    def model_of(self, spec: AnyJob) -> str:
        """Give the model of a job that was read with this catalogue. Raises KeyError for others, or OSError."""
        pictures = source_images(spec)
        demand = Demand(
            task=spec.task,
            references=sum(image.role == "reference" for image in pictures),
            masked=any(image.role == "mask" for image in pictures),
            loras=self.families_of_loras(lora.name for lora in spec.loras),
        )
        model = self.model_for(spec.model, demand)
        if model is None:
            raise KeyError(spec.task)
        return model

    def families_of_loras(self, names: Iterable[str]) -> frozenset[FamilyName]:
        """Give the families that LoRAs are said to be for. Raises OSError."""
        wanted = tuple(names)
        known = self.loras() if wanted else {}
        families = (known[name].family for name in wanted if name in known)
        return frozenset(family for family in families if family is not None)

    def controlnets_for(self, family: Family, kind: ControlNetKind) -> tuple[str, ...]:
        """Give the ControlNets for the models of a family and a purpose."""
        found = ((name, net) for name, net in self.controlnets.items() if net.family == family.name)
        return tuple(name for name, net in found if net.kind == kind)
