#!/usr/bin/env python3
"""How long a checkpoint takes from the disk to the device: mapped alone, or as diffusers or the daemon load it.

usage: python tests/benchmarks/loading.py [--gigabytes 1.5] [--rounds 5] [--precision bfloat16] [--folder FOLDER]

Makes a checkpoint of the real classes with random bfloat16 weights in shards, loads it as the daemon does, and
brings every tensor to a device, for which a buffer in host memory stands in. In bfloat16 the files are mapped, and
first touched on the way to the device; in another precision the libraries touch and convert them. Cold means that
the system was asked to forget the files (posix_fadvise); what a disk or a virtual machine's host remembers stays.
The ways take turns, so that what else the machine does falls on all of them; and the time in which the loading
thread could have run but another program had its core is taken off (Linux tells it).
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers.models.modeling_utils
import structlog
import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

from qwen_image_daemon.render import devices
from qwen_image_daemon.render.between_operations import BetweenOperations
from qwen_image_daemon.render.loading import load_pipeline
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.render.reading_ahead import reading_ahead
from qwen_image_daemon.render.telling import Telling
from qwen_image_daemon.render.wholeness import weight_files
from qwen_image_daemon.settings import ModelSettings, Precision
from sharding import split_into_shards

REPOSITORY = Path(__file__).resolve().parents[2]
WIDTH = 1024
"""Of transformer and text encoder: a block of the transformer has 75 MB, a layer of the encoder 36 MB."""
BLOCK_BYTES, LAYER_BYTES = 75e6, 36e6
TRANSFORMER_SHARE = 0.7
SHARD_BYTES = 200e6

Files = Mapping[str, Sequence[Path]]


def made(folder: Path, size: float) -> ModelSettings:
    """Put a large transformer and text encoder into a tiny checkpoint, and wait until they are on the disk."""
    tool = REPOSITORY / "tools" / "tiny_checkpoint.py"
    subprocess.run([sys.executable, str(tool), "qwen-image", str(folder)], check=True, capture_output=True)
    config = QwenImageTransformer2DModel.load_config(folder, subfolder="transformer")
    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel.from_config(
            config
            | {
                "num_layers": max(1, round(size * TRANSFORMER_SHARE / BLOCK_BYTES)),
                "num_attention_heads": WIDTH // 128,
                "attention_head_dim": 128,
                "axes_dims_rope": (16, 56, 56),
                "joint_attention_dim": WIDTH,
            }
        )
    put(transformer, folder / "transformer", "diffusion_pytorch_model.safetensors")
    words = AutoConfig.from_pretrained(folder / "text_encoder")
    layers = max(1, round(size * (1 - TRANSFORMER_SHARE) / LAYER_BYTES))
    words.text_config.update(
        {
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": layers,
            "layer_types": ["full_attention"] * layers,
            "num_attention_heads": WIDTH // 128,
            "num_key_value_heads": WIDTH // 128,
        }
    )
    words.vision_config.out_hidden_size = WIDTH
    with torch.device("meta"):
        encoder = Qwen2_5_VLForConditionalGeneration(words)
    put(encoder, folder / "text_encoder", "model.safetensors")
    os.sync()
    return ModelSettings(source=str(folder))


def put(module: Any, folder: Path, name: str) -> None:
    """Write random weights for a module into shards, and its configuration beside them."""
    weights = {
        key: torch.randint(-(2**13), 2**13, (tensor.numel(),), dtype=torch.int16)
        .view(torch.bfloat16)
        .view(tensor.shape)
        for key, tensor in module.state_dict().items()
    }
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    save_file(weights, folder / name, metadata={"format": "pt"})
    split_into_shards(folder / name, max(2, round(sum(each.nbytes for each in weights.values()) / SHARD_BYTES)))
    if hasattr(module, "save_config"):
        module.save_config(folder)
    else:
        module.config.save_pretrained(folder)


class Device:
    """Stands in for a card: what comes to it is copied into one buffer, as a driver does on the way."""

    def __init__(self) -> None:
        self._buffer = torch.empty(256 << 20, dtype=torch.uint8)

    def onto(self, _: torch.device, resting: torch.Tensor) -> torch.Tensor:
        """Copy a tensor, piece by piece."""
        for piece in resting.contiguous().flatten().view(torch.uint8).split(self._buffer.numel()):
            self._buffer[: piece.numel()].copy_(piece)
        return resting


def bring(model: ModelSettings, precision: Precision) -> None:
    """Load the checkpoint, and arrange it with everything on the device."""
    pipeline = load_pipeline(model, precision, {}, trust_remote_code=False)
    placement = WeightPlacement(pipeline.transformer, pipeline.text_encoder, pipeline.vae)
    placement.arrange(PLAN_OF["resident"], torch.device("cpu"))


@contextmanager
def loading_in_parallel() -> Iterator[None]:
    """Have diffusers load shards in several threads (HF_ENABLE_PARALLEL_LOADING, read when it is imported)."""
    diffusers.models.modeling_utils.HF_ENABLE_PARALLEL_LOADING = True
    try:
        yield
    finally:
        diffusers.models.modeling_utils.HF_ENABLE_PARALLEL_LOADING = False


def parallel(model: ModelSettings, precision: Precision, _: Files) -> None:
    """Load as diffusers does where it is asked to load in parallel."""
    with loading_in_parallel():
        bring(model, precision)


def ahead(model: ModelSettings, precision: Precision, files: Files) -> None:
    """Load as the daemon does: read ahead by threads."""
    with reading_ahead(files, 1 << 60, Telling(lambda _: None)) as reading, BetweenOperations(reading.look):
        bring(model, precision)


def ahead_and_parallel(model: ModelSettings, precision: Precision, files: Files) -> None:
    """Both."""
    with loading_in_parallel():
        ahead(model, precision, files)


def before(model: ModelSettings, precision: Precision, files: Files) -> None:
    """Read everything before loading begins."""
    with reading_ahead(files, 1 << 60, Telling(lambda _: None)) as reading:
        for piece in reading._pieces:
            piece.result()
    bring(model, precision)


Way = Callable[[ModelSettings, Precision, Files], None]
WAYS: dict[str, Way] = {
    "mapped": lambda model, precision, _: bring(model, precision),
    "parallel": parallel,
    "read before": before,
    "read ahead": ahead,
    "ahead, parallel": ahead_and_parallel,
}


def forget(files: Files) -> None:
    """Ask the system to drop the files from its memory."""
    for file in chain.from_iterable(files.values()):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    """Measure, and print seconds and ratios to the first way, medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=get_args(Precision), default="bfloat16")
    parser.add_argument("--folder", type=Path, help="on the disk that is asked about")
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    devices.onto = Device().onto
    with tempfile.TemporaryDirectory(dir=wanted.folder) as place:
        model = made(Path(place) / "checkpoint", wanted.gigabytes * 1e9)
        files = weight_files(Path(model.source))
        every = list(chain.from_iterable(files.values()))
        size = sum(file.stat().st_size for file in every)
        print(f"{len(every)} files, {size / 1e9:.2f} GB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for way in WAYS.values():
            way(model, wanted.precision, files)
        for state in ("cold", "warm"):
            measure(model, wanted.precision, files, wanted.rounds, cold=state == "cold")
        print(f"load {os.getloadavg()[0]:.1f}")


def measure(model: ModelSettings, precision: Precision, files: Files, rounds: int, *, cold: bool) -> None:
    """Let the ways take turns, and print."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    names = list(WAYS)
    for number in range(rounds):
        begin = number % len(names)
        for name in names[begin:] + names[:begin]:
            gc.collect()
            if cold:
                forget(files)
            started, held_up = time.perf_counter(), held_up_seconds()
            WAYS[name](model, precision, files)
            wall = time.perf_counter() - started
            seconds[name].append((wall - (held_up_seconds() - held_up), wall))
    first = statistics.median(own for own, _ in seconds["mapped"])
    for name, measured in seconds.items():
        owns = [own for own, _ in measured]
        median = statistics.median(owns)
        figures = f"{median:.2f} s, {median / first:.2f} of mapped ({min(owns):.2f} to {max(owns):.2f})"
        print(f"{'cold' if cold else 'warm'} {name:<15} {figures}", end="; ")
        print(f"by the clock {statistics.median(wall for _, wall in measured):.2f} s", flush=True)


def held_up_seconds() -> float:
    """Say how long this thread was ready to run and waited for a core, since it began (sched-stats of Linux)."""
    return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


if __name__ == "__main__":
    main()
