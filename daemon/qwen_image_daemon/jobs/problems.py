"""What is wrong with something a person wrote, as values."""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem that knows its key and not yet its line. `occurrence` counts keys that stand more than once."""

    path: KeyPath
    what: str
    fix: str
    occurrence: int = 0
