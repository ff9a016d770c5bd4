"""What a job's settings must be to each other and to the model, as pure functions.

Each rule sees only settings that are fine by themselves, and passes over those that are not there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.jobs.models import MAX_SEED
from qwen_image_daemon.jobs.naming import faults_of_template
from qwen_image_daemon.jobs.paths import fault_of_image_path
from qwen_image_daemon.jobs.problems import Fault, KeyPath
from qwen_image_daemon.jobs.quoting import is_control, quoted
from qwen_image_daemon.jobs.styles import similar_style


@dataclass(frozen=True, slots=True)
class Settings:
    """A job's settings as far as they are fine by themselves; `output` is a mapping of the same kind."""

    fine: Mapping[str, Any]
    refused: frozenset[KeyPath] = frozenset()
    """Settings that were given, or meant, and are not fine. Nothing is said about them again."""

    def get(self, key: str, default: Any = None) -> Any:
        """Give a setting's value; the default where it is not given or not fine."""
        return self.fine.get(key, default)


EXAMPLE_PROMPT = '"a red circle on a white background"'
# The size that early model cards gave for 4:3; the pipelines silently draw 1472×1136 then.
_MISPRINTED_SIZE = Size(1472, 1140)


def faults_between(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Give everything that is wrong in the settings together, and for their model."""
    for rule in RULES:
        yield from rule(settings)
    yield from style_is_known(settings, catalogue)
    model = settings.get("model")
    if model is not None and model not in catalogue.families:
        names = ", ".join(quoted(name) for name in sorted(catalogue.families))
        yield Fault(
            ("model",),
            f"{quoted(model)} is none of this daemon's models.",
            f"The models are: {names}. Left out, it is {quoted(catalogue.default)}.",
        )
    elif ("model",) not in settings.refused:
        # Sizes and steps can be judged only where the model is known.
        for family_rule in FAMILY_RULES:
            yield from family_rule(settings, catalogue.family_of(model))


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
        similar = similar_style(style, catalogue.styles)
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


def guidance_is_on_for_a_negative_prompt(settings: Settings) -> Iterator[Fault]:
    """Refuse a negative prompt where the scale is 1.0: the pipelines ignore it without a word."""
    negative = settings.get("negative_prompt")
    if settings.get("true_cfg_scale") == 1.0 and negative is not None and negative.strip():
        yield Fault(
            ("negative_prompt",),
            "it has no effect where true_cfg_scale is 1.0.",
            "Raise true_cfg_scale above 1.0, or leave negative_prompt out.",
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


def image_is_a_plain_path(settings: Settings) -> Iterator[Fault]:
    """Let a job read nothing but what lies below its own folder."""
    image = settings.get("image")
    if image and (fault := fault_of_image_path(image)) is not None:
        yield Fault(("image",), *fault)


def end_is_a_truth(settings: Settings) -> Iterator[Fault]:
    """Refuse 1 and 1.0 for true: to Python, and so to pydantic, they are equal; to a JSON Schema they are not."""
    end = settings.get("end")
    if end is not None and end is not True:
        yield Fault(("end",), f"{quoted(end)} is not possible here.", "Write true, or leave it out.")


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
    guidance_is_on_for_a_negative_prompt,
    seeds_stay_in_range,
    quality_is_for_jpeg,
    pictures_get_names_of_their_own,
    tags_say_something,
    image_is_a_plain_path,
    end_is_a_truth,
)
FAMILY_RULES: tuple[Callable[[Settings, Family], Iterator[Fault]], ...] = (
    enough_steps,
    sides_are_drawable,
    pictures_are_not_too_large,
)
