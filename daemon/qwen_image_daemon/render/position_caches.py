"""Position embeddings that diffusers keeps for every picture size, and how to be rid of them."""

import inspect
from typing import Any


def forget_positions(model: Any) -> None:
    """Empty a model's caches of position embeddings, which keep 3.5 MB for every picture size.

    They are functools caches of the embedding's class, keyed by the instance, and keep it alive after the model is
    dropped. Models whose embedding has no such cache (2.1) are left as they are.
    """
    for _, method in inspect.getmembers(type(model.pos_embed), inspect.isfunction):
        kept = inspect.getclosurevars(method).nonlocals.get("cached")
        if kept is not None:
            kept.cache_clear()
