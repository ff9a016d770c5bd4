"""In which arrangements a model is tried one after the other, where weights are what counts."""

from collections.abc import Sequence
from typing import Final

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.plans import PLANS
from qwen_image_daemon.render.quantisers import Format, formats_at_hand
from qwen_image_daemon.settings import PlanName

FORMATS: list[Format] = [*dict.fromkeys(plan.kept for plan in PLANS if plan.kept != "as loaded")]
AT_HAND: list[Format] = [kept for kept in FORMATS if kept in formats_at_hand()]
"""Those whose libraries are installed."""
FIRST: Final = "qwen-image"
SECOND: Final = "qwen-image-2.1"
"""Families: with layers for the modulation in each block, and with a single one, which is not tabulated."""
EXACT: dict[FamilyName, list[PlanName]] = {
    FIRST: [
        "resident",
        "resident-table",
        "encoder-streamed",
        "encoder-streamed-table",
        # By turns with the whole transformer would take more than the one before it.
        "by-turns-table",
        "blocks-table",
        # Blocks with their modulation would, too.
        "leaves",
    ],
    SECOND: ["resident", "encoder-streamed", "by-turns", "blocks", "leaves"],
}
"""The ways down that lose nothing."""
FROM_FILES: dict[FamilyName, list[PlanName]] = {
    FIRST: ["blocks-table", "encoder-disk", "encoder-disk-table", "disk-table"],
    SECOND: ["blocks", "encoder-disk", "disk"],
}
"""The ways of models that are to have blocks at hand in the host's memory, where that has no room for them."""


def with_fewer_bits(kept: Format) -> list[PlanName]:
    """Give the way down where weights may be kept in this format."""
    packed: list[PlanName] = [plan.name for plan in PLANS if plan.kept == kept]
    return [*EXACT[FIRST][:5], *packed, *EXACT[FIRST][5:]]


def as_far_as(rung: PlanName, way: Sequence[PlanName]) -> list[PlanName]:
    """Give the way down to this arrangement."""
    return [*way[: way.index(rung) + 1]]


def way_of(steps: tuple[str, ...], down: Sequence[PlanName]) -> list[str]:
    """Give the arrangements that were tried, by name; the first one of a way is that which is set."""
    moves = [step.partition(":")[0].split() for step in steps if step.startswith("as ")]
    return [down[0], *(name for _, name, *_ in moves)]
