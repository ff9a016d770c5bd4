"""A chance to look up while libraries load a model for minutes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class BetweenOperations(TorchFunctionMode):
    """Calls a function before each operation that torch is asked for inside, by the thread that entered it.

    What it raises comes out of the library at work. The operations themselves are as ever.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look, then let the operation be done."""
        self._look()
        return func(*args, **(kwargs or {}))
