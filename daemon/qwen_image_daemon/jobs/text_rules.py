"""What texts, numbers and the output of a job must be to each other. Each rule passes over what is not there."""

from collections.abc import Iterator
from datetime import datetime

from qwen_image_daemon.jobs.job_settings import EXAMPLE_PROMPT, Settings
from qwen_image_daemon.jobs.models import MAX_SEED
from qwen_image_daemon.jobs.moments import moment_of
from qwen_image_daemon.jobs.naming import faults_of_template
from qwen_image_daemon.jobs.problems import Fault
from qwen_image_daemon.jobs.quoting import is_control, quoted


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
