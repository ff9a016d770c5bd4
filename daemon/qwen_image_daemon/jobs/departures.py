"""What a model would do otherwise than a job asks: an error for strict jobs, a note in the result of others.

What only the renderer can know (tokens, LoRA keys) it finds itself, by the same rule.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qwen_image_daemon.jobs.catalogue import Lora
from qwen_image_daemon.jobs.families import Family, Preset, PresetName
from qwen_image_daemon.jobs.models import AnyJob, SchedulerName
from qwen_image_daemon.jobs.problems import KeyPath
from qwen_image_daemon.jobs.quoting import quoted


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a job says about the work on a picture. None is left open."""

    preset: PresetName | None = None
    num_inference_steps: int | None = None
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    scheduler: SchedulerName | None = None
    loras: tuple[str, ...] = ()
    """Their names."""

    @classmethod
    def of(cls, spec: AnyJob) -> "Wishes":
        """Take them out of a job."""
        return cls(
            preset=spec.preset,
            num_inference_steps=spec.num_inference_steps,
            true_cfg_scale=spec.true_cfg_scale,
            negative_prompt=spec.negative_prompt,
            scheduler=spec.scheduler.name if spec.scheduler is not None else None,
            loras=tuple(lora.name for lora in spec.loras),
        )


@dataclass(frozen=True, slots=True)
class Departure:
    """One thing that is done otherwise: which setting, fault and cure for strict jobs, and the note for others."""

    path: KeyPath
    what: str
    fix: str
    done: str


def distilled_by(wishes: Wishes, family: Family, known: Mapping[str, Lora]) -> tuple[str, Preset] | None:
    """Give the first LoRA that is distilled for few steps, and the work that it prescribes; None without one."""
    for name in wishes.loras:
        steps = known[name].distilled_steps if name in known else None
        if steps is not None and steps in family.distilled:
            return name, family.distilled[steps]
    return None


def work_of(wishes: Wishes, family: Family, known: Mapping[str, Lora]) -> Preset:
    """Give the steps and the scale that will be: the checkpoint's, the job's, a distilled LoRA's, the preset's."""
    distilled = distilled_by(wishes, family, known)
    preset = family.recommended if wishes.preset is None else family.presets[wishes.preset]
    open_choice = preset if distilled is None else distilled[1]
    scale = wishes.true_cfg_scale
    return Preset(
        num_inference_steps=family.fixed_steps or wishes.num_inference_steps or open_choice.num_inference_steps,
        true_cfg_scale=scale if scale is not None else open_choice.true_cfg_scale,
    )


def departures(wishes: Wishes, family: Family, known: Mapping[str, Lora]) -> Iterator[Departure]:
    """Give everything that would be done otherwise than asked, as far as the settings tell."""
    yield from _of_steps(wishes, family)
    yield from _of_guidance(wishes, family, known)
    yield from _of_distillation(wishes, family, known)


def _of_steps(wishes: Wishes, family: Family) -> Iterator[Departure]:
    fixed, asked = family.fixed_steps, wishes.num_inference_steps
    if fixed is not None and asked is not None and asked != fixed:
        yield Departure(
            ("num_inference_steps",),
            f"models of the family {family.name} always take {fixed} steps.",
            f"Leave it out, or write {fixed}.",
            f"num_inference_steps {asked} was not followed: the model always takes {fixed} steps",
        )


def _of_guidance(wishes: Wishes, family: Family, known: Mapping[str, Lora]) -> Iterator[Departure]:
    negative = wishes.negative_prompt
    if negative is None or not negative.strip() or work_of(wishes, family, known).true_cfg_scale > 1.0:
        return
    done = "negative_prompt had no effect: the picture was drawn without guidance (true_cfg_scale 1.0)"
    if wishes.true_cfg_scale is not None:
        yield Departure(
            ("negative_prompt",),
            "it has no effect where true_cfg_scale is 1.0.",
            "Raise true_cfg_scale above 1.0, or leave negative_prompt out.",
            done,
        )
        return
    distilled = distilled_by(wishes, family, known)
    who = f"the LoRA {quoted(distilled[0])}" if distilled is not None else f"the family {family.name}"
    cure = "Leave it out" if distilled is not None else "Set true_cfg_scale above 1.0 (which doubles the time)"
    other = "do without the LoRA" if distilled is not None else "leave negative_prompt out"
    yield Departure(
        ("negative_prompt",),
        f"it has no effect: {who} is made for drawing without guidance (true_cfg_scale 1.0).",
        f"{cure}, or {other}.",
        done,
    )


def _of_distillation(wishes: Wishes, family: Family, known: Mapping[str, Lora]) -> Iterator[Departure]:
    distilled = distilled_by(wishes, family, known)
    if distilled is None:
        return
    name, work = distilled
    if wishes.scheduler not in {None, "lightning"}:
        yield Departure(
            ("scheduler",),
            f"the LoRA {quoted(name)} is distilled for the scheduler lightning; others give spoilt pictures.",
            'Leave it out, or write "lightning".',
            f"the LoRA {quoted(name)} is distilled for the scheduler lightning, and was drawn with"
            f" {wishes.scheduler}, as asked",
        )
    scale = wishes.true_cfg_scale
    if scale is not None and scale > work.true_cfg_scale:
        yield Departure(
            ("true_cfg_scale",),
            f"the LoRA {quoted(name)} is distilled for drawing without guidance; more gives glaring pictures.",
            "Leave it out, or write 1.0.",
            f"the LoRA {quoted(name)} is distilled for drawing without guidance, and was drawn with true_cfg_scale"
            f" {scale}, as asked",
        )
