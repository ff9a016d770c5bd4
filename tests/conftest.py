"""What all tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from filelock import FileLock

REPOSITORY = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Set what must stand before anything is imported or logged."""
    # Here and in the processes that tests start: the workers are the parallelism.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # structlog's own default draws every traceback with all locals, which takes seconds where these are tensors.
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()])


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a checkpoint of the real classes, 1 MB of random weights. Only to be read."""
    run = tmp_path_factory.getbasetemp()
    # Under xdist each worker has a folder of its own in the run's.
    shared = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    folder = shared / "tiny-checkpoint"
    with FileLock(shared / "tiny-checkpoint.lock"):
        tool = REPOSITORY / "tools" / "tiny_checkpoint.py"
        subprocess.run([sys.executable, str(tool), str(folder)], check=True, capture_output=True)
    return folder
