"""Is a checkpoint what its makers put out? Its files are held against a list of hashes, where there is one.

Hashing tens of gigabytes takes its time, so what was found is remembered in the spool: a file that still has its
size, time and inode is not read again. No torch.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog
from pydantic import TypeAdapter

from qwen_image_daemon.render.renderer import Loading, ModelUnavailable
from qwen_image_daemon.render.telling import Count
from qwen_image_daemon.spool.durable import replace_content
from qwen_image_daemon.spool.reports import unwritten_is_logged

log = structlog.get_logger()

CHECKSUMS: Final = "CHECKSUMS"
"""As `sha256sum` writes it: a hash, two spaces, a path relative to the folder; one file a line."""
HASHED_FILES: Final = "hashed-files.json"

_HASH_DIGITS: Final = 64
_THREADS: Final = min(4, os.cpu_count() or 1)
_CHUNK_BYTES: Final = 1 << 20
_SETTLED_SECONDS: Final = 2.0
"""A file that was written just now may be written again without another time: it is hashed again the next time."""
_COPY: Final = "Copy the checkpoint anew; its list of hashes tells which file is not as it was made."


class KnownHashes:
    """Hashes of files that were read before, by what tells a changed file: device, inode, size and time."""

    _STORED: Final = TypeAdapter(dict[str, str])

    def __init__(self, state: Path | None) -> None:
        """`state` is the folder in which they outlast the process; None: they do not."""
        self._file = state and state / HASHED_FILES
        self._known = self._read()

    def of(self, file: Path, read: Callable[[bytes], None]) -> str:
        """Give the file's SHA-256, handing what must be read to `read`. Raises OSError."""
        before = _identity(file)
        known = self._known.get(before)
        if known is not None:
            return known
        digest = hashlib.sha256()
        with file.open("rb", buffering=0) as opened:
            while chunk := opened.read(_CHUNK_BYTES):
                digest.update(chunk)
                read(chunk)
        if _identity(file) == before and time.time() - file.stat().st_mtime > _SETTLED_SECONDS:
            self._known[before] = digest.hexdigest()
        return digest.hexdigest()

    def knows(self, file: Path) -> bool:
        """Say whether the file need not be read."""
        return _identity(file) in self._known

    def keep(self) -> None:
        """Write down what is known of files that are still there as they were."""
        if self._file is not None:
            self._known = {identity: hashed for identity, hashed in self._known.items() if _is_current(identity)}
            with unwritten_is_logged():
                replace_content(self._file, self._STORED.dump_json(self._known, indent=1))

    def _read(self) -> dict[str, str]:
        if self._file is None:
            return {}
        try:
            return self._STORED.validate_json(self._file.read_bytes())
        except (OSError, ValueError):
            # None yet, or broken: then all is read once more.
            return {}


def verified(
    folder: Path, listed: Path | None, weights: Sequence[Path], known: KnownHashes, tell: Callable[[Loading], None]
) -> str | None:
    """Hold a folder's files against `listed`, or the folder's own CHECKSUMS. Gives what was held against what.

    None where there is no list. Raises ModelUnavailable where a file differs or is missing, or one of `weights` is
    not listed, and what `tell` raises.
    """
    lists = folder / (CHECKSUMS if listed is None else listed.expanduser())
    if listed is None and not lists.is_file():
        return None
    expected = _read_list(lists, folder)
    unlisted = next((file for file in weights if file not in expected), None)
    if unlisted is not None:
        raise ModelUnavailable(
            f"{unlisted} is not listed in {lists}, so nobody knows whether it is what its makers put out.",
            f"Add it, where you trust it: cd {folder} && sha256sum {unlisted.relative_to(folder)}",
        )
    size = sum(_size(file) for file in expected)
    count = Count(Loading("verify", 0, sum(_size(file) for file in expected if not known.knows(file))), tell)
    started = time.monotonic()
    try:
        with ThreadPoolExecutor(_THREADS) as threads:
            for _ in threads.map(lambda file: _compare(file, expected[file], known, count), expected):
                pass
    finally:
        known.keep()
    log.info(
        "files.verified", folder=str(folder), files=len(expected), seconds=round(time.monotonic() - started, 2)
    )
    return f"{len(expected)} files, {size / 1e9:.2f} GB, as {lists} lists them"


def _compare(file: Path, expected: str, known: KnownHashes, count: Count) -> None:
    try:
        found = known.of(file, lambda chunk: count.add(len(chunk), file.name))
    except OSError as error:
        raise ModelUnavailable(f"{file} cannot be read: {error.strerror}.", _COPY) from None
    if found != expected:
        raise ModelUnavailable(
            f"{file} was altered or is broken: its hash is {found}, and {expected} is listed.", _COPY
        )


def _read_list(lists: Path, folder: Path) -> Mapping[Path, str]:
    try:
        lines = lists.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnavailable(
            f"The list of hashes {lists} cannot be read: {error}.",
            "Put it there, or set the model's checksums to where it is.",
        ) from None
    found: dict[Path, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        digits, _, name = line.partition(" ")
        # The second separator says how the file was read: a space, or * on systems that know other ways.
        name = name[1:].removeprefix("./")
        if len(digits) != _HASH_DIGITS or not set(digits.lower()) <= set("0123456789abcdef") or not name:
            raise ModelUnavailable(
                f"{lists}, line {number}, is no hash of a file.",
                "Make the list anew in the checkpoint's folder: find . -type f | xargs sha256sum",
            )
        place = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelUnavailable(
                f"{lists}, line {number}, names {name}, which leads out of the checkpoint's folder.",
                "Write paths relative to the folder.",
            )
        found[place] = digits.lower()
    if not found:
        raise ModelUnavailable(f"The list of hashes {lists} is empty.", "Make it with sha256sum, or leave it out.")
    for place in found:
        _refuse_absent(place)
    return found


def _refuse_absent(file: Path) -> None:
    if not file.is_file():
        raise ModelUnavailable(f"{file} is missing.", _COPY)


def _size(file: Path) -> int:
    return file.stat().st_size


def _is_current(identity: str) -> bool:
    file = Path(identity.split(" ", 3)[-1])
    try:
        return _identity(file) == identity
    except OSError:
        return False


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_dev}:{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {file.resolve()}"
