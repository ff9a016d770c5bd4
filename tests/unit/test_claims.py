"""Who takes a drop: exactly one."""

import json
import os
import socket
from collections.abc import Callable
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


@pytest.mark.parametrize(
    "change",
    [
        {"quoted_path": "../../etc"},
        {"quoted_path": "/etc"},
        {"quoted_path": "a/%2e%2e/b"},
        {"quoted_witness": "a%00b"},
        {"quoted_path": ""},
        {"owner": "../us"},
        {"owner": "a\0b"},
        {"job_id": "../../queue"},
        {"host": "\x1b[31mbox"},
    ],
    ids=str,
)
def test_a_forged_claim_leads_nowhere(tmp_path: Path, claims: Claims, change: dict[str, str]) -> None:
    claims.claim("job.toml", "job.toml", "id-1")
    [file] = (tmp_path / CLAIMS).iterdir()
    file.write_text(json.dumps(json.loads(file.read_bytes()) | change))
    assert claims.ours() == []
    assert claims.break_stale(now=0.0) == []


def into_pipe(path: Path) -> None:
    os.mkfifo(path)


def into_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def into_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("trap", [into_pipe, into_link, into_large_file, Path.mkdir])
def test_what_is_no_claim_holds_nobody_up(tmp_path: Path, claims: Claims, trap: Callable[[Path], None]) -> None:
    claims.claim("job.toml", "job.toml", "id-1")
    [file] = (tmp_path / CLAIMS).iterdir()
    file.unlink()
    trap(file)
    trap(tmp_path / CLAIMS / "them.alive")
    trap(tmp_path / CLAIMS / "more.json")
    first = claims.claim("job.toml", "job.toml", "id-2")
    assert first is not None
    assert first.host == "unknown"
    assert claims.ours() == []
    claims.break_stale(now=0.0)
    claims.drop_torn()
    if trap != Path.mkdir:
        assert claims.claim("job.toml", "job.toml", "id-2") is None


def test_the_sign_of_life_follows_no_link_and_waits_for_no_reader(tmp_path: Path, claims: Claims) -> None:
    for make in (into_pipe, lambda path: path.symlink_to(tmp_path / "outside")):
        make(tmp_path / CLAIMS / ".us.alive.tmp")
        claims.show_life()
    assert not (tmp_path / "outside").exists()
    assert (tmp_path / CLAIMS / "us.alive").is_file()
