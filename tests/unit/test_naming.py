"""Which job a person means."""

import pytest

from qwen_image_daemon.service.naming import NamedJob, NotOneJob, the_one

BOAT = NamedJob("20261123-101500-001-aaaaaa", "My boat")
SECOND_BOAT = NamedJob("20261123-101500-002-bbbbbb", "My boat")
HARBOUR = NamedJob("20261124-080000-003-ccaaaa", "harbour")
JOBS = (BOAT, SECOND_BOAT, HARBOUR)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        (BOAT.id, BOAT),
        ("bbbbbb", SECOND_BOAT),
        ("20261124", HARBOUR),
        ("harbour", HARBOUR),
        ("ccaaaa", HARBOUR),
    ],
)
def test_an_id_a_part_of_one_or_a_name_is_enough_where_it_means_one_job(word: str, meant: NamedJob) -> None:
    assert the_one(word, JOBS) == meant


def test_a_name_may_be_typed_as_the_folders_show_it() -> None:
    assert the_one("My-boat", (BOAT, HARBOUR)) == BOAT


@pytest.mark.parametrize("word", ["My boat", "20261123", "aaaa"])
def test_what_could_be_several_is_asked_back_with_each(word: str) -> None:
    with pytest.raises(NotOneJob, match=f"{word} could be 2 jobs") as told:
        the_one(word, JOBS)
    assert BOAT.id in str(told.value)


@pytest.mark.parametrize("word", ["", "boa", "123"])
def test_what_names_no_job_is_told_with_those_that_there_are(word: str) -> None:
    with pytest.raises(NotOneJob, match="no such job") as told:
        the_one(word, JOBS)
    assert all(f"{job.id}  {job.name}" in str(told.value) for job in JOBS)


def test_long_lists_of_candidates_are_cut() -> None:
    many = [NamedJob(f"id-{number}", "same") for number in range(30)]
    with pytest.raises(NotOneJob, match="and 20 more"):
        the_one("same", many)


def test_where_there_is_no_job_at_all_that_is_said() -> None:
    with pytest.raises(NotOneJob, match="none at all"):
        the_one("x", [])
