"""Which models stay loaded, on renderers that only say what becomes of them."""

from dataclasses import dataclass, field
from typing import Self

import pytest

from qwen_image_daemon.render.renderer import OutOfMemory
from qwen_image_daemon.render.warm_models import WarmModels
from rooms import Drawer


@dataclass
class Box:
    """A host on which models take memory of their own."""

    size: int = 0
    """Of each model."""
    total: int = 1_000
    fails: int = 0
    """So many loadings run out of memory."""
    told: list[str] = field(default_factory=list)
    used: int = 0

    def models(self, most: int) -> WarmModels:
        return WarmModels(
            lambda name, *_: Named(name, self), most, own=lambda: self.used, free=lambda: self.total - self.used
        )

    def since(self) -> list[str]:
        """Give what happened since the last time."""
        told, self.told = self.told, []
        return told


class Named(Drawer):
    def __init__(self, name: str, box: Box) -> None:
        super().__init__()
        self._name, self._box = name, box

    def __enter__(self) -> Self:
        if self._box.fails:
            self._box.fails -= 1
            raise OutOfMemory("Full.", "Fix.")
        self._box.used += self._box.size
        self._box.told.append(f"+{self._name}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._box.used -= self._box.size
        self._box.told.append(f"-{self._name}")

    def stand_by(self) -> None:
        self._box.told.append(f"{self._name} stands by")


def test_one_model_is_let_go_of_before_the_next_is_loaded() -> None:
    box = Box()
    with box.models(1) as warm:
        for name in ("a", "a", "b"):
            warm.get(name)
        assert box.since() == ["+a", "-a", "+b"]
    assert box.since() == ["-b"]


def test_several_stay_and_what_was_not_needed_for_longest_goes_first() -> None:
    box = Box()
    with box.models(2) as warm:
        first = warm.get("a")
        warm.get("b")
        assert warm.get("a") is first
        assert box.since() == ["+a", "a stands by", "+b", "b stands by"]
        warm.get("c")
        assert box.since() == ["a stands by", "-b", "+c"]
        assert (warm.name, warm.names) == ("c", {"a", "c"})
    # First the one on the device.
    assert box.since() == ["-c", "-a"]


def test_no_more_stay_than_the_host_has_room_for() -> None:
    box = Box(size=400)
    with box.models(5) as warm:
        warm.get("a")
        warm.get("b")
        warm.get("c")
        assert box.since() == ["+a", "a stands by", "+b", "b stands by", "-a", "+c"]


def test_where_loading_runs_out_of_memory_the_others_go_and_it_is_tried_again() -> None:
    box = Box()
    with box.models(3) as warm:
        warm.get("a")
        warm.get("b")
        box.since()
        box.fails = 1
        warm.get("c")
        assert box.since() == ["b stands by", "-a", "-b", "+c"]
        assert warm.names == {"c"}


def test_where_nothing_can_go_that_loading_ran_out_of_memory_is_told_and_the_next_goes_on() -> None:
    box = Box(fails=1)
    with box.models(3) as warm:
        with pytest.raises(OutOfMemory):
            warm.get("a")
        assert (warm.name, warm.names) == (None, frozenset())
        warm.get("a")
        assert box.since() == ["+a"]


def test_the_model_at_work_is_not_among_the_others() -> None:
    box = Box()
    with box.models(3) as warm:
        warm.get("a")
        assert not warm.let_go_of_others()
        warm.get("b")
        assert warm.let_go_of_others()
        assert warm.names == {"b"}
