"""The models that are kept loaded between jobs: one is drawn with, others stand by."""

from collections.abc import Callable
from typing import Self

import structlog

from qwen_image_daemon.render.handed_over import unheard
from qwen_image_daemon.render.host_memory import host_memory, own_bytes
from qwen_image_daemon.render.renderer import Loading, OutOfMemory, Renderer

log = structlog.get_logger(__name__)

OpenModel = Callable[[str, Callable[[Loading], None], Callable[[], bool]], Renderer]
"""Gives the renderer of the model with this name. It tells how far its loading is once it is entered; and it is
given what unloads the models that stand by, for when the host's memory runs out."""


def _free_bytes() -> int:
    return host_memory().free_bytes


class WarmModels:
    """Keeps the models of the last jobs loaded, `most` of them; what was not needed for longest goes first.

    Only the last one is arranged on the device; of the others the transformers stay there while there is room. On
    the host they cost next to nothing where their weights are mapped files, and
    as much host memory as they have weights where they were loaded in another precision than that of their files.
    So one more is kept only where the host has room for one that takes as much as the largest did so far.
    """

    def __init__(
        self,
        open_model: OpenModel,
        most: int = 1,
        own: Callable[[], int] = own_bytes,
        free: Callable[[], int] = _free_bytes,
    ) -> None:
        """`own` and `free` give the process's own memory and what is free on the host, in bytes."""
        self._open_model = open_model
        self._most = most
        self._own = own
        self._free = free
        self._loaded: dict[str, Renderer] = {}
        """In the order of their last use."""
        self._largest = 0
        self.name: str | None = None
        """The model that is drawn with."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.let_go()

    @property
    def names(self) -> frozenset[str]:
        """Give the models that are loaded."""
        return frozenset(self._loaded)

    def get(self, name: str, tell: Callable[[Loading], None] = unheard) -> Renderer:
        """Give the renderer of a model, loading it where it is not loaded. Raises what its loading raises."""
        if name == self.name:
            return self._loaded[name]
        self._step_back()
        renderer = self._loaded.pop(name, None) or self._opened(name, tell)
        self._loaded[name] = renderer
        self.name = name
        return renderer

    def let_go_of_others(self) -> bool:
        """Unload the models that stand by. Says whether there were any."""
        others = [name for name in self._loaded if name != self.name]
        for name in others:
            self._let_go_of(name)
        return bool(others)

    def let_go(self) -> None:
        """Unload all models. First the one that is on the device: others may have parts in common with it."""
        current, self.name = self.name, None
        if current is not None:
            self._let_go_of(current)
        self.let_go_of_others()

    def _step_back(self) -> None:
        current, self.name = self.name, None
        if current is None:
            return
        if self._most == 1:
            self._let_go_of(current)
        else:
            self._loaded[current].stand_by()

    def _opened(self, name: str, tell: Callable[[Loading], None]) -> Renderer:
        while self._loaded and (len(self._loaded) >= self._most or self._free() < self._largest):
            self._let_go_of(next(iter(self._loaded)))
        try:
            return self._entered(name, tell)
        except OutOfMemory as error:
            if not self.let_go_of_others():
                raise
            log.warning("models.made_room", reason=str(error))
        # Not within the except: the exception keeps alive what its frames hold.
        return self._entered(name, tell)

    def _entered(self, name: str, tell: Callable[[Loading], None]) -> Renderer:
        before = self._own()
        renderer = self._open_model(name, tell, self.let_go_of_others).__enter__()
        self._largest = max(self._largest, self._own() - before)
        return renderer

    def _let_go_of(self, name: str) -> None:
        self._loaded.pop(name).__exit__(None, None, None)
        log.info("model.let_go", model=name)
