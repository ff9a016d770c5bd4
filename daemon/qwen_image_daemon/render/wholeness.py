"""Is all of a checkpoint there? Looked at before anything is loaded: the libraries name no file.

Only headers and small files are read. No torch.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.weight_files import BrokenFile, read_json, shards_of, tensors_in

INDEX: Final = "model_index.json"
WEIGHED: Final = ("transformer", "text_encoder", "vae")
"""The components that have weights, in the order in which they are looked at."""

_ONE_OF: Final[dict[str, tuple[str, ...]]] = {
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "processor": ("preprocessor_config.json", "processor_config.json"),
}
"""What the others cannot do without: one of these files. Without a vocabulary transformers makes one up."""
_MOST_NAMED: Final = 10


def components_of(folder: Path) -> tuple[str, ...]:
    """Give the components that the checkpoint's index names. Raises BrokenFile."""
    return named_in(folder / INDEX)


def named_in(file: Path) -> tuple[str, ...]:
    """Give the components that an index names. Raises BrokenFile."""
    index = read_json(file)
    # A component that a pipeline does without is [null, null].
    return tuple(name for name, kind in index.items() if isinstance(kind, list) and kind and all(kind))


def weight_files(folder: Path, elsewhere: Collection[str] = ()) -> dict[str, tuple[Path, ...]]:
    """Give the files with the weights of each component of a checkpoint that is whole.

    Those of the components `elsewhere` are not looked for.
    """
    there = [name for name in components_of(folder) if name not in elsewhere]
    return {name: shards_of(folder / name).files for name in WEIGHED if name in there}


def refuse_absent(folder: Path | None, source: str) -> None:
    """Raise ModelUnavailable where the settings name a folder that is not there."""
    if folder is not None and not folder.is_dir():
        raise ModelUnavailable(
            f"There is no checkpoint folder {folder}.", f"Set the source {source} to where it is."
        )


def refuse_broken(folder: Path, source: str, elsewhere: Collection[str] = ()) -> None:
    """Raise ModelUnavailable naming each file of the checkpoint that is missing, cut short or unreadable.

    The weights of the components `elsewhere` need not be there.
    """
    try:
        components = components_of(folder)
    except BrokenFile as fault:
        raise ModelUnavailable(f"{fault.place} could not be loaded: {fault}.", _cure([fault])) from None
    whole = [fault for name in components if name not in elsewhere for fault in _faults_of(folder / name)]
    described = [fault for name in elsewhere for fault in _faults_of_json(folder / name / "config.json")]
    _refuse(whole + described, source)


def refuse_broken_component(folder: Path, source: str) -> None:
    """Raise ModelUnavailable likewise for a folder that is one component with weights: a ControlNet."""
    _refuse(list(_faults_of_weights(folder)), source)


def _refuse(faults: list[BrokenFile], source: str) -> None:
    if not faults:
        return
    named = [f"{fault.place} could not be loaded: {fault}" for fault in faults[:_MOST_NAMED]]
    if len(faults) > _MOST_NAMED:
        named.append(f"and {len(faults) - _MOST_NAMED} more")
    raise ModelUnavailable(f"{source} is not whole. {'; '.join(named)}.", _cure(faults))


def _cure(faults: list[BrokenFile]) -> str:
    if any(fault.place.is_symlink() and fault.place.resolve().parent.name == "blobs" for fault in faults):
        return "Delete the files that are named and what they point to in blobs: they are fetched again."
    return "Fetch the files that are named again, of the same revision; the others are as they should be."


def _faults_of(component: Path) -> Iterator[BrokenFile]:
    if component.name in WEIGHED:
        yield from _faults_of_weights(component)
        return
    needed = _ONE_OF.get(component.name, ())
    found = [component / name for name in needed if (component / name).exists()]
    if needed and not found:
        yield BrokenFile(component / needed[0], "it is missing")
    for file in found:
        yield from _faults_of_json(file)


def _faults_of_json(file: Path) -> Iterator[BrokenFile]:
    try:
        read_json(file)
    except BrokenFile as fault:
        yield fault


def _faults_of_weights(component: Path) -> Iterator[BrokenFile]:
    if not component.is_dir():
        yield BrokenFile(component, "the folder is missing")
        return
    yield from _faults_of_json(component / "config.json")
    try:
        shards = shards_of(component)
    except BrokenFile as fault:
        yield fault
        return
    for file in shards.files:
        try:
            tensors = tensors_in(file)
        except BrokenFile as fault:
            yield fault
            continue
        lacking = [name for name in shards.expected_in(file) if name not in tensors]
        if lacking:
            what = f"{len(lacking)} of the tensors that the index of shards places in it are not there"
            yield BrokenFile(file, f"{what}, {lacking[0]} first")
