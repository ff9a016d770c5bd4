"""SDNQ as this program uses it, where the operator installed it: never compiled. It is GPL-3.0 (decision 17)."""

import os
from importlib import import_module
from typing import Any


def sdnq_quantizer() -> Any:
    """Import the module of SDNQ that packs and turns back. Raises ImportError.

    Left to itself SDNQ compiles something when it is imported, to see whether it can: for a minute on a busy
    machine, in the middle of loading a model. Compiled it would also differ by machine.
    """
    os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")
    return import_module("sdnq.quantizer")
