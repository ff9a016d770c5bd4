"""docs/models.md says of every family what the catalogue says."""

from pathlib import Path

import pytest

from qwen_image_daemon.jobs.families import FAMILIES, FamilyName
from qwen_image_daemon.render.models import MODELS

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def row_of(family: str) -> list[str]:
    lines = DOCUMENT.read_text("utf-8").splitlines()
    row, *_ = [line for line in lines if line.startswith(f"| `{family}` | ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("family", MODELS)
def test_the_table_has_every_family_as_the_catalogue_has_it(family: FamilyName) -> None:
    _, checkpoints, tasks, multiple, _, licence = row_of(family)
    facts = MODELS[family]
    if facts.checkpoints:
        assert checkpoints == ", ".join(facts.checkpoints)
    named = {task.partition(" (")[0] for task in tasks.replace(", also", " also").split(", ")}
    assert named == set(FAMILIES[family].tasks)
    assert int(multiple) == FAMILIES[family].multiple
    assert licence == facts.licence
    if FAMILIES[family].max_references > 1:
        assert f"up to {FAMILIES[family].max_references} pictures" in tasks


def test_every_family_is_honest_about_where_it_was_run() -> None:
    text = DOCUMENT.read_text("utf-8").partition("## What was run where")[2]
    assert all(f"`{family}`" in text for family in MODELS)
