"""When clearing memory pays, by figures of cards that are not here."""

import pytest

from qwen_image_daemon.render.cleaning import why_empty
from qwen_image_daemon.render.renderer import MemoryInfo

GIB = 1024**3


def card(total: float, allocated: float, reserved: float) -> MemoryInfo:
    """Give the report of a card that nobody else uses, in GiB."""
    sizes = (int(size * GIB) for size in (allocated, reserved, total - reserved, total))
    allocated_bytes, reserved_bytes, free_bytes, total_bytes = sizes
    return MemoryInfo(
        device="cuda:0",
        allocated_bytes=allocated_bytes,
        reserved_bytes=reserved_bytes,
        free_bytes=free_bytes,
        total_bytes=total_bytes,
        process_rss_bytes=GIB,
    )


def test_a_full_card_whose_caches_hold_more_than_is_free_is_emptied_and_the_reason_has_the_figures() -> None:
    assert why_empty(card(24, 18, 22)) == "4096 MiB lay idle in the caches, 2048 MiB were free beside them"


@pytest.mark.parametrize(
    "memory",
    [card(80, 54, 58), card(24, 18, 20), card(24, 23.7, 23.9), card(24, 24, 24)],
    ids=["there is room", "more is free than idle", "it is too little", "nothing is idle"],
)
def test_a_card_is_left_alone_where_emptying_its_caches_would_only_cost(memory: MemoryInfo) -> None:
    assert why_empty(memory) is None


def test_a_host_has_no_caches_of_torch() -> None:
    """Allocated and reserved are both the process's resident memory there."""
    assert why_empty(card(64, 60, 60)) is None
