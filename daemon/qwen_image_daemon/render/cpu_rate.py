"""How fast this host computes: what a picture on the CPU takes is estimated by it."""

import time
from typing import Final

import torch

_SIDE: Final = 1024
_LEAST_SECONDS: Final = 0.1


def measured_rate(precision: torch.dtype) -> float:
    """Give the floating point operations a second of matrix products on all cores that torch uses.

    Takes 0.1 seconds, and one product (2.1 GFLOP) at least.
    """
    matrix = torch.full((_SIDE, _SIDE), 0.5, dtype=precision)
    # The first one makes threads and chooses how to compute.
    matrix @ matrix
    products = 0
    started = time.perf_counter()
    while (seconds := time.perf_counter() - started) < _LEAST_SECONDS or not products:
        matrix @ matrix
        products += 1
    return 2.0 * _SIDE**3 * products / seconds
