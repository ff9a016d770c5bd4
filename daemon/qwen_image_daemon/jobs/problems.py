"""What is wrong with something a person wrote, as values."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

KeyPath = tuple[str | int, ...]
"""The way to a value in a document: `("output", "quality")`. Numbers are places in lists."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a job file, in words its author can act on."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        """Give the place and the fault on one line, the cure indented below."""
        return f"{self.where}: {self.what}\n  {self.fix}"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A job file that cannot be run, with everything that is wrong with it at once (never empty)."""

    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        """Give all problems, one after the other."""
        return "\n".join(str(problem) for problem in self.problems)


MAX_PROBLEMS: Final = 20
"""How many problems are written out; the rest is counted."""


def rejection_of(problems: Iterable[Problem], total: int, shown: str) -> Rejection:
    """Reject a file, shown under this name, for so many problems in all: the first are said, the rest counted."""
    said = tuple(islice(problems, MAX_PROBLEMS))
    if total <= MAX_PROBLEMS:
        return Rejection(said)
    more = f"{total - MAX_PROBLEMS} more faults."
    return Rejection((*said, Problem(shown, more, "Correct these first; the others are shown then.")))


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem that knows its key and not yet its line. `occurrence` counts keys that stand more than once."""

    path: KeyPath
    what: str
    fix: str
    occurrence: int = 0
