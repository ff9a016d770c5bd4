"""Files with weights are read beside whoever loads them, where there is room, and how far that is is told."""

import os
from pathlib import Path
from threading import Event

import pytest

from qwen_image_daemon.render.reading_ahead import ReadingAhead, reading_ahead
from qwen_image_daemon.render.renderer import Loading, ModelUnavailable, RenderStopped

PIECE = 8 << 20
TOTAL = PIECE + 15
ARRANGE = Loading("arrange")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    """Give files that are longer and shorter than a piece, and an empty one."""
    sizes = {"transformer": (PIECE + 5, 7), "vae": (3, 0)}
    found: dict[str, list[Path]] = {}
    for component, lengths in sizes.items():
        for number, length in enumerate(lengths):
            path = tmp_path / f"{component}-{number}"
            path.write_bytes(b"w" * length)
            found.setdefault(component, []).append(path)
    return found


def wait_for_all(ahead: ReadingAhead) -> None:
    for piece in ahead._pieces:
        piece.result()


def test_all_bytes_of_all_files_are_told_with_component_and_file(files: dict[str, list[Path]]) -> None:
    told: list[Loading] = []

    with reading_ahead(files, 100 * PIECE, told.append) as ahead:
        wait_for_all(ahead)

    assert {(loading.stage, loading.total_bytes) for loading in told} == {("read", TOTAL)}
    assert max(loading.done_bytes for loading in told) == TOTAL
    assert {loading.part for loading in told} == {
        None,
        "transformer, file 1 of 2",
        "transformer, file 2 of 2",
        "vae, file 1 of 2",
    }


def test_what_comes_afterwards_is_told_when_everything_is_in_memory_and_not_before(
    files: dict[str, list[Path]],
) -> None:
    told: list[Loading] = []
    gate = Event()

    def slowly(loading: Loading) -> None:
        if loading.stage == "read" and loading.done_bytes:
            gate.wait(60)
        told.append(loading)

    with reading_ahead(files, 100 * PIECE, slowly) as ahead:
        ahead.afterwards(ARRANGE)
        assert ARRANGE not in told
        gate.set()
        wait_for_all(ahead)
        ahead.look()

    assert told[-1] == ARRANGE


def test_files_that_would_push_each_other_out_of_memory_are_left_alone_and_loading_still_says_where_it_is(
    files: dict[str, list[Path]],
) -> None:
    told: list[Loading] = []

    with reading_ahead(files, PIECE, told.append) as ahead:
        ahead.look()
        ahead.afterwards(ARRANGE)

    assert told == [Loading("read"), ARRANGE]


def test_a_stop_ends_the_reading_and_the_loading_and_counts_more_than_what_followed_from_it(
    files: dict[str, list[Path]],
) -> None:
    told: list[Loading] = []

    def stop(loading: Loading) -> None:
        told.append(loading)
        if loading.done_bytes:
            raise RenderStopped

    def load() -> None:
        with reading_ahead(files, 100 * PIECE, stop) as ahead:
            wait_for_all(ahead)
            with pytest.raises(RenderStopped):
                ahead.look()
            raise ValueError

    with pytest.raises(RenderStopped):
        load()


def test_nothing_is_read_any_more_when_the_loading_has_failed(files: dict[str, list[Path]]) -> None:
    gate = Event()
    told: list[Loading] = []

    def slowly(loading: Loading) -> None:
        if loading.done_bytes:
            gate.wait(60)
        told.append(loading)

    many = {"transformer": files["transformer"] * 20}

    def load() -> None:
        with reading_ahead(many, 1000 * PIECE, slowly) as ahead:
            ahead.leave()
            gate.set()
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        load()
    # Four threads were at their first piece.
    assert 1 < len(told) <= 1 + 4


def test_a_file_that_cannot_be_read_is_named_instead_of_killing_who_maps_it(
    files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torn media: nothing of a disk can make them on demand, so the system's answer is put in."""

    def torn(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "sendfile", torn)
    monkeypatch.setattr("pathlib.Path.open", torn)
    told: list[Loading] = []

    with (
        pytest.raises(ModelUnavailable, match=r"transformer-1 cannot be read: .*Input/output error") as failure,
        reading_ahead({"transformer": files["transformer"][1:]}, 100 * PIECE, told.append) as ahead,
    ):
        wait_for_all(ahead)

    assert "dmesg" in failure.value.fix
    assert max(loading.done_bytes for loading in told) == 0


def test_a_system_that_sends_files_to_nothing_but_sockets_reads_them_plainly(
    files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(38, "Socket operation on non-socket")

    monkeypatch.setattr(os, "sendfile", refused)
    told: list[Loading] = []

    with reading_ahead(files, 100 * PIECE, told.append) as ahead:
        wait_for_all(ahead)

    assert max(loading.done_bytes for loading in told) == TOTAL
