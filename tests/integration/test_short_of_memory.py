"""A job for which no memory suffices comes back with its letter, and the daemon draws the next one as ever."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from arranged import insert
from driving import Box
from qwen_image_daemon.outbox.letters import ERROR
from qwen_image_daemon.outbox.results import JobResult
from qwen_image_daemon.service.loops import LoopName, Options, run_loop
from qwen_image_daemon.settings import ModelSettings, RenderSettings, Settings
from qwen_image_daemon.spool.spool import Spool
from rooms import QUICK, running
from tiny_models import Card

JOB = 'prompt = "a lighthouse at dusk"\nwidth = 64\nheight = 64\nnum_inference_steps = 2\nseed = 7\n'


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    insert(card, monkeypatch)
    return card


@contextmanager
def at_work(box: Box, checkpoint: Path) -> Iterator[None]:
    """Run the three loops of the daemon over a box, in this process: the card is one that we count."""
    settings = Settings(
        root=box.root,
        default_model="tiny",
        models={"tiny": ModelSettings(family="demo", source=str(checkpoint))},
        # By turns the transformer comes onto the card for each picture.
        render=RenderSettings(device="cpu", precisions=("float32",), placement="by-turns", attempts=1),
        inbox=QUICK,
    )
    Spool(settings.folders.spool).prepare()
    with ExitStack() as stack:
        for name in get_args(LoopName):
            stack.enter_context(running(partial(run_loop, name, settings, Options(inline=True))))
        yield


def pixels_of(box: Box, result: JobResult) -> bytes:
    [image] = result.images
    with Image.open(box.folder_of(result) / image.file.path) as picture:
        return picture.tobytes()


def test_a_job_that_no_memory_suffices_for_comes_back_with_its_letter_and_the_next_one_is_drawn_as_ever(
    tmp_path: Path, tiny_checkpoint: Path, card: Card
) -> None:
    box = Box(tmp_path / "box")
    with at_work(box, tiny_checkpoint):
        box.drop("before.toml", JOB)
        before = box.result("before")
        card.budget = 0
        box.drop("short.toml", JOB)
        short = box.result("short")
        card.budget = float("inf")
        box.drop("after.toml", JOB)
        after = box.result("after")

    assert [result.status for result in (before, short, after)] == ["succeeded", "failed", "succeeded"]
    assert short.error is not None
    assert short.error.kind == "OutOfMemory"
    letter = (box.folder_of(short) / ERROR).read_text(encoding="utf-8")
    assert "Memory ran out on the device: OutOfMemoryError: CUDA out of memory." in letter
    assert short.error.fix in letter
    assert (box.folder_of(short) / "short.toml").read_text(encoding="utf-8") == JOB
    assert box.folder_of(short).parent == box.failed
    arrangement = after.images[0].arrangement
    assert arrangement is not None
    assert (arrangement.plan, arrangement.steps_down) == ("by-turns", ())
    assert pixels_of(box, after) == pixels_of(box, before)
