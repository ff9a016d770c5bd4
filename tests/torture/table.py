"""What a scenario found, as one line of one table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from torture.ledger import Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario's outcome."""

    scenario: str
    figures: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    failures: tuple[str, ...] = ()
    """What went wrong beside losses: a daemon that did not come back, a point that was never hit."""
    skipped: str = ""
    """Why it could not be run here."""
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def left_out(cls, scenario: str, reason: str) -> "Row":
        """Say why a scenario could not be run on this machine."""
        return cls(scenario, "", (), 0.0, skipped=f"not run: {reason}")

    @property
    def faults(self) -> list[str]:
        """Give everything that makes the run a failure."""
        return [*self.failures, *(fault for verdict in self.verdicts for fault in verdict.faults)]

    def count(self, kind: str) -> str:
        """Count one kind of fault over all verdicts."""
        return "–" if self.skipped else str(sum(len(getattr(verdict, kind)) for verdict in self.verdicts))


def show(rows: Sequence[Row]) -> bool:
    """Print the table and every fault. Says whether all is well."""
    table = Table(title="torture")
    for heading in ("scenario", "figures"):
        table.add_column(heading, overflow="fold")
    for heading in ("losses", "doubles", "torn", "time"):
        table.add_column(heading, justify="right")
    for row in rows:
        counts = [row.count(kind) for kind in ("lost", "doubled", "torn")]
        table.add_row(row.scenario, row.skipped or row.figures, *counts, f"{row.seconds:.0f} s")
    console = Console(width=130)
    console.print(table)
    for line in _remarks(rows):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return not any(row.faults for row in rows)


def _remarks(rows: Iterable[Row], most: int = 20) -> Iterable[str]:
    for row in rows:
        yield from (f"{row.scenario}: {note}" for note in row.notes)
        yield from (f"FAULT {row.scenario}: {fault}" for fault in row.faults[:most])
        if len(row.faults) > most:
            yield f"FAULT {row.scenario}: and {len(row.faults) - most} more"
