#!/usr/bin/env python3
"""Does a render process grow over many jobs? `--jobs 1000` mixed ones on tiny checkpoints, one after the other.

Every task of every architecture, LoRAs, ControlNets, many sizes, and faults: jobs that are refused, that take too
long, whose picture is none, that run out of memory, that break inside the model. Models change all the while. The
render loop works as in the daemon, but edits read their pictures small, not at a megapixel.

Drift: the median of the resident memory after the last tenth of the jobs against that after the tenth that begins
when `--settle` of all jobs are done. Ends with 1 where it is more than `--most-drift` percent. The heap is given
back after each job, unless `--cleanup` says otherwise: what is idle in it is no leak, and half a gigabyte of it is
left alone by the default policy, as much as the whole process has here.
"""

import argparse
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import vision

# Before torch and transformers are imported: as few threads as in the tests, and torchvision.
os.environ.setdefault("OMP_NUM_THREADS", "1")
vision.make_importable()

import pytest
import structlog
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_layered
from safetensors.torch import save_file

import tiny_checkpoint
from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.loop_control import LoopControl
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.handed_over import HandedOver, Lasting
from qwen_image_daemon.render.host_memory import own_bytes
from qwen_image_daemon.render.loop import render_jobs
from qwen_image_daemon.render.renderer import Progress, Renderer, Rendering, RenderRequest
from qwen_image_daemon.settings import Cleanup, RenderSettings, Settings, SpoolSettings
from rooms import QUICK, Rooms, picture
from tiny_models import read_small_references

FAMILIES: Final = ("qwen-image", "qwen-image-edit", "qwen-image-edit-plus", "qwen-image-layered", "qwen-image-2.1")
CONTROLNETS: Final = ("controlnet-union", "controlnet-inpaint")
SIDES: Final = range(64, 161, 32)
"""Multiples of 32: 2.1 takes no others."""
IN_THE_QUEUE: Final = 25
_JOBS_OF_A_LINE: Final = 20
MEMORY_FAULT, MODEL_FAULT = "the memory runs out", "the model breaks"
MEBIBYTE: Final = 2**20

KINDS: Final[dict[str, tuple[int, str]]] = {
    "text-to-image": (8, 'model = "qwen-image"\nprompt = "plum {number}"\n{size}'),
    "guided, two pictures": (
        3,
        'model = "qwen-image"\nprompt = "plum {number}"\nnegative_prompt = "blue"\nnum_images = 2\n{size}',
    ),
    "image-to-image": (
        3,
        'model = "qwen-image"\nprompt = "plum {number}"\nimage = "a.png"\nstrength = 0.6\n{size}',
    ),
    "inpaint": (3, 'model = "qwen-image"\nprompt = "plum {number}"\nimage = "a.png"\nmask = "m.png"\n{size}'),
    "controlnet": (
        2,
        'model = "qwen-image"\nprompt = "plum"\ncontrol_image = "a.png"\ncontrolnet = "controlnet-union"\n{size}',
    ),
    "masked controlnet": (
        2,
        'model = "qwen-image"\nprompt = "plum"\ncontrol_image = "a.png"\nmask = "m.png"\n{size}',
    ),
    "edit": (3, 'model = "qwen-image-edit"\ntask = "edit"\nprompt = "plum {number}"\nimage = "a.png"\n{size}'),
    "edit of several": (
        3,
        'model = "qwen-image-edit-plus"\ntask = "edit"\nprompt = "plum"\nimages = ["a.png", "b.png"]\n{size}',
    ),
    "layered": (1, 'model = "qwen-image-layered"\nprompt = "plum {number}"\nimage = "a.png"\nlayers = 2\n{steps}'),
    "2.1": (3, 'model = "qwen-image-2.1"\nprompt = "plum {number}"\n{size}'),
    "one LoRA": (3, 'model = "qwen-image"\nprompt = "plum {number}"\nloras = ["one"]\n{size}'),
    "two LoRAs": (
        2,
        'model = "qwen-image"\nprompt = "plum"\nloras = ["one", {{name = "two", weight = 0.5}}]\n{size}',
    ),
    "a LoRA that does not fit": (1, 'model = "qwen-image"\nprompt = "plum"\nloras = ["foreign"]\n{size}'),
    "no time": (1, 'model = "qwen-image"\nprompt = "plum"\ntimeout_seconds = 0.0001\n{size}'),
    "no picture": (1, 'model = "qwen-image"\nprompt = "plum"\nloras = ["blinding"]\n{size}'),
    "out of memory": (1, f'model = "qwen-image"\nprompt = "{MEMORY_FAULT} {{number}}"\n{{size}}'),
    "a fault inside": (1, f'model = "qwen-image-edit"\nprompt = "{MODEL_FAULT}"\nimage = "a.png"\n{{size}}'),
}
"""Jobs by what they are, each with its share and its text."""


class FaultyRenderer(DiffusersRenderer):
    """The real renderer, in a model whose hardware fails where the prompt says so."""

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Draw one picture, or fail as it says."""
        loaded = self._entered.loaded
        pipeline = loaded.warm._pipelines.loaded
        with ExitStack() as stack:
            if MEMORY_FAULT in request.prompt:
                hook = pipeline.vae.decoder.register_forward_pre_hook(_out_of_memory)
                stack.callback(hook.remove)
            if MODEL_FAULT in request.prompt:
                hook = pipeline.transformer.register_forward_hook(_break)
                stack.callback(hook.remove)
            return super().render(request, progress)


def _out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _break(*_: object) -> None:
    raise ZeroDivisionError("somewhere below")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one job left in use, in bytes."""

    resident: int
    own: int
    idle_heap: int
    cleaning_seconds: float


@dataclass
class Feeder:
    """Keeps the queue filled until enough jobs were queued, and reads what each left behind."""

    rooms: Rooms
    settings: Settings
    jobs: int
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    readings: list[Reading] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    fed: int = 0
    ended: bool = False

    def run(self) -> None:
        """Feed and read until all jobs are out."""
        while len(self.readings) < self.jobs and not self.ended:
            self.collect()
            waiting = self.fed - len(self.readings)
            if self.fed < self.jobs and waiting < IN_THE_QUEUE // 2:
                self.feed(min(IN_THE_QUEUE - waiting, self.jobs - self.fed))
            time.sleep(0.1)
        self.ended = True

    def feed(self, jobs: int) -> None:
        """Drop job folders, and take them in."""
        weights = [share for share, _ in KINDS.values()]
        for kind in self.dice.choices(list(KINDS), weights, k=jobs):
            self.fed += 1
            folder = f"{self.fed:05}"
            width, height = self.dice.choice(SIDES), self.dice.choice(SIDES)
            size = f"width = {width}\nheight = {height}\n"
            steps = f"num_inference_steps = {self.dice.choice((2, 3))}\n"
            text = KINDS[kind][1].format(number=self.fed % 40, size=size + steps, steps=steps)
            for name in ("a.png", "b.png", "m.png"):
                if name in text:
                    self.rooms.drop(f"{folder}/{name}", picture(colour="white" if name == "m.png" else "teal"))
            self.rooms.drop(f"{folder}/job.toml", text)
        rooms = self.rooms
        intake = Intake(rooms.inbox, rooms.spool, self.settings.catalogue, QUICK, SpoolSettings(min_free_bytes=0))
        take_in(intake, LoopControl(drain=True))
        shutil.rmtree(rooms.inbox / ".taken", ignore_errors=True)

    def collect(self) -> None:
        """Read how jobs ended, and forget them."""
        for entry in self.rooms.rendered():
            outcome = entry.outcome()
            cleaned = outcome.clean_up_after
            self.ends[outcome.status if outcome.error is None else outcome.error.kind] += 1
            if outcome.status == "refused":
                raise AssertionError(f"{entry.record().name}: {outcome.problems}")
            if cleaned is not None:
                self.readings.append(
                    Reading(
                        cleaned.left.process_rss_bytes,
                        own_bytes(),
                        cleaned.left.idle_heap_bytes or 0,
                        cleaned.seconds + (outcome.clean_up_before.seconds if outcome.clean_up_before else 0.0),
                    )
                )
            else:
                # It failed while its model was loaded: there is nothing to read.
                self.readings.append(self.readings[-1])
            shutil.rmtree(entry.folder)
            if len(self.readings) % _JOBS_OF_A_LINE == 0:
                print(f"{len(self.readings):6} jobs: {_sizes(self.readings[-_JOBS_OF_A_LINE:])}", flush=True)


def _sizes(readings: list[Reading]) -> str:
    resident, own, idle = (
        statistics.median(values) / MEBIBYTE
        for values in (
            [reading.resident for reading in readings],
            [reading.own for reading in readings],
            [reading.idle_heap for reading in readings],
        )
    )
    return f"resident {resident:7.1f} MiB, own {own:7.1f}, idle in the heap {idle:6.1f}"


def main() -> int:
    """Draw, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--settle", type=float, default=0.1, help="share of the jobs that may fill caches")
    parser.add_argument("--most-drift", type=float, default=2.0, help="percent")
    parser.add_argument("--cleanup", choices=("always", "adaptive", "never"), default="always")
    wanted = parser.parse_args()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(50),
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        layered = pipeline_qwenimage_layered.calculate_dimensions
        read_small_references(patch, 64, 64)
        # What it reads is also what it draws.
        patch.setattr(pipeline_qwenimage_layered, "calculate_dimensions", layered)
        feeder = draw(Path(folder), wanted.jobs, wanted.cleanup)
    return judge(feeder, wanted)


def draw(folder: Path, jobs: int, cleanup: Cleanup) -> Feeder:
    """Draw so many jobs, and give what was read after each."""
    settings = prepared(folder, cleanup)
    rooms = Rooms(folder / "box")
    feeder = Feeder(rooms, settings, jobs)
    accessories, lasting = Accessories.of(settings), Lasting(rooms.spool.state, HandedOver())

    def open_model(name: str, *_: object) -> Renderer:
        return FaultyRenderer(settings.models[name], settings.render, accessories, lasting)

    with _in_a_thread(feeder.run) as failures:
        # Draining: it gives up where a model cannot be loaded.
        control = LoopControl(no_more=lambda: feeder.ended or bool(failures), drain=True)
        try:
            render_jobs(rooms.spool, settings.render, settings.outbox, open_model, control)
        finally:
            feeder.ended = True
    if failures:
        raise failures[0]
    return feeder


@contextmanager
def _in_a_thread(work: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Run something beside the block, and give what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001  raised again by the caller
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    yield failures
    thread.join()


def prepared(folder: Path, cleanup: Cleanup) -> Settings:
    """Build the checkpoints and LoRAs, and give the settings that name them."""
    for name in (*FAMILIES, *CONTROLNETS):
        tiny_checkpoint.build(name, folder / name)
    loras = folder / "loras"
    loras.mkdir()
    for name, tensors in _loras().items():
        save_file(tensors, loras / f"{name}.safetensors")
    controlnets: dict[str, Any] = {
        name: {"source": str(folder / name), "kind": name.removeprefix("controlnet-")} for name in CONTROLNETS
    }
    return Settings.model_validate(
        {
            "models": {name: {"family": name, "source": str(folder / name)} for name in FAMILIES},
            "controlnets": controlnets,
            "lora_folder": loras,
            "render": RenderSettings(
                device="cpu",
                precisions=("float32",),
                attempts=2,
                retry_pause_seconds=0,
                cleanup=cleanup,
                gate_black_level=-1,
                gate_flat_deviation=0,
                gate_unchanged_difference=0,
            ),
        }
    )


def _loras() -> dict[str, dict[str, torch.Tensor]]:
    noise = torch.Generator().manual_seed(0)

    def lora(layer: str, outputs: int = 32, strength: float = 1.0) -> dict[str, torch.Tensor]:
        return {
            f"transformer.{layer}.lora_A.weight": torch.randn(4, 32, generator=noise),
            f"transformer.{layer}.lora_B.weight": torch.randn(outputs, 4, generator=noise) * strength,
        }

    return {
        "one": lora("transformer_blocks.0.attn.to_q"),
        "two": lora("transformer_blocks.1.img_mod.1", 192),
        "foreign": lora("transformer_blocks.0.attn.to_q", 48),
        "blinding": lora("transformer_blocks.0.attn.to_v", strength=3e38),
    }


def judge(feeder: Feeder, wanted: argparse.Namespace) -> int:
    """Print the drift, and give the exit code."""
    tenth = max(1, wanted.jobs // 10)
    begin = int(wanted.jobs * wanted.settle)
    first, last = feeder.readings[begin : begin + tenth], feeder.readings[-tenth:]
    drift = _drift([r.resident for r in first], [r.resident for r in last])
    floor = _drift([min(r.own for r in first)], [min(r.own for r in last)])
    seconds = [reading.cleaning_seconds for reading in itertools.islice(feeder.readings, begin, None)]
    print(f"ends: {dict(feeder.ends)}")
    print(
        f"clean-ups: {statistics.mean(seconds) * 1e3:.1f} ms a job (median {statistics.median(seconds) * 1e3:.1f})"
    )
    print(f"first: {_sizes(first)}")
    print(f"last:  {_sizes(last)}")
    print(f"drift of the resident memory over {wanted.jobs} jobs: {drift:+.2f} %, of the own floor {floor:+.2f} %")
    return int(drift > wanted.most_drift)


def _drift(before: list[int], after: list[int]) -> float:
    return (statistics.median(after) / statistics.median(before) - 1) * 100


if __name__ == "__main__":
    sys.exit(main())
