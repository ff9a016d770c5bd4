"""Names of jobs: ids, slugs, and the order of the files."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from qwen_image_daemon.spool.identity import ID_LENGTH, SLUG_LENGTH, natural_order, new_id, slug

MOMENT = datetime(2026, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)
moments = st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2100, 1, 1))  # noqa: DTZ001  hypothesis's


@given(moments, st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=10)))
def test_later_ids_sort_later(moment: datetime, later: timedelta) -> None:
    assert new_id(moment) < new_id(moment + later)


@given(moments)
def test_every_id_has_the_same_length(moment: datetime) -> None:
    assert len(new_id(moment)) == ID_LENGTH


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id(MOMENT) for _ in range(100)}) == 100


@given(st.text())
def test_a_slug_is_always_a_short_file_name_that_can_be_written(name: str) -> None:
    made = slug(name)
    assert 0 < len(made.encode()) <= SLUG_LENGTH
    assert not set(made) & set('/\\:*?"<>|\0\n .')


def test_a_slug_keeps_what_people_recognise() -> None:
    assert slug("Grüße aus Köln (2).v3") == "Grüße-aus-Köln-2-v3"
    assert slug("猫の写真") == "猫の写真"
    assert slug("🐈🐈") == "job"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("u\u0308ber") == "über"
    assert len(slug("ü" * 200).encode()) == SLUG_LENGTH


def test_files_are_taken_as_people_count() -> None:
    names = ["page10", "Page9", "page1", "a/2", "a/10", "page"]
    assert sorted(names, key=natural_order) == ["a/2", "a/10", "page", "page1", "Page9", "page10"]


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    keys = [natural_order(name) for name in sorted(names, key=natural_order)]
    assert keys == sorted(keys)
