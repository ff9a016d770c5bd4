"""Who takes a drop: exactly one."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from qwen_image_daemon.inbox.claims import CLAIMS, Claim, Claims


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    Claims.prepare(tmp_path)
    return Claims(tmp_path, "us")


def test_of_many_that_claim_at_once_exactly_one_wins(claims: Claims) -> None:
    together = Barrier(8)

    def claim(number: int) -> Claim | None:
        together.wait()
        return claims.claim("job.toml", "job.toml", f"id-{number}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(claim, range(8)))
    assert answers.count(None) == 1


def test_the_second_claimant_learns_who_was_first(claims: Claims) -> None:
    assert claims.claim("job.toml", "job.toml", "id-1") is None
    first = claims.claim("job.toml", "job.toml", "id-2")
    assert first is not None
    assert (first.job_id, first.path, first.host) == ("id-1", "job.toml", socket.gethostname())


def test_a_released_drop_can_be_claimed_again(claims: Claims) -> None:
    assert claims.claim("job.toml", "job.toml", "id-1") is None
    claims.release("job.toml")
    claims.release("job.toml")
    assert claims.claim("job.toml", "job.toml", "id-2") is None


def test_claims_of_this_spool_are_found_after_a_restart_and_others_are_not(tmp_path: Path, claims: Claims) -> None:
    claims.claim("mine.toml", "mine.toml", "id-1")
    claims.claim("theirs.toml", "theirs.toml", "id-2")
    foreign = next(file for file in (tmp_path / CLAIMS).iterdir() if b"theirs" in file.read_bytes())
    other = Claim.model_validate_json(foreign.read_bytes()).model_copy(update={"owner": "them"})
    foreign.write_bytes(other.to_bytes())
    assert [claim.path for claim in Claims(tmp_path, "us").ours()] == ["mine.toml"]


@pytest.mark.parametrize("content", [b"", b'{"host": "box', b"\0" * 300])
def test_a_torn_claim_counts_until_it_is_dropped(tmp_path: Path, claims: Claims, content: bytes) -> None:
    claims.claim("job.toml", "job.toml", "id-1")
    [file] = (tmp_path / CLAIMS).iterdir()
    file.write_bytes(content)
    unknown = claims.claim("job.toml", "job.toml", "id-2")
    assert unknown is not None
    assert unknown.host == "unknown"
    assert claims.ours() == []
    claims.drop_torn()
    assert claims.claim("job.toml", "job.toml", "id-2") is None


@pytest.mark.parametrize("path", ["ä" * 120 + ".toml", "a/" * 100 + "b.toml", os.fsdecode(b"\xff\n%41.toml")])
def test_any_path_can_be_claimed_and_is_given_back_as_it_was(claims: Claims, path: str) -> None:
    assert claims.claim(path, path, "id-1") is None
    assert [claim.path for claim in claims.ours()] == [path]


def test_a_claim_that_cannot_be_written_is_an_error_and_no_claim(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Claims(tmp_path / "gone", "us").claim("job.toml", "job.toml", "id-1")
