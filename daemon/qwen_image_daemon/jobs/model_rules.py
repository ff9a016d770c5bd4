"""Whether a model can do a job as it is asked: task, sizes, steps. Nothing is done otherwise in silence."""

import math
from collections.abc import Iterator

from qwen_image_daemon.jobs.catalogue import Catalogue, Demand
from qwen_image_daemon.jobs.departures import Wishes, departures
from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.job_settings import Settings
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import quoted
from qwen_image_daemon.jobs.tasks import TASKS


def family_that_draws(settings: Settings, catalogue: Catalogue) -> Family | None:
    """Give the family of the model that will draw the job; None where that is not known or cannot."""
    if ("model",) in settings.refused:
        return None
    model = catalogue.model_for(settings.get("model"), demand_of(settings, catalogue))
    family = catalogue.families.get(model) if model is not None else None
    return family if family is not None and settings.task in family.tasks else None


def demand_of(settings: Settings, catalogue: Catalogue) -> Demand:
    """Say what a model must be able to do for the job."""
    return Demand(
        task=settings.task,
        references=len(settings.get("images") or ()),
        masked=bool(settings.get("mask")),
        loras=catalogue.families_of_loras(lora["name"] for lora in settings.loras()),
    )


def model_is_known(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse a model that the daemon does not have, that cannot do the task, or whose licence it shuns."""
    if ("model",) in settings.refused:
        return
    named = settings.get("model")
    if named is not None and named not in catalogue.families:
        names = ", ".join(quoted(name) for name in sorted(catalogue.families))
        yield Fault(
            ("model",),
            f"{quoted(named)} is none of this daemon's models.",
            f"The models are: {names}. Left out, it is {quoted(catalogue.default)}.",
        )
        return
    model = catalogue.model_for(named, demand_of(settings, catalogue))
    if model is None or settings.task not in catalogue.families[model].tasks:
        yield _unable(settings, catalogue)
    elif not catalogue.may_use(model):
        yield Fault(
            ("model",),
            f"the licence of {quoted(model)} allows no commercial use, and this daemon is set to refuse it.",
            "Use another model, or set license_policy in the daemon's settings.",
        )


def _unable(settings: Settings, catalogue: Catalogue) -> Fault:
    named, able = settings.get("model"), catalogue.models_for(settings.task)
    if able:
        names = " or ".join(quoted(name) for name in able)
        cure = f"Use {names}, or leave model out."
    else:
        abilities = "; ".join(
            f"{quoted(name)} does {_tasks(family)}" for name, family in catalogue.families.items()
        )
        cure = f"The models are: {abilities}."
    if named is None:
        # Where the task is not stated, it is told by what the job names.
        telling = next((key for key in ("task", *_TELLING) if key in settings.fine), "task")
        return Fault((telling,), f"none of this daemon's models does {settings.task} jobs.", cure)
    return Fault(("model",), f"{quoted(named)} does no {settings.task} jobs.", cure)


_TELLING = ("control_image", "layers", "images", "mask", "image")


def _tasks(family: Family) -> str:
    return ", ".join(task for task in TASKS if task in family.tasks)


def nothing_is_done_otherwise(settings: Settings, family: Family, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse, in strict jobs, what the model would do otherwise than asked."""
    if settings.get("strict", True) is not True or settings.refused & _WORK:
        return
    loras = settings.loras()
    wishes = Wishes(
        preset=settings.get("preset"),
        num_inference_steps=settings.get("num_inference_steps"),
        true_cfg_scale=settings.get("true_cfg_scale"),
        negative_prompt=settings.get("negative_prompt"),
        scheduler=settings.scheduler().get("name"),
        loras=tuple(lora["name"] for lora in loras),
    )
    for departure in departures(wishes, family, catalogue.loras() if loras else {}):
        yield Fault(departure.path, departure.what, departure.fix)


_WORK: frozenset[KeyPath] = frozenset({("preset",), ("true_cfg_scale",), ("strict",), ("loras",)})


def references_are_not_too_many(settings: Settings, family: Family) -> Iterator[Fault]:
    """Refuse more pictures than the pipeline looks at."""
    images = settings.get("images") or ()
    if len(images) > family.max_references and not settings.get("mask"):
        allowed = f"{family.max_references} picture{'s' if family.max_references > 1 else ''}"
        yield Fault(
            ("images",),
            f"models of the family {family.name} edit {allowed} at a time, and {len(images)} are named.",
            "Take some out, or choose a model that reads several.",
        )


def a_mask_can_be_followed(settings: Settings, family: Family) -> Iterator[Fault]:
    """Refuse a mask for several pictures, or where the pipeline takes none."""
    if settings.task != "edit" or not settings.get("mask"):
        return
    if len(settings.get("images") or ()) > 1:
        yield Fault(
            ("mask",), "with several pictures there can be no mask.", "Keep one picture, or take mask out."
        )
    elif not family.edits_with_mask:
        yield Fault(
            ("mask",),
            f"models of the family {family.name} edit without a mask.",
            "Take it out and say in the prompt where, or choose a model of the family qwen-image-edit.",
        )


def enough_steps(settings: Settings, family: Family) -> Iterator[Fault]:
    """Refuse too few steps: the schedule divides by zero and gives a black picture without an error."""
    steps = settings.get("num_inference_steps")
    if steps is not None and steps < family.min_steps:
        recommended = family.recommended.num_inference_steps
        black = "with one step the model draws a black picture" if steps == 1 else f"{quoted(steps)} is too small"
        yield Fault(
            ("num_inference_steps",),
            f"{black}.",
            f"Use {family.min_steps} or more ({recommended} is the model's recommendation).",
        )


def sides_are_drawable(settings: Settings, family: Family) -> Iterator[Fault]:
    """Refuse sides that the pipelines would round down without a word, or fail at obscurely."""
    for key in ("width", "height"):
        side = settings.get(key)
        if side is None:
            continue
        if side < family.min_side:
            yield Fault((key,), f"{quoted(side)} pixels are too few.", f"Use {family.min_side} or more.")
        elif side > family.max_side:
            yield Fault((key,), f"{quoted(side)} pixels are too many.", f"Use {family.max_side} or fewer.")
        elif side % family.multiple:
            yield _off_the_grid(key, side, settings, family)


# The size that early model cards gave for 4:3; the pipelines silently draw 1472×1136 then.
_MISPRINTED_SIZE = Size(1472, 1140)


def _off_the_grid(key: str, side: int, settings: Settings, family: Family) -> Fault:
    drawn = side - side % family.multiple
    what = f"{side} is not a multiple of {family.multiple}: the model would silently draw {drawn}."
    asked = {settings.get("width"), settings.get("height")}
    if asked == {_MISPRINTED_SIZE.width, _MISPRINTED_SIZE.height} and Size(1472, 1104) in family.sizes.values():
        return Fault((key,), what, "Use 1104: 1472×1104 is the makers' 4:3 (early model cards misprinted it).")
    choices = [at for at in (drawn, drawn + family.multiple) if family.min_side <= at <= family.max_side]
    return Fault((key,), what, f"Use {' or '.join(str(at) for at in choices)}.")


def pictures_are_not_too_large(settings: Settings, family: Family) -> Iterator[Fault]:
    """Refuse areas that are too large though both sides are allowed."""
    width, height = settings.get("width"), settings.get("height")
    if width is None or height is None or max(width, height) > family.max_side:
        return
    if width * height > family.max_pixels:
        fitting = _scaled_to_fit(Size(width, height), family)
        yield Fault(
            ("width",),
            f"{width}×{height} are {width * height:,} pixels; the model takes {family.max_pixels:,}.",
            f"Use {fitting} or smaller.",
        )


def _scaled_to_fit(size: Size, family: Family) -> Size:
    """Give the largest allowed size of about the same shape."""
    scale = math.sqrt(family.max_pixels / (size.width * size.height))
    width, height = (int(side * scale) // family.multiple * family.multiple for side in (size.width, size.height))
    return Size(max(width, family.min_side), max(height, family.min_side))
