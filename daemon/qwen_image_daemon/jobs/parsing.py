"""From bytes to a document: limits, encoding, TOML or JSON. Knows nothing of jobs."""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import tomli

from qwen_image_daemon.jobs.problems import Fault, KeyPath, Problem
from qwen_image_daemon.jobs.quoting import escaped, without_surrogates
from qwen_image_daemon.jobs.syntax_cures import json_cure, json_place, toml_cure

MAX_JOB_BYTES = 64 * 1024
MAX_KEY_DOTS = 8

Syntax = Literal["toml", "json"]


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says. `faults` are those that leave it readable: doubled keys, broken characters."""

    syntax: Syntax
    text: str
    values: dict[str, Any]
    faults: tuple[Fault, ...] = ()


def parse(content: bytes, filename: str) -> Document | Problem:
    """Read a TOML or JSON file, by its suffix. Never raises for anything a person wrote."""
    shown = escaped(filename)
    syntax = syntax_of(filename)
    if syntax is None:
        return Problem(
            shown, "a job file's name ends in .toml or .json.", "Rename it after what it holds, TOML or JSON."
        )
    if len(content) > MAX_JOB_BYTES:
        return Problem(
            shown,
            f"the file has {len(content):,} bytes; a job file has at most {MAX_JOB_BYTES:,}.",
            "Shorten it. Pictures are named in a job, not written into it.",
        )
    text = decoded(content, shown)
    if isinstance(text, Problem):
        return text
    if not text.strip():
        return Problem(shown, "the file is empty.", f"Write at least a prompt: {_EMPTY_CURES[syntax]}")
    return _parse_toml(text, shown) if syntax == "toml" else _parse_json(text, shown)


def syntax_of(filename: str) -> Syntax | None:
    """Say what a file of this name holds; None where it is no job file."""
    match PurePosixPath(filename).suffix.lower():
        case ".toml":
            return "toml"
        case ".json":
            return "json"
        case _:
            return None


_EMPTY_CURES = {
    "toml": 'prompt = "a red circle on a white background"',
    "json": '{"prompt": "a red circle on a white background"}',
}


def decoded(content: bytes, shown: str) -> str | Problem:
    """Give the text without its byte-order mark."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or _zeros_between_letters(content):
        return Problem(
            shown, "the file is written in UTF-16.", "Save it as UTF-8 (in Windows' Notepad: Save as, Encoding)."
        )
    nul = content.find(b"\0")
    if nul >= 0:
        return Problem(
            f"{shown}, line {_line_at(content, nul)}",
            f"byte {nul + 1} of the file is zero.",
            "Drop the file again: it is damaged, or was not wholly written.",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte-order mark the codec counts from behind it.
        start = error.start + len(content) - len(error.object)
        return Problem(
            f"{shown}, line {_line_at(content, start)}",
            f"byte {start + 1} of the file (0x{content[start]:02x}) is not UTF-8.",
            f"Save the file as UTF-8.{_likely_meaning(content[start : start + 1])}",
        )


def _zeros_between_letters(content: bytes) -> bool:
    """Recognise UTF-16 without a byte-order mark: every second byte of its ASCII letters is zero."""
    letters, zeros = sorted((content[:8:2], content[1:8:2]), key=any, reverse=True)
    return all(letters) and any(letters) and len(zeros) > 1 and not any(zeros)


def _likely_meaning(byte: bytes) -> str:
    letter = byte.decode("cp1252", errors="replace")
    return f" In Windows' western encoding this byte would be {letter}." if letter.isalpha() else ""


def _line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


# What may stand before or in place of a key. Strings and comments are passed over whole, also unclosed ones: the
# parser stops at those. Between the marks of a TOML file a value has one dot at most (1.5).
_TOML_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*(?:"{3,5}|$)'
    r"|'''(?:[^']|'(?!''))*(?:'{3,5}|$)"
    r'|"(?:[^"\\\n]|\\[^\n])*(?:"|\\?$|\\?(?=\n))'
    r"|'[^'\n]*(?:'|$|(?=\n))"
    r"|\#[^\n]*"
    r"|(?P<dot>\.)"
    r"|(?P<mark>[=\n\[\]{},])",
    re.DOTALL,
)


def _overlong_key_line(text: str) -> int | None:
    """Give the line of the first key with too many dots. The parsers' time grows with the square of the dots."""
    dots = 0
    for token in _TOML_TOKEN.finditer(text):
        if token["mark"]:
            dots = 0
        elif token["dot"]:
            dots += 1
            if dots > MAX_KEY_DOTS:
                return text.count("\n", 0, token.start()) + 1
    return None


def _parse_toml(text: str, shown: str) -> Document | Problem:
    line = _overlong_key_line(text)
    if line is not None:
        return Problem(
            f"{shown}, line {line}",
            f"a key has more than {MAX_KEY_DOTS} dots.",
            "Take the line out: no setting has so long a name.",
        )
    try:
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        return _syntax_problem(shown, error.lineno, error.colno, toml_cure(text, error))
    except RecursionError:
        return _too_deep(shown)
    except ValueError:
        return _too_long_a_number(shown)
    return Document("toml", text, values)


class _Pairs:
    """Builds JSON objects, and remembers whether a key stood twice in one of them."""

    def __init__(self) -> None:
        self.doubled = False

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        self.doubled = self.doubled or len(built) < len(pairs)
        return built


def _parse_json(text: str, shown: str) -> Document | Problem:
    pairs = _Pairs()
    try:
        values = json.loads(text, object_pairs_hook=pairs)
        if not isinstance(values, dict):
            return Problem(
                shown, "a job is a JSON object.", f"Put braces around its settings: {_EMPTY_CURES['json']}"
            )
        values, faults = _whole_characters(values, text)
    except json.JSONDecodeError as error:
        return _syntax_problem(shown, *json_place(error), json_cure(error))
    except RecursionError:
        return _too_deep(shown)
    except ValueError:
        return _too_long_a_number(shown)
    if pairs.doubled:
        faults = (*faults, *_doubled_keys(text))
    return Document("json", text, values, faults)


def _doubled_keys(text: str) -> list[Fault]:
    # Loaded only where there is something to complain about. It passes over keys that lie very deep: a document
    # with tables within tables has other faults, so that it is refused all the same.
    from qwen_image_daemon.jobs.locating import positions  # noqa: PLC0415

    return [
        Fault(path, f"it stands {len(places)} times.", f"Keep one (the first is in line {places[0].line}).", nth)
        for path, places in positions(text, "json").items()
        for nth in range(1, len(places))
    ]


_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def _whole_characters(document: dict[str, Any], text: str) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """Put U+FFFD for lone surrogates, which no file can hold, and say where they were."""
    broken: dict[KeyPath, None] = {}

    def clean(value: Any, path: KeyPath) -> Any:
        match value:
            case str():
                cleaned = without_surrogates(value)
                if cleaned != value:
                    broken[path] = None
                return cleaned
            case dict():
                cleaned_items = {}
                for key, item in value.items():
                    # A broken key is named as it will be shown.
                    inner = (*path, without_surrogates(key))
                    cleaned_items[clean(key, inner)] = clean(item, inner)
                return cleaned_items
            case list():
                return [clean(item, (*path, place)) for place, item in enumerate(value)]
            case _:
                return value

    # The text is UTF-8, so that only an escape can have brought one.
    if _SURROGATE_ESCAPE.search(text):
        document = clean(document, ())
    faults = tuple(
        Fault(path, "half of a character (a lone \\u surrogate).", "Write the whole character, as UTF-8.")
        for path in broken
    )
    return document, faults


def _syntax_problem(shown: str, line: int, column: int, cure: tuple[str, str]) -> Problem:
    return Problem(f"{shown}, line {line}, column {column}", *cure)


def _too_deep(shown: str) -> Problem:
    return Problem(
        shown, "lists or tables are nested too deeply.", "Take them out: a job is a flat list of settings."
    )


def _too_long_a_number(shown: str) -> Problem:
    return Problem(shown, "a number has thousands of digits.", "Shorten it: the largest is a seed with 19 digits.")
