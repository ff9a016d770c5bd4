"""While a library works with torch, its caller can look up, and leave."""

import pytest
import torch

from qwen_image_daemon.render.between_operations import BetweenOperations
from qwen_image_daemon.render.renderer import RenderStopped


def test_each_operation_of_the_thread_is_a_chance_to_look_and_gives_what_it_gives() -> None:
    looks: list[None] = []

    with BetweenOperations(lambda: looks.append(None)):
        total = (torch.ones(3) + 1).to(torch.float64, copy=True).sum()
    inside = len(looks)
    torch.zeros(1)

    assert total.item() == 6
    assert inside >= 4
    assert len(looks) == inside


def test_what_is_raised_at_a_look_comes_out_of_the_work() -> None:
    def stop() -> None:
        raise RenderStopped

    with pytest.raises(RenderStopped), BetweenOperations(stop):
        torch.nn.Linear(2, 2)
