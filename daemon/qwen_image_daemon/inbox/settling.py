"""When is a dropped file whole? When it was quiet, or renamed into place. Decides purely; time is handed in."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from qwen_image_daemon.inbox.listing import Stamp

LOOKS = 3
"""A stamp must be seen so often: one slow look must not pass for a long quiet."""


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp: Stamp
    since: float
    looks: int
    whole: bool


class Settling:
    """Remembers the last look at each file, to tell which have stopped changing.

    `settle_seconds` is measured on the clock that `observe` is given, which must be monotonic.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._seen: dict[str, _Seen] = {}

    def observe(self, listing: Mapping[str, Stamp], renamed: Collection[str], *, now: float) -> frozenset[str]:
        """Take one look in, and give the paths that are quiet.

        `renamed` names what was renamed into place since the last look: such a file, and all in such a folder, is
        whole at once, and stays so until it changes.
        """
        whole = _files_of(listing, frozenset(renamed)) if renamed else frozenset()
        self._seen = {
            path: self._look(self._seen.get(path), stamp, path in whole, now) for path, stamp in listing.items()
        }
        return frozenset(path for path, seen in self._seen.items() if self._quiet(seen, now))

    def _look(self, before: _Seen | None, stamp: Stamp, renamed: bool, now: float) -> _Seen:  # noqa: FBT001
        if before is None or before.stamp != stamp:
            return _Seen(stamp, since=now, looks=1, whole=renamed)
        return _Seen(stamp, before.since, before.looks + 1, before.whole or renamed)

    def _quiet(self, seen: _Seen, now: float) -> bool:
        return seen.whole or (seen.looks >= LOOKS and now - seen.since >= self._settle_seconds)


def _files_of(listing: Collection[str], renamed: frozenset[str]) -> frozenset[str]:
    """Give the files that were renamed themselves, or with one of the folders that they are in."""
    return frozenset(path for path in listing if path in renamed or any(up in renamed for up in _folders(path)))


def _folders(path: str) -> Iterator[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
