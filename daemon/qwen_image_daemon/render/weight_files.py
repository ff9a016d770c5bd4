"""Files with weights as they lie on a disk: which they are, and what their headers say. Loads nothing, no torch.

The formats: https://huggingface.co/docs/safetensors (a length of eight bytes, a JSON header, the data), and an
index of shards, whose `weight_map` says for each tensor in which file it is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

_LONGEST_HEADER: Final = 100_000_000
"""The same limit as in the safetensors library."""
_LENGTH_BYTES: Final = 8
_NOTES: Final = "__metadata__"


class BrokenFile(Exception):
    """A file is not as it must be. `str()` says why, to be put after its name."""

    def __init__(self, place: Path, why: str) -> None:
        super().__init__(why)
        self.place = place


@dataclass(frozen=True, slots=True)
class Shards:
    """The files that hold a component's weights, and which tensors each must hold as far as an index says so."""

    files: tuple[Path, ...]
    placed: Mapping[str, str] = field(default_factory=dict)
    """The file's name for each tensor; empty where there is no index."""

    def expected_in(self, file: Path) -> list[str]:
        """Give the tensors that the index places in a file."""
        return [tensor for tensor, name in self.placed.items() if name == file.name]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What a header says of one tensor."""

    parameters: int
    size: int
    """In bytes."""
    format: str
    """As safetensors names it: BF16, F32, U8 and so on."""


def shards_of(component: Path) -> Shards:
    """Say which files a component's weights are in, there or not. Raises BrokenFile where nothing says so."""
    indexes = sorted(component.glob("*.safetensors.index.json"))
    if not indexes:
        files = tuple(sorted(component.glob("*.safetensors")))
        if not files:
            raise BrokenFile(component, "no safetensors file is in it")
        return Shards(files)
    index = read_json(indexes[0])
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise BrokenFile(indexes[0], "it is no index of shards: it has no weight_map")
    strange = next((name for name in placed.values() if Path(name).name != name), None)
    if strange is not None:
        raise BrokenFile(indexes[0], f"it is no index of shards: {strange} is no file's name")
    return Shards(tuple(component / name for name in sorted(set(placed.values()))), placed)


def tensors_in(file: Path) -> dict[str, TensorEntry]:
    """Give each tensor by its name, from the header. Raises BrokenFile where the file is not whole."""
    header, begin = _header_of(file)
    header.pop(_NOTES, None)
    try:
        expected = begin + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        tensors = {name: _entry(**entry) for name, entry in header.items()}
        found = file.stat().st_size
    except OSError as error:
        raise BrokenFile(file, f"it cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _no_safetensors(file) from None
    if found != expected:
        raise BrokenFile(file, f"it has {found} bytes instead of {expected}")
    return tensors


def notes_in(file: Path) -> dict[str, str]:
    """Give what a file says beside its tensors. Raises BrokenFile."""
    notes = _header_of(file)[0].get(_NOTES, {})
    if not isinstance(notes, dict) or not all(isinstance(text, str) for text in notes.values()):
        raise _no_safetensors(file)
    return notes


def _header_of(file: Path) -> tuple[dict[str, Any], int]:
    """Read a file's header, and say where the data begin. Raises BrokenFile."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
            text = opened.read(min(length, _LONGEST_HEADER))
        found = file.stat().st_size
    except FileNotFoundError:
        raise BrokenFile(file, "it is missing") from None
    except OSError as error:
        raise BrokenFile(file, f"it cannot be read: {error.strerror}") from None
    if length <= _LONGEST_HEADER and 0 < len(text) < length:
        raise BrokenFile(file, f"it was cut short: it has {found} bytes, and its header alone {length}")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _no_safetensors(file) from None
    if not isinstance(header, dict):
        raise _no_safetensors(file)
    return header, _LENGTH_BYTES + length


def _no_safetensors(file: Path) -> BrokenFile:
    return BrokenFile(file, "it does not begin as a safetensors file does")


def _entry(dtype: str, shape: list[int], data_offsets: list[int]) -> TensorEntry:
    begin, end = data_offsets
    return TensorEntry(prod(shape), end - begin, dtype)


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object. Raises BrokenFile."""
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BrokenFile(file, "it is missing") from None
    except OSError as error:
        raise BrokenFile(file, f"it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BrokenFile(file, f"it is not a valid JSON file: {error}") from None
    if not isinstance(document, dict):
        raise BrokenFile(file, "it is not a valid JSON file: there is no table in it")
    return document
