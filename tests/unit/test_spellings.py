"""A picture is found under the name that a job gives it, whichever system wrote either of them."""

import unicodedata

import pytest

from qwen_image_daemon.inbox.listing import MAX_DEPTH
from qwen_image_daemon.inbox.spellings import spellings

COMPOSED = "Größe/Übersicht.png"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def test_the_name_as_it_is_written_comes_first() -> None:
    assert next(spellings(COMPOSED)) == COMPOSED
    assert next(spellings(DECOMPOSED)) == DECOMPOSED


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
def test_each_part_may_be_composed_or_decomposed(written: str) -> None:
    folders, files = (
        (unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part)) for part in COMPOSED.split("/")
    )
    expected = {f"{folder}/{file}" for folder in folders for file in files}
    found = list(spellings(written))
    assert set(found) == expected
    assert len(found) == len(expected)


def test_a_name_that_is_written_in_one_way_only_is_given_once() -> None:
    assert list(spellings("sub/a.png")) == ["sub/a.png"]


def test_other_case_is_another_name() -> None:
    assert "a.png" not in set(spellings("A.png"))


def test_a_way_deeper_than_any_listing_costs_nothing() -> None:
    deep = "/".join(["ä"] * (MAX_DEPTH + 2))
    assert list(spellings(deep)) == [deep]
    assert len(list(spellings("/".join(["ä"] * (MAX_DEPTH + 1))))) == 2 ** (MAX_DEPTH + 1)
