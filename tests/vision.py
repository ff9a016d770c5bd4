"""torchvision beside a CPU build of torch: for tests only.

The package index has torchvision for CUDA alone. Its operators cannot be loaded here and are not needed; but it
looks for two of them when it is imported, and their declaration is enough. It lies in a folder of its own that
only the tests look into: everybody else would find it broken.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

FOLDER = Path(sys.prefix) / "torchvision"
"""Where `make install` puts it."""
OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Finder(MetaPathFinder):
    """Finds torchvision in its folder, and declares what it looks for first."""

    def __init__(self) -> None:
        self._declared: object = None

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  the signature is Python's
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        if self._declared is None:
            self._declared = _declare()
        return PathFinder.find_spec(fullname, [str(FOLDER)], target)


def _declare() -> object:
    """Give the declarations; they last as long as somebody holds them."""
    import torch  # noqa: PLC0415  most tests need none

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(operator + _SIGNATURE)
    return library


def make_importable() -> None:
    """Let this process find torchvision, where it has none of its own. Imports nothing yet."""
    if FOLDER.is_dir() and find_spec("torchvision") is None:
        sys.meta_path.insert(0, _Finder())
        # For the version, which transformers asks for.
        sys.path.append(str(FOLDER))


def is_importable() -> bool:
    """Say whether the checkpoints that look at pictures can be loaded."""
    return find_spec("torchvision") is not None
