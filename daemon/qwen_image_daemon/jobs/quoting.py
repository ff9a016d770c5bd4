"""How a complaint repeats what a person wrote: short, on one line, and without anything a terminal would obey."""

import json
import re
import unicodedata
from typing import Any

from qwen_image_daemon.jobs.problems import KeyPath

LONGEST_QUOTE = 60
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEEPEST_KEY = 9
_BARE_KEY = re.compile(r"[A-Za-z0-9_$-]{1,60}")
# They turn the direction of the text around them, so that a complaint could read as another one.
_DIRECTION_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def is_control(character: str) -> bool:
    """Say whether the character draws nothing and steers instead: control characters, lone surrogates."""
    return unicodedata.category(character) in _UNPRINTABLE or character in _DIRECTION_CONTROLS


def escaped(text: str) -> str:
    r"""Give the text with control characters, lone surrogates and direction marks written out as \uXXXX."""
    return "".join(f"\\u{ord(character):04x}" if is_control(character) else character for character in text)


def without_surrogates(text: str) -> str:
    """Put U+FFFD for lone surrogates, which no file can hold."""
    return _SURROGATE.sub("\ufffd", text)


def shortened(text: str) -> str:
    """Give the text, escaped, with its middle left out where it is long."""
    if len(text) > LONGEST_QUOTE:
        half = LONGEST_QUOTE // 2
        text = f"{text[:half]}…{text[-half:]}"
    return escaped(text)


def key_name(path: KeyPath) -> str:
    """Give a key as a person would write it: `output.quality`, quoted where it is not a plain word."""
    names = [part if isinstance(part, str) and _BARE_KEY.fullmatch(part) else quoted(part) for part in path]
    if len(names) > _DEEPEST_KEY:
        names = [*names[: _DEEPEST_KEY - 1], "…"]
    return ".".join(names)


def quoted(value: Any) -> str:
    """Give any value of a TOML or JSON document, as it may stand in a complaint."""
    match value:
        case str():
            return f'"{shortened(value)}"'
        case int() if value.bit_length() > 4 * LONGEST_QUOTE:
            # Python refuses to write out integers beyond some thousand digits.
            return "this huge number"
        case None | int() | float():
            return json.dumps(value)
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            # What is left are TOML's dates and times.
            return shortened(str(value))
