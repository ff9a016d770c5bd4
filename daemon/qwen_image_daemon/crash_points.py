"""Named places at which a test may kill the process from outside: one string comparison where nothing is armed.

`QWEN_IMAGE_CRASH_AT=NAME` or `NAME:TIMES` arms a point. `QWEN_IMAGE_CRASH_LEDGER=FILE` names a file
that gets a line for each kill, so that the number of kills (one, where TIMES is left out) holds over restarts.
Both or none must be set. `docs/decisions/0007-crash-points.md` lists the points.
"""

import os
import signal
from pathlib import Path
from typing import Final

CRASH_AT: Final = "QWEN_IMAGE_CRASH_AT"
CRASH_LEDGER: Final = "QWEN_IMAGE_CRASH_LEDGER"

_armed, _, _times = os.environ.get(CRASH_AT, "").partition(":")


def crash_point(name: str) -> None:
    """Die here, as of SIGKILL, if a test has armed this point."""
    if name == _armed:
        _crash(name)


def _crash(name: str) -> None:
    ledger = Path(os.environ[CRASH_LEDGER])
    kills = ledger.read_text(encoding="ascii").splitlines() if ledger.exists() else []
    if len(kills) >= int(_times or 1):
        return
    with ledger.open("a", encoding="ascii") as file:
        file.write(f"{name}\n")
    os.kill(os.getpid(), signal.SIGKILL)
