"""What a recipe is filled in with: the dropped picture, and its name and folder where the words ask for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qwen_image_daemon.jobs.naming import fit_for_a_name

FILE, FOLDER = "{file}", "{folder}"
_NAME_CHARACTERS: Final = 120
"""The most that a job's name may have."""
_BYTES_IN_A_NAME: Final = 80
"""Of a file's name, in the name of a picture: the rest of the template needs room too."""


@dataclass(frozen=True, slots=True)
class RecipePicture:
    """A picture that was dropped into a recipe's folder. All names are printable."""

    name: str
    """Under which the job names it."""
    file: str
    """What its file is called, without the suffix."""
    folder: str = ""
    """The folders between the recipe and the picture, with forward slashes; empty where there are none."""


def filled_in(values: Mapping[str, Any], picture: RecipePicture) -> dict[str, Any]:
    """Give the settings of a recipe for one picture: {file} and {folder} filled in, and the picture named.

    Other braces stay as they are, and what is filled in is not looked at again, whatever a file is called.
    """
    filled = {**values, picture_setting(values): picture.name}
    for key in ("prompt", "negative_prompt"):
        if isinstance(text := values.get(key), str):
            filled[key] = _with(text, picture.file, picture.folder)
    _fill_name(filled, picture)
    output = values.get("output")
    if isinstance(output, dict):
        filled["output"] = _with_named_pictures(output, picture)
    return filled


def uses_variables(values: Mapping[str, Any], picture: RecipePicture) -> bool:
    """Say whether a recipe's words ask for the picture's name or folder."""
    return filled_in(values, picture) != {**values, picture_setting(values): picture.name}


def picture_setting(values: Mapping[str, Any]) -> str:
    """Say which setting of a recipe's jobs names the dropped picture: what it is to them."""
    controls = values.get("task") == "controlnet" or any(key in values for key in OF_CONTROLNETS)
    return "control_image" if controls else "image"


OF_CONTROLNETS: Final = ("controlnet", "control_scale", "control_start", "control_end")


def _with(text: str, file: str, folder: str) -> str:
    # In one go: a file may be called {folder}.
    return folder.join(part.replace(FILE, file) for part in text.split(FOLDER))


def _fill_name(filled: dict[str, Any], picture: RecipePicture) -> None:
    name = filled.get("name")
    if not isinstance(name, str) or not (FILE in name or FOLDER in name):
        return
    # A name that is too long by itself is left to the job's check.
    words = len(name.replace(FILE, "").replace(FOLDER, ""))
    room = max(0, _NAME_CHARACTERS - words) // (name.count(FILE) + name.count(FOLDER))
    written = _with(name, picture.file[:room], picture.folder[:room])
    if written.strip():
        filled["name"] = written
    else:
        # "{folder}" beside the recipe says nothing: the job is called after its picture, as without a name.
        del filled["name"]


def _with_named_pictures(output: Mapping[str, Any], picture: RecipePicture) -> dict[str, Any]:
    template = output.get("name")
    if not isinstance(template, str) or not (FILE in template or FOLDER in template):
        return dict(output)
    room = _BYTES_IN_A_NAME // (template.count(FILE) + template.count(FOLDER))
    written = _with(template, fit_for_a_name(picture.file, room), fit_for_a_name(picture.folder, room))
    named = {key: value for key, value in output.items() if key != "name"}
    # Where {folder} is empty at an end, the blank beside it goes too.
    return {**named, "name": stripped} if (stripped := written.strip(" .")) else named
