"""What a job's settings must be to each other and to the model, as pure functions.

Each rule sees only settings that are fine by themselves, and passes over those that are not there.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qwen_image_daemon.jobs.catalogue import Catalogue, Demand
from qwen_image_daemon.jobs.departures import Wishes, departures
from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.models import MAX_SEED
from qwen_image_daemon.jobs.moments import moment_of
from qwen_image_daemon.jobs.naming import faults_of_template
from qwen_image_daemon.jobs.paths import fault_of_image_path
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import is_control, quoted
from qwen_image_daemon.jobs.styles import similar_name
from qwen_image_daemon.jobs.tasks import TASKS, Task


@dataclass(frozen=True, slots=True)
class Settings:
    """A job's settings as far as they are fine by themselves; `output` is a mapping of the same kind."""

    fine: Mapping[str, Any]
    task: Task
    refused: frozenset[KeyPath] = frozenset()
    """Settings that were given, or meant, and are not fine. Nothing is said about them again."""

    def get(self, key: str, default: Any = None) -> Any:
        """Give a setting's value; the default where it is not given or not fine."""
        return self.fine.get(key, default)

    def pictures(self) -> Iterator[tuple[KeyPath, str]]:
        """Give the pictures that the job names, each with its place."""
        for key in ("image", "control_image", "mask"):
            if path := self.get(key):
                yield (key,), path
        for place, path in enumerate(self.get("images") or ()):
            yield ("images", place), path

    def loras(self) -> tuple[Mapping[str, Any], ...]:
        """Give the LoRAs that the job names, each as a table."""
        return tuple({"name": lora} if isinstance(lora, str) else lora for lora in self.get("loras", ()))

    def scheduler(self) -> Mapping[str, Any]:
        """Give the scheduler as a table; an empty one where none is named."""
        scheduler = self.get("scheduler") or {}
        return {"name": scheduler} if isinstance(scheduler, str) else scheduler


EXAMPLE_PROMPT = '"a red circle on a white background"'
# The size that early model cards gave for 4:3; the pipelines silently draw 1472×1136 then.
_MISPRINTED_SIZE = Size(1472, 1140)


def faults_between(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Give everything that is wrong in the settings together, and for their model."""
    for rule in RULES:
        yield from rule(settings)
    yield from style_is_known(settings, catalogue)
    yield from loras_are_known(settings, catalogue)
    yield from model_is_known(settings, catalogue)
    family = _family(settings, catalogue)
    if family is not None:
        # Sizes and steps can be judged only where the model is known.
        for family_rule in FAMILY_RULES:
            yield from family_rule(settings, family)
        yield from loras_fit_the_model(settings, family, catalogue)
        yield from a_controlnet_fits(settings, family, catalogue)
        yield from nothing_is_done_otherwise(settings, family, catalogue)


def _family(settings: Settings, catalogue: Catalogue) -> Family | None:
    """Give the family of the model that will draw the job; None where that is not known or cannot."""
    if ("model",) in settings.refused:
        return None
    model = catalogue.model_for(settings.get("model"), _demand(settings, catalogue))
    family = catalogue.families.get(model) if model is not None else None
    return family if family is not None and settings.task in family.tasks else None


def _demand(settings: Settings, catalogue: Catalogue) -> Demand:
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
    model = catalogue.model_for(named, _demand(settings, catalogue))
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


def prompts_say_something(settings: Settings) -> Iterator[Fault]:
    """Refuse blanks alone: they ask for nothing."""
    if (prompt := settings.get("prompt")) and not prompt.strip():
        yield Fault(
            ("prompt",),
            "it holds nothing but blanks.",
            f"Say what the picture shows, for example {EXAMPLE_PROMPT}.",
        )
    if (name := settings.get("name")) and not name.strip():
        yield Fault(("name",), "it holds nothing but blanks.", "Write a name, or leave it out.")


def style_is_known(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse a style that neither we nor the daemon's settings have."""
    style = settings.get("style")
    if style is not None and style not in catalogue.styles:
        similar = similar_name(style, catalogue.styles)
        names = ", ".join(quoted(name) for name in sorted(catalogue.styles))
        yield Fault(
            ("style",),
            f"{quoted(style)} is none of this daemon's styles.",
            f"{f'Did you mean {quoted(similar)}? ' if similar else ''}The styles are: {names}.",
        )


def texts_are_printable(settings: Settings) -> Iterator[Fault]:
    """Refuse control characters: no keyboard writes them, and they spoil lists and logs."""
    for key, allowed in (("prompt", "\n\t"), ("negative_prompt", "\n\t"), ("name", ""), ("id", "")):
        text = settings.get(key) or ""
        found = next((character for character in text if is_control(character) and character not in allowed), None)
        if found is not None:
            yield Fault(
                (key,),
                f"it holds a control character (U+{ord(found):04X}).",
                "Take it out; \\n for a new line and \\t for a tab are allowed." if allowed else "Take it out.",
            )


def sides_come_in_pairs(settings: Settings) -> Iterator[Fault]:
    """Want width and height together or not at all, and never beside an aspect ratio."""
    width, height = settings.get("width"), settings.get("height")
    if settings.get("aspect_ratio") is not None and (width is not None or height is not None):
        yield Fault(
            ("aspect_ratio",),
            "aspect_ratio and width or height exclude each other.",
            "Keep aspect_ratio alone, or width and height without it.",
        )
    elif (width is None) != (height is None) and not settings.refused & {("width",), ("height",)}:
        given, lacking = ("width", "height") if height is None else ("height", "width")
        yield Fault(
            (given,),
            f"{given} is given without {lacking}.",
            f"Add {lacking}, or use aspect_ratio instead of both.",
        )


def the_sources_size_stands_alone(settings: Settings) -> Iterator[Fault]:
    """Want the source's size or another one, not both."""
    others = [key for key in ("aspect_ratio", "width", "height") if settings.get(key) is not None]
    if settings.get("size") is not None and others:
        yield Fault(
            ("size",),
            f"size and {' and '.join(others)} exclude each other.",
            f"Keep size alone, or {' and '.join(others)} without it.",
        )


def tags_say_something(settings: Settings) -> Iterator[Fault]:
    """Refuse tags that are blank, or that steer whoever shows them."""
    for place, tag in enumerate(settings.get("tags", ())):
        if not tag.strip():
            yield Fault(("tags",), f"tag {place + 1} holds nothing but blanks.", "Write a word, or take it out.")
        elif any(map(is_control, tag)):
            yield Fault(("tags",), f"tag {place + 1} holds a control character.", "Take it out.")


def pictures_get_names_of_their_own(settings: Settings) -> Iterator[Fault]:
    """Refuse a template of names that some file system would not take, or that names two pictures alike."""
    template = settings.get("output", {}).get("name")
    if template is not None:
        sentences = faults_of_template(template, num_images=settings.get("num_images", 1))
        if sentences is not None:
            yield Fault(("output", "name"), *sentences)


def seeds_stay_in_range(settings: Settings) -> Iterator[Fault]:
    """Want the last picture's seed, seed + num_images - 1, to be a seed still."""
    seed, images = settings.get("seed"), settings.get("num_images", 1)
    if seed is not None and seed + images - 1 > MAX_SEED:
        yield Fault(
            ("seed",),
            f"image k is drawn from seed + k, and the last one would be drawn from more than {MAX_SEED}.",
            f"Use a seed of at most {MAX_SEED - images + 1}.",
        )


def quality_is_for_jpeg(settings: Settings) -> Iterator[Fault]:
    """Refuse a quality where the format is lossless."""
    output = settings.get("output", {})
    written = output.get("format", "png")
    if output.get("quality") is not None and written != "jpeg" and ("output", "format") not in settings.refused:
        yield Fault(
            ("output", "quality"),
            f"{written} is written without loss and has no quality.",
            'Set output.format to "jpeg", or leave the quality out.',
        )


def pictures_have_plain_paths(settings: Settings) -> Iterator[Fault]:
    """Let a job read nothing but what lies below its own folder."""
    for place, path in settings.pictures():
        if (fault := fault_of_image_path(path)) is not None:
            yield Fault(place, *fault)


def an_edit_reads_pictures(settings: Settings) -> Iterator[Fault]:
    """Want one picture under image, or all under images."""
    if settings.task != "edit" or settings.refused & {("image",), ("images",)}:
        return
    image, images = settings.get("image"), settings.get("images")
    if image is not None and images is not None:
        yield Fault(
            ("images",),
            "image and images exclude each other.",
            "Write all pictures into images, in the order in which the prompt counts them.",
        )
    elif image is None and images is None and not any(path[0] == "images" for path in settings.refused):
        yield Fault(
            ("image",),
            "an edit needs a picture.",
            "Put it beside the job file and set image to its name; for several, set images to a list of names.",
        )


def a_shape_is_asked_for_once(settings: Settings) -> Iterator[Fault]:
    """Refuse a size where the result takes the source's shape: one of the two could not be had."""
    others = [key for key in ("aspect_ratio", "width", "height", "size") if settings.get(key) is not None]
    if settings.get("fit") == "scale" and others:
        yield Fault(
            ("fit",),
            f'"scale" gives the result the picture\'s own shape, and {" and ".join(others)} asks for another.',
            f'Use "pad" or "crop", or take {" and ".join(others)} out.',
        )


def loras_do_something(settings: Settings) -> Iterator[Fault]:
    """Refuse a weight of 0, and the same LoRA twice."""
    seen: set[str] = set()
    for place, lora in enumerate(settings.loras()):
        if lora.get("weight") == 0:
            yield Fault(("loras", place, "weight"), "a weight of 0 does nothing.", "Take the LoRA out.")
        if lora["name"] in seen:
            yield Fault(
                ("loras", place),
                f"{quoted(lora['name'])} is named twice.",
                "Name it once, with the weight that is wanted in all.",
            )
        seen.add(lora["name"])


def the_control_lasts(settings: Settings) -> Iterator[Fault]:
    """Refuse a control that ends before it begins."""
    if settings.task != "controlnet" or settings.refused & {("control_start",), ("control_end",)}:
        return
    start, end = settings.get("control_start", 0.0), settings.get("control_end", 1.0)
    if start >= end:
        yield Fault(
            ("control_start",) if "control_start" in settings.fine else ("control_end",),
            f"the control picture would count from {start} to {end} of the steps: not at all.",
            "Let control_end be above control_start.",
        )


def a_mask_is_there_to_preserve(settings: Settings) -> Iterator[Fault]:
    """Refuse to give up what is not masked where nothing is masked; to preserve it is the default."""
    unmasked = settings.task in {"edit", "controlnet"} and not settings.get("mask")
    if unmasked and settings.get("preserve_unmasked") is False and ("mask",) not in settings.refused:
        yield Fault(("preserve_unmasked",), "it has no effect without a mask.", "Name a mask, or take it out.")


def a_style_has_words_to_stand_by(settings: Settings) -> Iterator[Fault]:
    """Refuse a style where the model writes the prompt itself."""
    styled = settings.task == "layered" and settings.get("style") is not None
    if styled and not settings.get("prompt") and ("prompt",) not in settings.refused:
        yield Fault(("style",), "a style needs a prompt to stand by.", "Write a prompt, or take style out.")


def scheduler_settings_are_its_own(settings: Settings) -> Iterator[Fault]:
    """Refuse settings that the scheduler does not have: diffusers would pass over them."""
    given = {key: value for key, value in settings.scheduler().items() if value is not None}
    name = given.pop("name", None)
    for key in given:
        if key == "solver_order" and name != "unipc":
            yield Fault(("scheduler", key), f"it is for unipc, not for {name}.", "Take it out.")
        elif name == "lightning":
            yield Fault(
                ("scheduler", key),
                "lightning is one fixed setting.",
                'Take it out, or use "euler" with settings of your own.',
            )
    if name == "unipc" and settings.task != "text-to-image":
        yield Fault(
            ("scheduler",),
            "unipc can begin from noise only, and this job begins from a picture.",
            'Use "euler", or leave scheduler out.',
        )


def the_moment_is_near(settings: Settings) -> Iterator[Fault]:
    """Refuse moments that computers cannot count with, and that nobody means."""
    moment = moment_of(settings.get("not_before"))
    if isinstance(moment, datetime) and not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        yield Fault(
            ("not_before",),
            f"the year {moment.year} is out of reach.",
            f"Write a year from {_FIRST_YEAR} to {_LAST_YEAR}.",
        )


_FIRST_YEAR, _LAST_YEAR = 2000, 2999


def end_is_a_truth(settings: Settings) -> Iterator[Fault]:
    """Refuse 1 and 1.0 for true: to Python, and so to pydantic, they are equal; to a JSON Schema they are not."""
    end = settings.get("end")
    if end is not None and end is not True:
        yield Fault(("end",), f"{quoted(end)} is not possible here.", "Write true, or leave it out.")


def loras_are_known(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse LoRAs that neither the folder nor the settings have."""
    loras = settings.loras()
    known = catalogue.loras() if loras else {}
    for place, lora in enumerate(loras):
        name = lora["name"]
        stem = name.rpartition("/")[2].removesuffix(".safetensors")
        if name not in known and name != stem:
            what = "a LoRA is named without folder and .safetensors."
            yield Fault(
                ("loras", place), what, f"Write {quoted(stem)}, with the file in the daemon's lora_folder."
            )
        elif name not in known:
            cure = _other_names(name, known, "LoRAs", "It has none: put .safetensors files into its lora_folder.")
            yield Fault(("loras", place), f"{quoted(name)} is none of this daemon's LoRAs.", cure)


def _other_names(name: str, known: Collection[str], kind: str, none: str) -> str:
    """Name what was probably meant, and what there is."""
    if not known:
        return none
    similar = similar_name(name, known)
    hint = f"Did you mean {quoted(similar)}? " if similar is not None else ""
    shown = sorted(known)[:_SHOWN_NAMES]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"{hint}The {kind} are: {', '.join(map(quoted, shown))}{more}."


_SHOWN_NAMES = 30


def loras_fit_the_model(settings: Settings, family: Family, catalogue: Catalogue) -> Iterator[Fault]:
    """Refuse LoRAs that the settings say are for models of another family."""
    loras = settings.loras()
    known = catalogue.loras() if loras else {}
    for place, lora in enumerate(loras):
        entry = known.get(lora["name"])
        if entry is not None and entry.family not in {None, family.name}:
            yield Fault(
                ("loras", place),
                f"{quoted(lora['name'])} is for the family {entry.family}, and the model is of {family.name}.",
                "Take it out, or choose another model.",
            )
        elif entry is not None and entry.distilled_steps not in {None, *family.distilled}:
            yield Fault(
                ("loras", place),
                f"{quoted(lora['name'])} is distilled for {entry.distilled_steps} steps, not for {family.name}.",
                "Take it out, or choose another model.",
            )


def a_controlnet_fits(settings: Settings, family: Family, catalogue: Catalogue) -> Iterator[Fault]:
    """Want a ControlNet for the model and the purpose, and only one where none is named."""
    if settings.task != "controlnet" or ("controlnet",) in settings.refused:
        return
    masked = bool(settings.get("mask")) or ("mask",) in settings.refused
    fitting = catalogue.controlnets_for(family, "inpaint" if masked else "union")
    purpose = "redrawing what is masked" if masked else "control pictures without a mask"
    names = ", ".join(map(quoted, fitting))
    named = settings.get("controlnet")
    if named is None and len(fitting) > 1:
        yield Fault(("controlnet",), "the daemon has several that fit.", f"Name one of them: {names}.")
    elif not fitting:
        yield Fault(
            ("controlnet",),
            f"the daemon has no ControlNet for the family {family.name} and {purpose}.",
            "Let the daemon's settings have one, as [controlnets.NAME].",
        )
    elif named is not None and named not in catalogue.controlnets:
        what = f"{quoted(named)} is none of this daemon's ControlNets."
        yield Fault(("controlnet",), what, _other_names(named, fitting, "fitting ones", ""))
    elif named is not None and named not in fitting:
        yield Fault(
            ("controlnet",),
            f"{quoted(named)} is not for the family {family.name} and {purpose}.",
            f"Use {' or '.join(map(quoted, fitting))}, or leave it out.",
        )


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
    if len(images) > family.max_references:
        allowed = f"{family.max_references} picture{'s' if family.max_references > 1 else ''}"
        yield Fault(
            ("images",),
            f"models of the family {family.name} edit {allowed} at a time, and {len(images)} are named.",
            "Take some out, or choose a model that reads several.",
        )


def a_mask_can_be_followed(settings: Settings, family: Family) -> Iterator[Fault]:
    """Refuse a mask where the pipeline takes none, or with several pictures."""
    if settings.task != "edit" or not settings.get("mask"):
        return
    if not family.edits_with_mask:
        yield Fault(
            ("mask",),
            f"models of the family {family.name} edit without a mask.",
            "Take it out and say in the prompt where, or choose a model of the family qwen-image-edit.",
        )
    elif len(settings.get("images") or ()) > 1:
        yield Fault(
            ("mask",), "with several pictures there can be no mask.", "Keep one picture, or take mask out."
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


RULES: tuple[Callable[[Settings], Iterator[Fault]], ...] = (
    prompts_say_something,
    texts_are_printable,
    sides_come_in_pairs,
    the_sources_size_stands_alone,
    seeds_stay_in_range,
    quality_is_for_jpeg,
    pictures_get_names_of_their_own,
    tags_say_something,
    pictures_have_plain_paths,
    an_edit_reads_pictures,
    a_shape_is_asked_for_once,
    loras_do_something,
    the_control_lasts,
    a_mask_is_there_to_preserve,
    a_style_has_words_to_stand_by,
    scheduler_settings_are_its_own,
    the_moment_is_near,
    end_is_a_truth,
)
FAMILY_RULES: tuple[Callable[[Settings, Family], Iterator[Fault]], ...] = (
    enough_steps,
    sides_are_drawable,
    pictures_are_not_too_large,
    references_are_not_too_many,
    a_mask_can_be_followed,
)
