"""The letter to the person who dropped a job that was not done."""

from datetime import UTC, datetime

import pytest

from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.outbox.letters import letter_for
from qwen_image_daemon.spool.records import ErrorReport, FileRecord, JobRecord, Outcome, ProblemRecord
from rooms import CATALOGUE, job_of

NOW = datetime(2026, 5, 17, tzinfo=UTC)
SOURCE = FileRecord(path="shelf/boat.toml", size_bytes=1, sha256="")
RECORD = JobRecord(id="id", name="My boat", sequence=1, received_at=NOW, source=SOURCE)


def test_a_refused_file_gets_every_complaint_and_what_to_do_next() -> None:
    problems = tuple(ProblemRecord(where=f"boat.toml, line {n}", what="wrong.", fix="Right.") for n in (1, 2))
    _, letter = letter_for(RECORD, Outcome(status="refused", finished_at=NOW, problems=problems))
    assert letter == (
        "shelf/boat.toml was not run: 2 things are wrong with it.\n\n"
        "boat.toml, line 1: wrong.\n  Right.\nboat.toml, line 2: wrong.\n  Right.\n\n"
        "Correct the file and drop it into the inbox again, or move this whole folder there.\n"
    )


def test_a_failed_job_gets_the_reason_the_cure_and_the_number_of_tries() -> None:
    error = ErrorReport(kind="OutOfMemory", what="Memory ran out.", fix="Draw smaller.")
    _, letter = letter_for(RECORD, Outcome(status="failed", finished_at=NOW, attempts=3, error=error))
    assert letter.startswith("My boat (shelf/boat.toml) failed. It was tried 3 times.\n\nMemory ran out.\n  Draw")
    _, once = letter_for(RECORD, Outcome(status="failed", finished_at=NOW, attempts=1, error=error))
    assert "It was tried once." in once


def test_a_cancelled_job_says_who_asked_what_is_there_and_how_to_run_it_again() -> None:
    job = job_of('prompt = "x"\nnum_images = 4')
    record = RECORD.model_copy(update={"effective": resolve(job, CATALOGUE, seed=1)})
    end = Outcome(status="cancelled", finished_at=NOW, cancelled_by="the command `cancel` (anna on box)")
    name, letter = letter_for(record, end)
    assert name == "CANCELLED.txt"
    assert letter.startswith(
        "My boat (shelf/boat.toml) was cancelled by the command `cancel` (anna on box). None of"
    )
    assert "retry" in letter
    assert record.id in letter


def test_a_job_that_failed_without_a_word_gets_a_letter_too() -> None:
    _, letter = letter_for(RECORD, Outcome(status="failed", finished_at=NOW))
    assert "It was not begun." in letter
    assert "Look into job.log." in letter


@pytest.mark.parametrize(
    ("line", "known_by", "cure"),
    [
        ('id = "order 7"', "with the id order 7", "give it another id, or none"),
        ('on_exists = "skip"', "with the same job file and the same pictures", 'set on_exists to "draw"'),
    ],
)
def test_a_job_that_was_sent_before_is_told_how_it_was_known_and_how_to_draw_it_again(
    line: str, known_by: str, cure: str
) -> None:
    record = RECORD.model_copy(update={"requested": job_of(f'prompt = "x"\n{line}')})
    name, letter = letter_for(record, Outcome(status="duplicate", finished_at=NOW, earlier="e1"))
    assert name == "ALREADY-SENT.txt"
    assert f"was sent before {known_by}, and was not run again." in letter
    assert "ends in e1." in letter
    assert cure in letter
