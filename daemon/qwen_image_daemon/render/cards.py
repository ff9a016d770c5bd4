"""Which accelerator this machine has, asked without torch."""

import subprocess
from dataclasses import dataclass
from typing import Final

_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Card:
    """An accelerator, with the bytes of its memory that are free."""

    name: str
    free_bytes: int


def first_card() -> Card | None:
    """Ask NVIDIA's driver for its first card. None where there is no driver or no card."""
    command = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(  # noqa: S603  a fixed command
            command, check=True, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return card_of(answer.stdout)


def card_of(answer: str) -> Card | None:
    """Read the first line of the driver's answer: a name, a comma, and mebibytes."""
    line = answer.partition("\n")[0]
    name, _, mebibytes = line.rpartition(",")
    if not mebibytes.strip().isdecimal():
        return None
    return Card(name.strip(), int(mebibytes) * 2**20)
