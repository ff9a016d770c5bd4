"""What all tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from filelock import FileLock

import vision

REPOSITORY = Path(__file__).parent.parent
PICTURE_READERS = {
    "qwen-image-edit",
    "qwen-image-edit-plus",
    "qwen-image-layered",
    "qwen-image-2.1",
    "qwen-image-2.1-turbo",
}
"""Families whose checkpoints need torchvision."""


def pytest_configure() -> None:
    """Set what must stand before anything is imported or logged."""
    # Here and in the processes that tests start: the workers are the parallelism.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    vision.make_importable()
    # structlog's own default draws every traceback with all locals, which takes seconds where these are tensors.
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()])


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give what gives a family's checkpoint: a folder with real classes, random weights. Only to be read."""
    run = tmp_path_factory.getbasetemp()
    # Under xdist each worker has a folder of its own in the run's.
    shared = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run

    def built(family: str) -> Path:
        folder = shared / "tiny" / family
        with FileLock(shared / f"{family}.lock"):
            if not folder.exists():
                _build(family, folder)
        return folder

    return built


def _build(family: str, folder: Path) -> None:
    if family in PICTURE_READERS:
        if not vision.is_importable():
            pytest.skip("torchvision is missing: make install")
        # In this process: another one has no torchvision.
        import tiny_checkpoint  # noqa: PLC0415  seconds of imports

        tiny_checkpoint.build(family, folder)
        return
    tool = REPOSITORY / "tools" / "tiny_checkpoint.py"
    subprocess.run([sys.executable, str(tool), family, str(folder)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_family: Callable[[str], Path]) -> Path:
    """Give the checkpoint of the first family."""
    return tiny_family("qwen-image")
