#!/usr/bin/env python3
"""What each way to keep weights in fewer bits loses, takes and costs: every maker that is installed, on the CPU.

The loss is the error of a layer's result, as a part of it: 16 vectors times a matrix of 1536×3072, in bfloat16.
The weights are normally distributed; "heavy" have tails (Student's t with four degrees of freedom), and of
"columns" every 384th column is twenty times as large. Bits are those of the bytes that are kept, for each
parameter; seconds are of CPU time, of one thread.
"""

import argparse
import gc
import time

import torch

from qwen_image_daemon.render.packers import packer
from qwen_image_daemon.render.quantisers import QUANTISERS, Format, Maker, installed_libraries

ROWS, COLUMNS = 1536, 3072


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="on which to pack and turn back")
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(1)
    there = {"torch", *installed_libraries()}
    matrices = {name: matrix.to(device) for name, matrix in weights().items()}
    print(f"{'way':22} {'bits':>6} {'pack':>8} {'turn back':>10}", *(f"{name:>13}" for name in matrices))
    for kept, quantiser in QUANTISERS.items():
        for maker in quantiser.makers:
            if maker in there:
                measure(kept, maker, matrices)


def weights() -> dict[str, torch.Tensor]:
    """Give the matrices by name."""
    noise = torch.Generator().manual_seed(0)
    plain = torch.randn(ROWS, COLUMNS, generator=noise)
    # Student's t: a normal value by the root of the mean of four squares.
    heavy = torch.randn(ROWS, COLUMNS, generator=noise)
    heavy /= torch.randn(4, ROWS, COLUMNS, generator=noise).square().mean(dim=0).sqrt()
    columns = plain.clone()
    columns[:, ::384] *= 20
    made = {"spread 1": plain, "spread 0.02": plain * 0.02, "spread 0.002": plain * 0.002}
    made |= {"heavy, 0.02": heavy * 0.02, "columns, 0.02": columns * 0.02}
    return {name: matrix.bfloat16() for name, matrix in made.items()}


def measure(kept: Format, maker: Maker, matrices: dict[str, torch.Tensor]) -> None:
    """Print what one way loses of each matrix."""
    pack = packer(kept, maker)
    lost = []
    packing = turning = 0.0
    for matrix in matrices.values():
        given = torch.randn(16, COLUMNS, generator=torch.Generator().manual_seed(1)).to(matrix.device)
        started = time.process_time()
        unpack = pack(matrix)
        packed = time.process_time()
        back = unpack()
        packing += packed - started
        turning += time.process_time() - packed
        expected = given @ matrix.float().T
        lost.append(float((given @ back.float().T - expected).norm() / expected.norm()))
    # What is kept is what is left of the tensors when all else is gone.
    del back, expected
    bits = 8 * kept_bytes(kept, maker, matrices["spread 1"]) / (ROWS * COLUMNS)
    told = [f"{100 * each:>11.2f} %" for each in lost]
    count = len(matrices)
    print(f"{kept + ' by ' + maker:22} {bits:6.3f} {packing / count:6.3f} s {turning / count:8.4f} s", *told)
    gc.collect()


def kept_bytes(kept: Format, maker: Maker, matrix: torch.Tensor) -> int:
    """Count the tensors that packing leaves behind."""
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, torch.Tensor)}
    unpack = packer(kept, maker)(matrix)
    gc.collect()
    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in gc.get_objects()
        if type(each) is torch.Tensor and id(each) not in before
    }
    del unpack
    return sum(storages.values())


if __name__ == "__main__":
    main()
