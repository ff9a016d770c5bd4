"""What the end-to-end tests share."""

from pathlib import Path

import pytest

from driving import Box


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Give a box whose jobs are drawn in flat colours: run it with --dry-run."""
    return Box(tmp_path / "box")


@pytest.fixture
def tiny_box(tmp_path: Path, tiny_checkpoint: Path) -> Box:
    """Give a box whose default model is the tiny checkpoint."""
    box = Box(tmp_path / "box")
    box.use_model(tiny_checkpoint)
    return box
