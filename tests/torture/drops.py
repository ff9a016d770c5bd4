"""Jobs to drop, and the ways to drop them."""

import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

from PIL import Image

from torture.ledger import Dropped

SIZE = "width = 64\nheight = 64\n"
"""As small as a model allows: here the daemon is tried, not the renderer."""
RECIPES = "recipes"
RECIPE = f'prompt = "by recipe"\nseed = 3\nnum_inference_steps = 4\nstrength = 0.5\n{SIZE}'.encode()


def one_picture(number: int) -> Dropped:
    """Give a quick job. All of these draw the same picture."""
    return _job(number, "one", 'prompt = "one"\nseed = 1\nnum_inference_steps = 2\n', 1)


def several_pictures(number: int, pictures: int = 8) -> Dropped:
    """Give a job that is likely to be met in its middle."""
    return _job(number, "several", f'prompt = "several"\nseed = 5\nnum_images = {pictures}\n', pictures)


def refused(number: int) -> Dropped:
    """Give a job with a mistake in it."""
    return Dropped(f"refused-{number}.toml", f'promt = "wrong" # {number}\n'.encode(), status="refused")


def with_source(number: int) -> Dropped:
    """Give a job file with a picture beside it, which comes last."""
    name, source = f"redraw-{number}.toml", f"redraw-{number}.png"
    content = _redraw(number, source)
    return Dropped(name, content, files=((name, content), (source, _source())))


def folder(number: int) -> Dropped:
    """Give a job folder, which is taken whole."""
    content = _redraw(number, "source.png")
    files = ((f"folder-{number}/job.toml", content), (f"folder-{number}/source.png", _source()))
    return Dropped(f"folder-{number}", content, likeness="folder", files=files)


def by_recipe(number: int) -> Dropped:
    """Give a picture for the recipe folder."""
    name = f"picture-{number}.png"
    content = f'image = "{name}"\n'.encode() + RECIPE
    place = f"{RECIPES}/{name}"
    return Dropped(place, content, files=((place, _source()),))


def batch(number: int) -> list[Dropped]:
    """Give the three jobs of one file, which comes with the first of them."""
    name = f"batch-{number}.toml"
    prompts = [f"batch {number}, {letter}" for letter in "abc"]
    text = f"prompts = {json.dumps(prompts)}\nseed = 1\nnum_inference_steps = 2\n{SIZE}"
    settings = {"seed": 1, "num_inference_steps": 2, "width": 64, "height": 64}
    contents = [f"{json.dumps({**settings, 'prompt': prompt}, indent=2)}\n".encode() for prompt in prompts]
    first = Dropped(name, contents[0], files=((name, text.encode()),))
    others = enumerate(contents[1:], start=2)
    return [first, *(Dropped(f"{name}, job {at}", content, comes_with_another=True) for at, content in others)]


def _job(number: int, kind: str, text: str, images: int) -> Dropped:
    content = f"# {number}\n{text}{SIZE}".encode()
    return Dropped(f"{kind}-{number}.toml", content, images=images, likeness=f"{kind} of {images}")


def _redraw(number: int, source: str) -> bytes:
    wish = 'prompt = "redraw"\nseed = 2\nnum_inference_steps = 4\nstrength = 0.5\n'
    return f'# {number}\nimage = "{source}"\n{wish}{SIZE}'.encode()


@cache
def _source() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


def mixture(jobs: int) -> Iterator[Dropped]:
    """Give so many jobs: of twenty, one is refused, two draw eight pictures, three have a source picture.

    And three are the jobs of one file.
    """
    kinds: list[Callable[[int], Dropped]] = [one_picture] * 20
    kinds[2], kinds[9], kinds[15] = with_source, folder, by_recipe
    kinds[6] = kinds[13] = several_pictures
    kinds[17] = refused
    drops = (kinds[number % len(kinds)](number) for number in range(jobs))
    for number, drop in enumerate(drops):
        place = number % len(kinds) - _BATCH_AT
        whole_batch = number - place + _JOBS_OF_BATCH <= jobs
        yield batch(number - place)[place] if 0 <= place < _JOBS_OF_BATCH and whole_batch else drop


_BATCH_AT, _JOBS_OF_BATCH = 10, 3
_outside = count()


def copy_in(inbox: Path, drop: Dropped) -> None:
    """Write the files under their final names, as `cp` does, on the disk when this returns."""
    _prepare(inbox, drop)
    for name, content in drop.parts:
        (inbox / name).parent.mkdir(exist_ok=True)
        _write_synced(inbox / name, content)
        _sync_folder((inbox / name).parent)
    _sync_folder(inbox)


def move_in(inbox: Path, drop: Dropped) -> None:
    """Write them under names that are ignored, and rename them, on the disk when this returns."""
    _prepare(inbox, drop)
    hidden = inbox / f".{next(_outside)}.part"
    hidden.mkdir()
    for name, content in drop.parts:
        (hidden / name).parent.mkdir(exist_ok=True)
        _write_synced(hidden / name, content)
        _sync_folder((hidden / name).parent)
    whole = [drop.name] if (hidden / drop.name).is_dir() else [name for name, _ in drop.parts]
    for name in whole:
        (hidden / name).rename(inbox / name)
        _sync_folder((inbox / name).parent)
    shutil.rmtree(hidden)
    _sync_folder(inbox)


def in_any_way(inbox: Path, drop: Dropped, chance: random.Random) -> None:
    """Drop it in one of the two ways."""
    chance.choice((copy_in, move_in))(inbox, drop)


def _prepare(inbox: Path, drop: Dropped) -> None:
    """Set the recipe folder up where there is none."""
    recipe = inbox / RECIPES / "recipe.toml"
    if drop.name.startswith(f"{RECIPES}/") and not recipe.exists():
        recipe.parent.mkdir(exist_ok=True)
        _write_synced(recipe, RECIPE)
        _sync_folder(recipe.parent)


def _write_synced(path: Path, content: bytes) -> None:
    # In two pieces: a reader that is too quick finds half a file.
    with path.open("wb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        file.write(content[len(content) // 2 :])
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
