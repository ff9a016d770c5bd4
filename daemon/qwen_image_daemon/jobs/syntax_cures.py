"""What to do about a file that is no valid TOML or JSON: the parsers' words, turned into a fault and a cure."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import tomli

from qwen_image_daemon.jobs.quoting import shortened

Cure = tuple[str, str]
"""The fault and the cure, each one sentence or two."""

_STRAIGHT_QUOTES: Cure = ("these quotation marks are typographic ones.", 'Use straight ones: "…"')
_TYPOGRAPHIC = frozenset("\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb")
_WORD = re.compile(r"[^\W\d][\w-]*")
_TRUTH = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
_NOTHING = frozenset({"none", "null", "nil"})

_TOML_BACKSLASH: Cure = (
    "in double quotes a backslash begins a special character.",
    "Use single quotes ('C:\\Users') or forward slashes (\"C:/Users\").",
)
_TOML_TWICE: Cure = ("the same setting or table stands here a second time.", "Keep one of them.")
_TOML_UNCLOSED: Cure = ("a text is not closed.", "Put the same quotation mark, or three of them, at its end.")
_TOML_CURES: tuple[tuple[str, Cure], ...] = (
    ("Invalid hex value", _TOML_BACKSLASH),
    ("Unescaped '\\'", _TOML_BACKSLASH),
    ("Escaped character", _TOML_BACKSLASH),
    ("Cannot overwrite", _TOML_TWICE),
    ("Cannot declare", _TOML_TWICE),
    ("Cannot mutate", _TOML_TWICE),
    ("Cannot redefine", _TOML_TWICE),
    ("Duplicate inline table key", _TOML_TWICE),
    (
        "Illegal character '\\n'",
        (
            "the text is not closed in its line.",
            "Put the same quotation mark at its end; text of several lines stands between three quotation marks.",
        ),
    ),
    ("Illegal character", ("a control character.", "Take it out.")),
    ("Expected '=' after a key", ("an equals sign is missing after the setting's name.", "Write: name = value")),
    (
        "Expected newline or end of document",
        (
            "something stands behind the value.",
            "Write one setting in each line; a quotation mark within text needs a backslash before it.",
        ),
    ),
    ("Invalid statement", ("this is no setting.", "Write: name = value. A comment begins with #.")),
    ("Unterminated string", _TOML_UNCLOSED),
    ('Expected "\'"', _TOML_UNCLOSED),
    ("Expected \"'''\"", _TOML_UNCLOSED),
)
"""By the beginnings of tomli's messages."""
_WHERE_NAMES_STAND = ("Expected '=' after a key", "Invalid statement")


def toml_cure(text: str, error: tomli.TOMLDecodeError) -> Cure:
    """Say what is wrong at the place where the TOML parser gave up, and what to write instead."""
    # tomli counts in a text whose Windows line ends it has shortened.
    rest = text.replace("\r\n", "\n")[error.pos :].partition("\n")[0].strip()
    if rest[:1] in _TYPOGRAPHIC:
        return _STRAIGHT_QUOTES
    if error.msg.startswith("Invalid value"):
        return _toml_value_cure(rest)
    if rest[:1].isalpha() and not rest.isascii() and error.msg.startswith(_WHERE_NAMES_STAND):
        return (
            f"a setting's name has no letter like {rest[0]}.",
            "The names are English ones, such as prompt, width, height; jobs_example/ shows them all.",
        )
    for beginning, cure in _TOML_CURES:
        if error.msg.startswith(beginning):
            return cure
    return (
        f"this is no valid TOML ({shortened(error.msg)}).",
        "Correct it; every setting has the form: name = value",
    )


def _toml_value_cure(rest: str) -> Cure:
    word = _WORD.match(rest)
    if word is not None:
        return _word_cure(word[0], "TOML") or (
            "text stands without quotation marks.",
            f'Put it between quotation marks: "{shortened(rest)}"',
        )
    if not rest or rest.startswith("#"):
        return "a value is missing after the equals sign.", "Write one, or take the line out."
    return "this is no value.", 'Write a number, true, or a text between quotation marks: "…"'


def _word_cure(word: str, language: str) -> Cure | None:
    """Explain words that mean a truth or nothing in other languages."""
    what = f"{shortened(word)} is no value in {language}."
    if word.lower() in _TRUTH:
        return what, f"Write {_TRUTH[word.lower()]}."
    if word.lower() in _NOTHING:
        return what, "Leave the setting out."
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the JSON parser gave up: its message, what follows, and the last visible character before."""

    message: str
    rest: str
    before: str


_JSON_CURES: tuple[tuple[Callable[[_Place], bool], Cure], ...] = (
    (
        lambda at: at.message.startswith("Invalid \\"),
        (
            "in JSON a backslash begins a special character.",
            'Double it ("C:\\\\Users") or use forward slashes ("C:/Users").',
        ),
    ),
    (
        lambda at: at.message.startswith("Invalid control character"),
        ("a text holds a line break or a control character.", "Write \\n for a new line and \\t for a tab."),
    ),
    (lambda at: at.message.startswith("Unterminated string"), ("a text is not closed.", 'Put " at its end.')),
    (
        lambda at: at.rest.startswith(("#", "//", "/*")),
        ("JSON has no comments.", "Take the comment out, or write the job as TOML, which has them."),
    ),
    (
        # Since Python 3.13 the message says so itself and points to the comma.
        lambda at: (
            at.message.startswith("Illegal trailing comma")
            or (at.rest.startswith(("}", "]")) and at.before == ",")
        ),
        ("JSON takes no comma after the last entry.", "Take the comma out."),
    ),
    (
        lambda at: at.rest.startswith("'"),
        ("JSON knows only double quotation marks.", "Write \"…\" instead of '…'."),
    ),
    (lambda at: at.rest[:1] in _TYPOGRAPHIC, _STRAIGHT_QUOTES),
    (
        lambda at: not at.rest.strip(),
        ("the file ends in the middle.", "Complete it: a brace, bracket or value is missing at its end."),
    ),
    (
        lambda at: at.message.startswith("Expecting property name"),
        ("a setting's name stands between double quotation marks.", 'Write: {"prompt": "…"}'),
    ),
    (
        lambda at: at.message.startswith("Expecting ','"),
        (
            "a comma is missing, or a quotation mark within text has no backslash.",
            'Put a comma between two settings, and write \\" for a quotation mark within text.',
        ),
    ),
    (
        lambda at: at.message.startswith("Expecting ':'"),
        ("a colon is missing after the setting's name.", 'Write: "name": value'),
    ),
    (
        lambda at: at.message.startswith("Extra data"),
        ("the file goes on after its closing brace.", "Keep one object: a file holds one job."),
    ),
)
"""The first that applies."""


def json_place(error: json.JSONDecodeError) -> tuple[int, int]:
    """Give line and column of the fault: the parser's own, but for a needless comma the comma's."""
    before = error.doc[: error.pos].rstrip()
    needless_comma = before.endswith(",") and error.doc[error.pos :].startswith(("}", "]"))
    offset = len(before) - 1 if needless_comma else error.pos
    return error.doc.count("\n", 0, offset) + 1, offset - error.doc.rfind("\n", 0, offset)


def json_cure(error: json.JSONDecodeError) -> Cure:
    """Say what is wrong at the place where the JSON parser gave up, and what to write instead."""
    place = _Place(error.msg, error.doc[error.pos :], error.doc[: error.pos].rstrip()[-1:])
    for applies, cure in _JSON_CURES:
        if applies(place):
            return cure
    word = _WORD.match(place.rest)
    if word is not None:
        return _word_cure(word[0], "JSON") or (
            "text stands without quotation marks.",
            'Put it between double quotation marks: "…"',
        )
    return "this is no valid JSON.", 'Correct it; a job has the form: {"name": value, "name": value}'
