"""A tiny model in one of its arrangements, on a card short of memory: what the tests of the ladders share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.caller_progress import CallerProgress
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.handed_over import Lasting
from qwen_image_daemon.render.making_room import nothing_stands_by
from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.render.renderer import Progress, Rendering, RenderRequest
from qwen_image_daemon.settings import ModelSettings, PlanName, RenderSettings
from tiny_models import Card

GUIDED = RenderRequest(
    task="text-to-image",
    prompt="a lighthouse at dusk",
    negative_prompt=" ",
    true_cfg_scale=4.0,
    num_inference_steps=2,
    width=64,
    height=64,
    seed=7,
)

KINDS: tuple[PlanName, ...] = ("encoder-streamed-table", "by-turns-table", "blocks-table", "leaves")
"""Of each kind of arrangement one."""


def insert(card: Card, patch: pytest.MonkeyPatch) -> None:
    """Let what comes onto the device come onto this card instead."""
    patch.setattr("qwen_image_daemon.render.devices.onto", card.onto)
    patch.setattr("qwen_image_daemon.render.devices.off", card.off)


def opened(
    checkpoint: Path,
    placement: PlanName = "resident",
    state: Path | None = None,
    let_go_of_others: Callable[[], bool] = nothing_stands_by,
    family: FamilyName = "demo",
    **settings: object,
) -> DiffusersRenderer:
    return DiffusersRenderer(
        ModelSettings(family=family, source=str(checkpoint)),
        RenderSettings.model_validate(
            {"device": "cpu", "precisions": ("float32",), "placement": placement} | settings
        ),
        Accessories(),
        Lasting(state, let_go_of_others=let_go_of_others),
    )


def ignore(_: Progress) -> None:
    """Take no notice of progress."""


def rendered(renderer: DiffusersRenderer, request: RenderRequest = GUIDED) -> Rendering:
    return renderer.render(request, ignore)


def drawn(renderer: DiffusersRenderer, request: RenderRequest = GUIDED) -> bytes:
    return rendered(renderer, request).image.tobytes()


def drawn_as(renderer: DiffusersRenderer, plan: PlanName, request: RenderRequest = GUIDED) -> bytes:
    """Draw in an arrangement, whichever the renderer would have chosen."""
    warm = renderer._entered.loaded.warm
    warm.arrange(PLAN_OF[plan], torch.device("cpu"), 0)
    return warm.draw(request, CallerProgress(ignore)).image.tobytes()


def difference(one: bytes, other: bytes) -> float:
    """Say by how many levels two pictures differ on average."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def pipeline_of(renderer: DiffusersRenderer) -> Any:
    """Reach behind the seam: hooks on the modules are how these tests disturb a model."""
    loaded = renderer._entered.loaded
    return loaded.warm._pipelines.loaded


def steps_of(rendering: Rendering) -> tuple[str, ...]:
    assert rendering.arrangement is not None
    return rendering.arrangement.steps_down


def plan_of(rendering: Rendering) -> PlanName:
    assert rendering.arrangement is not None
    return PLAN_OF[rendering.arrangement.plan].name  # type: ignore[index]


class Shortage:
    """Lets a module fail so many times: the transformer's last block, or the one that is named."""

    def __init__(
        self, renderer: DiffusersRenderer, times: int, fault: Exception | None = None, module: Any = None
    ) -> None:
        self._module = module or pipeline_of(renderer).transformer.transformer_blocks[-1]
        self._left = times
        self._fault = fault or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def __enter__(self) -> None:
        self._hook = self._module.register_forward_pre_hook(self._refuse)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _refuse(self, *_: object) -> None:
        self._left -= 1
        if self._left >= 0:
            raise self._fault
