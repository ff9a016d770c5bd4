"""Blocks of code out of a document, with what the document says they are.

The first word behind the fence is the language, for the web forge; the others are for the tests: ```toml job.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a document."""

    language: str
    words: tuple[str, ...]
    """What the document says the block is: its kind, and what belongs to that."""
    text: str
    line: int
    """The line of its fence, counted from 1."""

    @property
    def kind(self) -> str:
        """The first of the words; empty where there is none."""
        return self.words[0] if self.words else ""


def blocks_of(path: Path) -> Iterator[Block]:
    """Give all blocks of a document, in its order."""
    document = path.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(document):
        language, *words = found["info"].split() or [""]
        yield Block(language, tuple(words), found["text"], document.count("\n", 0, found.start()) + 1)
