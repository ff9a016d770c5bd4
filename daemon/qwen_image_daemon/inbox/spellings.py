"""One name, several spellings: what Linux and Windows write as ä in one character, a Mac may write in two."""

import unicodedata
from collections.abc import Iterator
from itertools import product

from qwen_image_daemon.inbox.listing import MAX_DEPTH


def spellings(path: str) -> Iterator[str]:
    """Give the relative path as it is written, and then in the other Unicode forms that the same names may have.

    Each folder may have been made by another system than what lies in it. No spelling is given twice.
    """
    parts = [_forms(part) for part in path.split("/")]
    if len(parts) > MAX_DEPTH + 1:
        # Nothing that is listed lies so deep; and the author would choose how long this takes.
        yield path
        return
    yield from map("/".join, product(*parts))


def _forms(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))))
