#!/usr/bin/env python3
"""What each `render.cleanup` costs a job: the same jobs with each policy in turn, in one process, as ratios.

A job is one picture of the tiny checkpoint with the clean-ups before and after it, as in the daemon. What a policy
costs is more than its own seconds: pages that were given back must be fetched again by the next picture. All
seconds are of CPU time. The policies take turns every three jobs, until the time is over.
"""

import argparse
import gc
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import structlog

from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.settings import Cleanup
from tiny_checkpoint import build
from tiny_models import PLAIN, loaded

SIDES = (64, 96, 128)
LEAST_ROUNDS = 2


def main() -> None:
    """Measure, and print each policy's median over the rounds, and its ratio to never."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0, help="for measuring, after loading")
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "tiny"
        build("qwen-image", checkpoint)
        with loaded("qwen-image", checkpoint) as model:
            measure(model.renderer, wanted.seconds)


def measure(renderer: DiffusersRenderer, allowed_seconds: float) -> None:
    """Draw in turn, and print."""
    policies: tuple[Cleanup, ...] = get_args(Cleanup)
    seconds: dict[Cleanup, list[tuple[float, float]]] = {policy: [] for policy in policies}
    # The first jobs fill what is filled once.
    jobs_with(renderer, "always")
    until = time.monotonic() + allowed_seconds
    for number in itertools.count():
        for policy in policies[number % len(policies) :] + policies[: number % len(policies)]:
            seconds[policy].append(jobs_with(renderer, policy))
        # After each round: whoever ends it early has figures, too.
        print(f"{number + 1} rounds of {len(SIDES)} jobs with each policy")
        tell(seconds)
        if number + 1 >= LEAST_ROUNDS and time.monotonic() > until:
            break


def tell(seconds: Mapping[Cleanup, Sequence[tuple[float, float]]]) -> None:
    """Print the medians so far."""
    never = statistics.median(whole for whole, _ in seconds["never"])
    for policy, rounds in seconds.items():
        whole = statistics.median(each for each, _ in rounds)
        cleaning = statistics.median(each for _, each in rounds)
        print(f"{policy:9} {cleaning * 1e3:7.1f} ms of clean-ups a job,", end=" ")
        print(f"{whole * 1e3:7.1f} ms a job in all, {whole / never:.3f} of never", flush=True)


def jobs_with(renderer: DiffusersRenderer, policy: Cleanup) -> tuple[float, float]:
    """Give the mean seconds of CPU time of a job of each size, and of its clean-ups."""
    renderer._cleanup = policy
    gc.collect()
    cleaning = 0.0
    started = time.process_time()
    for side in SIDES:
        cleaning += cleaned(renderer)
        renderer.render(replace(PLAIN, width=side, height=side), lambda _: None)
        cleaning += cleaned(renderer)
    return (time.process_time() - started) / len(SIDES), cleaning / len(SIDES)


def cleaned(renderer: DiffusersRenderer) -> float:
    """Clean up, and give the seconds of CPU time: on a busy machine the others are not the policy's."""
    started = time.process_time()
    renderer.clean_up()
    return time.process_time() - started


if __name__ == "__main__":
    main()
