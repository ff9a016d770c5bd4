"""What a job's settings must be to each other and to the model, as pure functions: all rules, in order.

Each rule sees only settings that are fine by themselves, and passes over those that are not there.
"""

from collections.abc import Callable, Iterator

from qwen_image_daemon.jobs.accessory_rules import (
    a_controlnet_fits,
    a_style_has_words_to_stand_by,
    loras_are_known,
    loras_do_something,
    loras_fit_the_model,
    scheduler_settings_are_its_own,
    style_is_known,
)
from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.jobs.job_settings import Settings
from qwen_image_daemon.jobs.model_rules import (
    a_mask_can_be_followed,
    enough_steps,
    family_that_draws,
    model_is_known,
    nothing_is_done_otherwise,
    pictures_are_not_too_large,
    references_are_not_too_many,
    sides_are_drawable,
)
from qwen_image_daemon.jobs.picture_rules import (
    a_mask_is_there_to_preserve,
    a_masked_edit_leaves_its_size_open,
    a_shape_is_asked_for_once,
    an_edit_reads_pictures,
    pictures_have_plain_paths,
    sides_come_in_pairs,
    the_control_lasts,
    the_sources_size_stands_alone,
)
from qwen_image_daemon.jobs.problems import Fault
from qwen_image_daemon.jobs.text_rules import (
    end_is_a_truth,
    pictures_get_names_of_their_own,
    prompts_say_something,
    quality_is_for_jpeg,
    seeds_stay_in_range,
    tags_say_something,
    texts_are_printable,
    the_moment_is_near,
)


def faults_between(settings: Settings, catalogue: Catalogue) -> Iterator[Fault]:
    """Give everything that is wrong in the settings together, and for their model."""
    for rule in RULES:
        yield from rule(settings)
    yield from style_is_known(settings, catalogue)
    yield from loras_are_known(settings, catalogue)
    yield from model_is_known(settings, catalogue)
    family = family_that_draws(settings, catalogue)
    if family is not None:
        # Sizes and steps can be judged only where the model is known.
        for family_rule in FAMILY_RULES:
            yield from family_rule(settings, family)
        yield from loras_fit_the_model(settings, family, catalogue)
        yield from a_controlnet_fits(settings, family, catalogue)
        yield from nothing_is_done_otherwise(settings, family, catalogue)


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
    a_masked_edit_leaves_its_size_open,
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
