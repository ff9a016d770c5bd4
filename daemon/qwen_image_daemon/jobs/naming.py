"""What the pictures of a result are called: a template with a closed set of variables. Pure functions."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qwen_image_daemon.jobs.quoting import is_control, quoted

DEFAULT_TEMPLATE: Final = "{name}-{index}"
MAX_STEM_BYTES: Final = 200
"""File systems take 255 bytes for a name with its suffix; tools that copy and synchronise add to it."""

VARIABLES: Mapping[str, int] = MappingProxyType(
    {
        "name": len("n" * 80 + "-result"),
        "index": len("1000"),
        "seed": len("9223372036854775807"),
        "date": len("2026-01-31"),
        "id": len("20260131-235959-999-c0ffee"),
    }
)
"""The variables of a template, each with the most bytes that it can become."""
_DISTINGUISHING = ("index", "seed")

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_FORBIDDEN = frozenset('/\\:*?"<>|')
"""Separators, and what Windows and its shares take in no name."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

Sentences = tuple[str, str]
"""The fault and the cure."""


def stem_of(template: str, values: Mapping[str, str]) -> str:
    """Give a file's name without its suffix. `values` has every variable. Raises KeyError for one that is none."""
    return _VARIABLE.sub(lambda variable: values[variable[1]], template)


def fit_for_a_name(text: str, most_bytes: int) -> str:
    """Give a text as words of a template: without braces, and without what some file system would not take."""
    plain = "".join("-" if character in _FORBIDDEN or character in "{}" else character for character in text)
    words = "".join(character for character in plain if not is_control(character)).strip(" .")
    words = words.encode()[:most_bytes].decode(errors="ignore").strip(" .")
    return f"{words}_" if _RESERVED.fullmatch(words) else words


def distinguishes(template: str) -> bool:
    """Say whether the pictures of one job get different names."""
    # Both grow from picture to picture, so that no two joined ones are equal either.
    return any(name in _DISTINGUISHING for name in _VARIABLE.findall(template))


def faults_of_template(template: str, *, num_images: int) -> Sentences | None:
    """Give fault and cure of a template for so many pictures; None where every picture gets a name of its own."""
    words = _VARIABLE.sub("", template)
    known = ", ".join(f"{{{name}}}" for name in VARIABLES)
    unknown = next((name for name in _VARIABLE.findall(template) if name not in VARIABLES), None)
    if unknown is not None:
        return f"{quoted(f'{{{unknown}}}')} is no variable.", f"There are: {known}."
    if "{" in words or "}" in words:
        return "a brace stands alone in it.", f"Braces stand around variables: {known}."
    return (
        _fault_of_words(template, words)
        or _fault_of_length(template, words)
        or _fault_of_many(template, num_images)
    )


def _fault_of_words(template: str, words: str) -> Sentences | None:
    if any(map(is_control, words)):
        return "it holds a control character.", "Take it out."
    found = next((character for character in words if character in _FORBIDDEN), None)
    if found is not None:
        where = " Pictures lie in the job's result folder." if found in "/\\" else ""
        return f"{quoted(found)} cannot stand in a file's name.", f"Take it out, or write a dash.{where}"
    if not template.strip() or template != template.strip(" ."):
        return (
            "it begins or ends with a blank or a dot, or says nothing.",
            f"Write for example {quoted(DEFAULT_TEMPLATE)}.",
        )
    if _RESERVED.fullmatch(template):
        return f"Windows takes no file called {quoted(template)}.", "Choose another name."
    return None


def _fault_of_length(template: str, words: str) -> Sentences | None:
    longest = len(words.encode()) + sum(VARIABLES[name] for name in _VARIABLE.findall(template))
    if longest > MAX_STEM_BYTES:
        return f"the names could be {longest} bytes long; {MAX_STEM_BYTES} are allowed.", "Shorten it."
    return None


def _fault_of_many(template: str, num_images: int) -> Sentences | None:
    if num_images > 1 and not distinguishes(template):
        return (
            f"the {num_images} pictures of the job would all have the same name.",
            f"Add {{index}} or {{seed}}, as in {quoted(template + '-{index}')}.",
        )
    return None
