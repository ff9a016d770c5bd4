"""The one model that is kept loaded between jobs."""

from collections.abc import Callable
from typing import Self

from qwen_image_daemon.render.handed_over import unheard
from qwen_image_daemon.render.renderer import Loading, Renderer

OpenModel = Callable[[str, Callable[[Loading], None]], Renderer]
"""Gives the renderer of the model with this name, which tells how far its loading is once it is entered."""


class WarmModel:
    """Keeps the model of the last job loaded, and changes it only for a job that names another."""

    def __init__(self, open_model: OpenModel) -> None:
        self._open_model = open_model
        self._loaded: Renderer | None = None
        self.name: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.let_go()

    def get(self, name: str, tell: Callable[[Loading], None] = unheard) -> Renderer:
        """Give the renderer of a model, loading it where it is not loaded. Raises what its loading raises."""
        if self._loaded is not None and self.name == name:
            return self._loaded
        self.let_go()
        self._loaded = self._open_model(name, tell).__enter__()
        self.name = name
        return self._loaded

    def let_go(self) -> None:
        """Unload the model, if one is loaded."""
        loaded, self._loaded, self.name = self._loaded, None, None
        if loaded is not None:
            loaded.__exit__(None, None, None)
