"""The memory of this very process: what lies idle in its heap, and when giving it back pays."""

import sys

import pytest

from qwen_image_daemon.render.host_memory import Heap, host_memory, idle_heap_bytes, own_bytes

PIECE = 64 * 1024
"""Smaller than what glibc takes from the system piece by piece."""
PIECES = 1024

only_glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc tells")


def kept_between(pieces: int) -> list[bytearray]:
    """Fill the heap, and let go of all but the last piece: what is below it stays in the heap."""
    filled = [bytearray(PIECE) for _ in range(pieces)]
    return filled[-1:]


@only_glibc
def test_what_was_let_go_of_lies_idle_in_the_heap_until_it_is_trimmed() -> None:
    heap = Heap(slack_bytes=PIECE * PIECES // 2)
    heap.trim()
    kept = kept_between(PIECES)

    idle = idle_heap_bytes()
    assert idle is not None
    assert idle > PIECE * PIECES // 2
    grown = own_bytes()
    assert "lie idle in the heap" in str(heap.why_trim(idle))

    heap.trim()
    assert grown - own_bytes() > PIECE * PIECES // 2
    # Still counted as free, but no longer in memory.
    assert heap.why_trim(idle_heap_bytes()) is None
    assert len(kept) == 1


def test_trimming_does_not_pay_where_the_process_has_not_grown() -> None:
    assert Heap(slack_bytes=1024**3).why_trim(10 * 1024**3) is None


def test_trimming_does_not_pay_where_what_has_grown_is_in_use() -> None:
    heap = Heap(slack_bytes=-(1024**4))
    assert heap.why_trim(-(1024**4)) is None


def test_trimming_is_left_alone_where_nobody_counts_what_is_free() -> None:
    assert Heap(slack_bytes=-(1024**4)).why_trim(None) is None


@only_glibc
def test_the_memory_report_tells_what_lies_idle() -> None:
    assert host_memory().idle_heap_bytes is not None
