#!/usr/bin/env python3
"""How long weights take from the disk into working memory: mapped, mapped in parallel, and read in before.

usage: python tests/benchmarks/loading.py [--gigabytes 2] [--rounds 3] [--folder FOLDER]

Makes a sharded component of random weights, and copies every tensor as a placement does. Cold means that the
system was asked to forget the files (posix_fadvise); what a disk or a virtual machine's host remembers stays.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qwen_image_daemon.render.reading_in import read_in

SHARD_BYTES = 256 << 20
TENSOR_BYTES = 32 << 20


def made(folder: Path, size: int) -> list[Path]:
    """Write shards of random bfloat16 weights, and wait until they are on the disk."""
    shards = []
    for number in range(max(size // SHARD_BYTES, 1)):
        tensors = {
            f"{number}.{part}": torch.randint(-(2**15), 2**15, (TENSOR_BYTES // 2,), dtype=torch.int16).view(
                torch.bfloat16
            )
            for part in range(SHARD_BYTES // TENSOR_BYTES)
        }
        shard = folder / f"model-{number + 1:05}.safetensors"
        save_file(tensors, shard)
        shards.append(shard)
    os.sync()
    return shards


def forget(shards: Sequence[Path]) -> None:
    """Ask the system to drop the files from its memory."""
    for shard in shards:
        descriptor = os.open(shard, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def copy_all(shard: Path) -> None:
    """Map a shard, and copy each of its tensors once."""
    with safe_open(shard, "pt") as file:
        for name in file.keys():  # noqa: SIM118  it is no mapping
            file.get_tensor(name).clone()


def mapped(shards: Sequence[Path]) -> None:
    """One shard after the other, as the libraries do it."""
    for shard in shards:
        copy_all(shard)


def in_parallel(shards: Sequence[Path]) -> None:
    """Four shards at a time, as HF_ENABLE_PARALLEL_LOADING does it, with the copies in the threads."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(copy_all, shards))


def read_in_before(shards: Sequence[Path]) -> None:
    """Read into the page cache by four threads, then one shard after the other."""
    read_in({"transformer": shards}, 1 << 60, lambda _: None)
    mapped(shards)


WAYS: dict[str, Callable[[Sequence[Path]], None]] = {
    "mapped": mapped,
    "in parallel": in_parallel,
    "read in before": read_in_before,
}


def main() -> None:
    """Measure, and print seconds and ratios to the first way, medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk that is asked about")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        shards = made(Path(place), int(options.gigabytes * 1e9))
        size = sum(shard.stat().st_size for shard in shards)
        print(f"{len(shards)} shards, {size / 1e9:.2f} GB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for state in ("cold", "warm"):
            seconds: dict[str, list[float]] = {name: [] for name in WAYS}
            for _ in range(options.rounds):
                for name, way in WAYS.items():
                    mapped(shards)
                    if state == "cold":
                        forget(shards)
                    started = time.perf_counter()
                    way(shards)
                    seconds[name].append(time.perf_counter() - started)
            first = statistics.median(seconds["mapped"])
            for name, measured in seconds.items():
                median = statistics.median(measured)
                figures = f"{median:.2f} s, {size / median / 1e9:.2f} GB/s, {median / first:.2f} of mapped"
                print(f"{state:<5} {name:<15} {figures} ({min(measured):.2f} to {max(measured):.2f})")


if __name__ == "__main__":
    main()
