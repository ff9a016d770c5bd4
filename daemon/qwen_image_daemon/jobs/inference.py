"""Which task a job means where it does not say so. Pure functions over the settings that it gives."""

from collections.abc import Set as AbstractSet

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.jobs.tasks import Task


def task_of(given: AbstractSet[str], family: Family) -> Task:
    """Give the task that the settings of a job tell: the first that applies.

    `family` is that of the model which the job names, or of the default one: it decides where one picture, or a
    mask, can mean several tasks.
    """
    if "control_image" in given:
        return "controlnet"
    if "layers" in given or {"resolution", "image"} <= given:
        # A resolution alone is another program's word for the size.
        return "layered"
    if "images" in given:
        return "edit"
    if "mask" in given:
        return "edit" if "edit" in family.tasks and "inpaint" not in family.tasks else "inpaint"
    if {"image", "strength"} <= given:
        return "image-to-image"
    return family.task_of_one_image if "image" in given else "text-to-image"
