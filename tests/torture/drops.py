"""Jobs to drop, and the ways to drop them."""

import os
import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from torture.ledger import Dropped

SIZE = "width = 64\nheight = 64\n"
"""As small as a model allows: here the daemon is tried, not the renderer."""


def one_picture(number: int) -> Dropped:
    """Give a quick job. All of these draw the same picture."""
    return _job(number, "one", 'prompt = "one"\nseed = 1\nnum_inference_steps = 2\n', 1)


def several_pictures(number: int, pictures: int = 8) -> Dropped:
    """Give a job that is likely to be met in its middle."""
    return _job(number, "several", f'prompt = "several"\nseed = 5\nnum_images = {pictures}\n', pictures)


def refused(number: int) -> Dropped:
    """Give a job with a mistake in it."""
    return Dropped(f"refused-{number}.toml", f'promt = "wrong" # {number}\n'.encode(), status="refused")


def _job(number: int, kind: str, text: str, images: int) -> Dropped:
    content = f"# {number}\n{text}{SIZE}".encode()
    return Dropped(f"{kind}-{number}.toml", content, images=images, likeness=f"{kind} of {images}")


def mixture(jobs: int, *, first: int = 0) -> Iterator[Dropped]:
    """Give so many jobs: of twenty, one is refused and two draw eight pictures."""
    kinds: list[Callable[[int], Dropped]] = [one_picture] * 20
    kinds[6] = kinds[13] = several_pictures
    kinds[17] = refused
    for number in range(first, first + jobs):
        yield kinds[number % len(kinds)](number)


_outside = count()


def copy_in(inbox: Path, drop: Dropped) -> None:
    """Write the file under its final name, as `cp` does, on the disk when this returns."""
    with (inbox / drop.name).open("wb") as file:
        _write_synced(file.fileno(), drop.content)
    _sync_folder(inbox)


def move_in(inbox: Path, drop: Dropped) -> None:
    """Write it under a name that is ignored, and rename it, on the disk when this returns."""
    hidden = inbox / f".{drop.name}.{next(_outside)}.part"
    with hidden.open("wb") as file:
        _write_synced(file.fileno(), drop.content)
    hidden.rename(inbox / drop.name)
    _sync_folder(inbox)


def in_any_way(inbox: Path, drop: Dropped, chance: random.Random) -> None:
    """Drop it in one of the two ways."""
    chance.choice((copy_in, move_in))(inbox, drop)


def _write_synced(descriptor: int, content: bytes) -> None:
    # In two pieces: a reader that is too quick finds half a file.
    os.write(descriptor, content[: len(content) // 2])
    os.write(descriptor, content[len(content) // 2 :])
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
