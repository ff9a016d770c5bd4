r"""Prompts with choices: `a {red|blue} __shape__` stands for several. Counted before written out.

`{a|b}` is one of its options, which may hold choices themselves; an option may be empty. `__name__` is one entry
of the list of that name. Braces without a bar stay as they are, so that a poster may show them. A backslash before
one of ``{ | } _ \`` takes its meaning away.

Text in, values out. Time and size are bounded by what is counted, never by what the author wrote: nothing recurses
deeper than MAX_DEPTH, and counts and lengths stop at MOST.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from qwen_image_daemon.jobs.quoting import quoted

MAX_DEPTH: Final = 16
"""How deep choices and lists may lie in each other."""
MOST: Final = 10**9
"""Where counting ends: more prompts than this are as good as infinitely many."""

WILDCARD_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_(?!_))*")
_TOKEN: Final = re.compile(rf"\\[{{|}}_\\]|__(?P<name>{WILDCARD_NAME.pattern})__|[{{|}}]")
# What other programs write inside of braces, and what would come out as words of the prompt here.
_FOREIGN: Final = (
    (
        re.compile(r"\s*\d*(-\d*)?\$\$"),
        "picks of several options ($$) are not known.",
        "Write one choice for each.",
    ),
    (
        re.compile(r"\s*\d*\.?\d+::"),
        "weights (::) are not known.",
        "Write an option twice to draw it twice as often.",
    ),
)


class TemplateFault(Exception):
    """A prompt whose choices cannot be understood. `str()` is the fault, `fix` the cure."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


@dataclass(frozen=True)
class Choice:
    """One of several templates."""

    options: "tuple[Template, ...]"

    @cached_property
    def count(self) -> int:
        """Count the texts that it can become, up to MOST."""
        return min(MOST, sum(option.count for option in self.options))

    @cached_property
    def longest(self) -> int:
        """Give the most characters that it can become, up to MOST."""
        return max(option.longest for option in self.options)


@dataclass(frozen=True)
class Template:
    """Words and choices in a row."""

    parts: tuple[str | Choice, ...]

    @cached_property
    def count(self) -> int:
        """Count the texts that it can become, up to MOST."""
        product = 1
        for part in self.parts:
            if isinstance(part, Choice):
                product = min(MOST, product * part.count)
        return product

    @cached_property
    def longest(self) -> int:
        """Give the most characters that it can become, up to MOST."""
        return min(MOST, sum(len(part) if isinstance(part, str) else part.longest for part in self.parts))

    @property
    def chooses(self) -> bool:
        """Say whether there is anything to choose."""
        return any(isinstance(part, Choice) for part in self.parts)

    def nth(self, number: int) -> str:
        """Give one of all its texts, counted from 0; the last choice changes first. Exact where count < MOST."""
        written: list[str] = []
        for part in reversed(self.parts):
            if isinstance(part, str):
                written.append(part)
                continue
            number, inside = divmod(number, part.count)
            for option in part.options:
                if inside < option.count:
                    written.append(option.nth(inside))
                    break
                inside -= option.count
        return "".join(reversed(written))

    def drawn(self, lots: "Lots") -> str:
        """Give a text at random: each choice by itself, all its options alike."""
        return "".join(
            part if isinstance(part, str) else part.options[lots.below(len(part.options))].drawn(lots)
            for part in self.parts
        )


class Lots:
    """Numbers drawn by lot from a seed: the same ones on every machine and under every version of Python."""

    def __init__(self, *seed: str | int) -> None:
        self._seed = "/".join(map(str, seed)).encode()
        self._drawn = 0

    def below(self, end: int) -> int:
        """Draw a number from 0 to end - 1."""
        self._drawn += 1
        digest = hashlib.sha256(self._seed + b"#%d" % self._drawn).digest()
        # Of 2**256 numbers: that they do not divide evenly by `end` can never be noticed.
        return int.from_bytes(digest) % end


class Wildcards:
    """Lists by name, whose entries may hold choices and other lists."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._lists = lists
        self._known: dict[str, Choice] = {}
        self._open: list[str] = []

    def template(self, text: str) -> Template:
        """Read a prompt with choices. Raises TemplateFault."""
        # One frame for each open brace: the innermost collects, and a closing one hands up.
        frames: list[_Frame] = [_Frame()]
        end = 0
        for token in _TOKEN.finditer(text):
            frames[-1].parts.append(text[end : token.start()])
            end = token.end()
            match token[0]:
                case "{":
                    if len(frames) + len(self._open) > MAX_DEPTH:
                        raise TemplateFault(
                            f"choices lie in each other more than {MAX_DEPTH} deep.", "Write them side by side."
                        )
                    frames.append(_Frame(start=token.end()))
                case "|" if len(frames) > 1:
                    frames[-1].next_option()
                case "}" if len(frames) > 1:
                    closed = frames.pop()
                    frames[-1].parts += closed.closed(text[closed.start : token.start()])
                case word if token["name"] is not None:
                    frames[-1].parts.append(self._list(token["name"]))
                case word:
                    # An escaped character, or a bar or a closing brace that stands alone and is drawn as it is.
                    frames[-1].parts.append(word[1:] if len(word) > 1 else word)
        if len(frames) > 1:
            begun = text[frames[-1].start - 1 :][:20]
            raise TemplateFault(
                f"the brace in {quoted(begun)} is not closed.",
                "Close it with }, or write \\{ for a brace as it is.",
            )
        frames[0].parts.append(text[end:])
        return frames[0].template()

    def _list(self, name: str) -> Choice:
        if name in self._known:
            return self._known[name]
        if name not in self._lists:
            known = ", ".join(f"__{known}__" for known in sorted(self._lists)) or "none"
            raise TemplateFault(
                f"there is no list for __{name}__.",
                f"Add {name} to [wildcards]; there are: {known}. For the word as it is, write \\__{name}__.",
            )
        if name in self._open:
            way = " leads to ".join(f"__{step}__" for step in (*self._open[self._open.index(name) :], name))
            raise TemplateFault(f"{way}: it would never end.", "Take one of them out.")
        if len(self._open) >= MAX_DEPTH:
            raise TemplateFault(
                f"lists name each other more than {MAX_DEPTH} deep.", "Write the inner ones into the outer ones."
            )
        self._open.append(name)
        try:
            choice = Choice(tuple(self.template(entry) for entry in self._lists[name]))
        finally:
            self._open.pop()
        self._known[name] = choice
        return choice


class _Frame:
    """What stands between two braces while it is read."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.parts: list[str | Choice] = []
        self._options: list[Template] = []

    def next_option(self) -> None:
        self._options.append(self.template())
        self.parts = []

    def template(self) -> Template:
        return Template(tuple(_joined(self.parts)))

    def closed(self, written: str) -> list[str | Choice]:
        """Give what the braces stand for: a choice, or themselves with what is in them."""
        for pattern, what, fix in _FOREIGN:
            if pattern.match(written):
                raise TemplateFault(f"in {quoted('{' + written + '}')}: {what}", fix)
        if not self._options:
            return ["{", *self.parts, "}"]
        self.next_option()
        return [Choice(tuple(self._options))]


def _joined(parts: Sequence[str | Choice]) -> Iterator[str | Choice]:
    words: list[str] = []
    for part in parts:
        if isinstance(part, str):
            words.append(part)
            continue
        if any(words):
            yield "".join(words)
        words = []
        yield part
    if any(words):
        yield "".join(words)
