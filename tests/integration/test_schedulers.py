"""Schedulers by name: each draws a picture of its own, twice the same; the next job has the checkpoint's again."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest

from qwen_image_daemon.jobs.models import SchedulerUse
from qwen_image_daemon.render.renderer import RequestRefused
from qwen_image_daemon.render.schedulers import scheduler_for
from tiny_models import PLAIN, TinyModel, half_mask, loaded, picture

LONGER = replace(PLAIN, num_inference_steps=8)
USES = [
    SchedulerUse(name="lightning"),
    SchedulerUse(name="unipc"),
    SchedulerUse(name="unipc", solver_order=3),
    SchedulerUse(name="unipc", shift=3.0),
    SchedulerUse(name="lcm"),
    SchedulerUse(name="euler", shift=3.0),
    SchedulerUse(name="euler", shift_terminal=0.3),
    SchedulerUse(name="euler", sigmas="karras"),
    SchedulerUse(name="euler", sigmas="exponential"),
]


@pytest.fixture(scope="module")
def model(tiny_family: Callable[[str], Path]) -> Iterator[TinyModel]:
    with loaded("qwen-image", tiny_family("qwen-image")) as entered:
        yield entered


@pytest.fixture(scope="module")
def own(model: TinyModel) -> bytes:
    """Give the picture with the checkpoint's own scheduler."""
    return model.bytes_of(LONGER)


def test_each_scheduler_draws_a_picture_of_its_own_and_the_same_one_again(model: TinyModel, own: bytes) -> None:
    pictures = [model.bytes_of(replace(LONGER, scheduler=use)) for use in USES]
    assert len({own, *pictures}) == len(USES) + 1
    # lcm takes no generator: its noise is drawn from the same seed all the same.
    assert [model.bytes_of(replace(LONGER, scheduler=use)) for use in USES] == pictures
    assert model.bytes_of(LONGER) == own


def test_euler_without_settings_is_the_checkpoints_own(model: TinyModel, own: bytes) -> None:
    assert model.bytes_of(replace(LONGER, scheduler=SchedulerUse(name="euler"))) == own


def levels(scheduler: Any, steps: int, shift: float) -> list[float]:
    import numpy as np  # noqa: PLC0415

    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=shift)
    return [round(float(level), 4) for level in scheduler.sigmas]


def test_lightning_is_the_schedule_that_its_loras_were_distilled_on(model: TinyModel) -> None:
    """base_shift = max_shift = ln 3 and no terminal level: sizes do not count, and 4 steps are these."""
    base = model.pipeline.scheduler
    config = scheduler_for(base, SchedulerUse(name="lightning")).config
    assert (config["base_shift"], config["max_shift"], config["shift_terminal"]) == (log(3), log(3), None)
    scheduler = scheduler_for(base, SchedulerUse(name="lightning"))
    assert levels(scheduler, 4, log(3)) == [1.0, 0.9, 0.75, 0.5, 0.0]
    assert base.config["shift_terminal"] == 0.02


def test_every_scheduler_shifts_by_the_picture_size_as_the_checkpoint_says(model: TinyModel) -> None:
    """The pipelines read these from its configuration, and take other numbers where they are missing."""
    base = model.pipeline.scheduler
    for use in USES:
        if use.name != "lightning":
            config = scheduler_for(base, use).config
            assert (config.get("max_shift"), config.get("max_image_seq_len")) == (0.9, 8192)


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        (SchedulerUse(name="unipc", sigmas="karras"), "cannot space its noise levels"),
        (SchedulerUse(name="euler", solver_order=2), "euler has no solver_order"),
        (SchedulerUse(name="lightning", shift=2.0), "fixed schedule"),
    ],
)
def test_settings_that_a_scheduler_has_not_are_refused(
    model: TinyModel, use: SchedulerUse, complaint: str
) -> None:
    with pytest.raises(RequestRefused, match=complaint):
        model.draw(replace(LONGER, scheduler=use))


@pytest.mark.parametrize("task", ["image-to-image", "inpaint"])
def test_a_scheduler_that_cannot_do_the_task_is_refused_with_those_that_can(model: TinyModel, task: Any) -> None:
    mask = half_mask() if task == "inpaint" else None
    request = replace(LONGER, task=task, source=picture(), strength=0.5, mask=mask)
    with pytest.raises(RequestRefused, match="unipc cannot mix noise") as refused:
        model.draw(replace(request, scheduler=SchedulerUse(name="unipc")))
    assert refused.value.fix == "Use euler, lightning, lcm, or leave it out."
    assert model.bytes_of(replace(request, scheduler=SchedulerUse(name="lcm"))) != model.bytes_of(request)


def test_what_unipc_would_do_with_karras_levels_is_why_they_are_refused(model: TinyModel) -> None:
    """They run from low noise to high."""
    scheduler = scheduler_for(model.pipeline.scheduler, SchedulerUse(name="unipc"))
    backwards = type(scheduler).from_config(scheduler.config, use_karras_sigmas=True)
    first, *_, last, _ = levels(backwards, 4, 0.5)
    assert first < last
