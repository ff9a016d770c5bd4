"""The libraries' own randomness, made the same for each picture and left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let what draws from the libraries' own randomness be the same each time, and leave that as it was.

    The inpaint ControlNet's pipeline, the LCM scheduler and the layered model's describing take no generator.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
