#!/usr/bin/env python3
"""The daemon against a plain warm diffusers loop that also saves PNGs: same pictures, in one run, as a ratio.

Both draw N text-to-image pictures of the tiny checkpoint with as many prompts and seeds, in turn, several times.
The daemon is timed from the drop of N whole job files (renamed into the inbox, model warm) to the last result in
the outbox; the loop from the first call to the last saved file.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from driving import Box, eventually

REPOSITORY = Path(__file__).resolve().parents[2]
PLAIN = """
import sys, time, torch
from diffusers import QwenImagePipeline
folder, out, count, steps, side, rounds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
pipe = QwenImagePipeline.from_pretrained(folder, dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)

def draw(k):
    image = pipe(f"a red circle number {k}", negative_prompt=" ", true_cfg_scale=4.0, num_inference_steps=steps,
                 width=side, height=side, generator=torch.Generator("cpu").manual_seed(k)).images[0]
    image.save(f"{out}/{k}.png")

draw(0)
for line in sys.stdin:
    started = time.perf_counter()
    for k in range(count):
        draw(k)
    print(time.perf_counter() - started, flush=True)
"""


def main() -> None:
    """Measure, and print each round and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", type=int, default=256)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratios = measure(Path(folder), wanted)
    print(f"throughput of the daemon / plain loop: {statistics.median(ratios):.3f}", end=" ")
    print(f"({min(ratios):.3f} to {max(ratios):.3f}),", end=" ")
    print(f"{wanted.rounds} rounds of {wanted.jobs} pictures, {wanted.side}², {wanted.steps} steps")


def measure(folder: Path, wanted: argparse.Namespace) -> list[float]:
    """Give the ratio of each round."""
    tool = REPOSITORY / "tools" / "tiny_checkpoint.py"
    checkpoint, pictures = folder / "tiny", folder / "plain"
    subprocess.run([sys.executable, str(tool), "qwen-image", str(checkpoint)], check=True, capture_output=True)
    pictures.mkdir()
    arguments = [str(v) for v in (checkpoint, pictures, wanted.jobs, wanted.steps, wanted.side, wanted.rounds)]
    plain = subprocess.Popen(
        [sys.executable, "-c", PLAIN, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    box = Box(folder / "box")
    box.use_model(checkpoint)
    ratios: list[float] = []
    with box.running():
        box.move_in("warm-up.toml", job(0, wanted))
        box.result("warm-up")
        for number in range(wanted.rounds):
            loop_seconds = plain_round(plain)
            daemon_seconds = daemon_round(box, number, wanted)
            ratios.append(loop_seconds / daemon_seconds)
            print(
                f"round {number + 1}: loop {loop_seconds:.2f} s, daemon {daemon_seconds:.2f} s, {ratios[-1]:.3f}"
            )
    plain.kill()
    return ratios


def job(k: int, wanted: argparse.Namespace) -> str:
    """Give the job that draws the loop's picture k."""
    size = f"width = {wanted.side}\nheight = {wanted.side}\nnum_inference_steps = {wanted.steps}"
    return f'prompt = "a red circle number {k}"\nseed = {k}\n{size}\n'


def plain_round(plain: "subprocess.Popen[str]") -> float:
    """Let the loop draw once through, and give its seconds."""
    assert plain.stdin is not None
    assert plain.stdout is not None
    plain.stdin.write("go\n")
    plain.stdin.flush()
    return float(plain.stdout.readline())


def daemon_round(box: Box, number: int, wanted: argparse.Namespace) -> float:
    """Drop all jobs at once, and give the seconds until the last result is out."""
    outside = box.root / f"round-{number}"
    outside.mkdir()
    for k in range(wanted.jobs):
        (outside / f"r{number}-{k}.toml").write_text(job(k, wanted))
    before = published(box)
    started = time.perf_counter()
    for path in sorted(outside.iterdir()):
        path.rename(box.inbox / path.name)
    eventually(lambda: published(box) >= before + wanted.jobs, "all results", patience=600)
    return time.perf_counter() - started


def published(box: Box) -> int:
    """Count the results that are out."""
    return sum(1 for _ in box.outbox.glob("2*/*"))


if __name__ == "__main__":
    main()
