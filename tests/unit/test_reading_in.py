"""Files with weights are read in before they are mapped, where there is room, and how far that is is told."""

from pathlib import Path

import pytest

from qwen_image_daemon.render.reading_in import read_in
from qwen_image_daemon.render.renderer import Loading, RenderStopped

PIECE = 8 << 20


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


def test_all_bytes_of_all_files_are_told_with_component_and_file(files: dict[str, list[Path]]) -> None:
    told: list[Loading] = []

    read_in(files, 100 * PIECE, told.append)

    total = PIECE + 15
    assert {(loading.stage, loading.total_bytes) for loading in told} == {("read", total)}
    assert max(loading.done_bytes for loading in told) == total
    assert {loading.part for loading in told} == {
        None,
        "transformer, file 1 of 2",
        "transformer, file 2 of 2",
        "vae, file 1 of 2",
    }


def test_files_that_would_push_each_other_out_of_memory_are_left_alone(files: dict[str, list[Path]]) -> None:
    told: list[Loading] = []

    read_in(files, PIECE, told.append)

    assert told == []


def test_a_stop_ends_the_reading(files: dict[str, list[Path]]) -> None:
    def stop(_: Loading) -> None:
        raise RenderStopped

    with pytest.raises(RenderStopped):
        read_in(files, 100 * PIECE, stop)


def test_a_file_that_goes_away_is_left_to_those_who_need_it(
    files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", refused)
    told: list[Loading] = []

    read_in(files, 100 * PIECE, told.append)

    assert max(loading.done_bytes for loading in told) == PIECE + 15
