"""A loop killed at each of the named points: every job comes out once, as if nothing had been."""

import pytest

from driving import Box
from qwen_image_daemon.crash_points import CRASH_AT, CRASH_LEDGER
from torture.points import listed_points

SMALL = "width = 64\nheight = 64\nnum_inference_steps = 2\n"
JOBS = {"three": f'prompt = "x"\nnum_images = 3\nseed = 7\n{SMALL}', "one": f'prompt = "y"\nseed = 5\n{SMALL}'}
BATCH = 'prompt = "z"\nnum_inference_steps = 2\nwidth = 64\nheight = 64\n[matrix]\nseed = [3, 5, 8]\n'
NAMES = [*JOBS, "batch-1", "batch-2", "batch-3"]
OFTEN = {"take-in.handed-over", "render.image-written"}
"""The ordinary suite has a kill at each of the others in test_torture_kills.py; these come with `make slow`."""


def drawn(box: Box) -> dict[str, bytes]:
    """Draw all jobs with a daemon, stop it, and give the pictures by name."""
    for name, text in JOBS.items():
        box.drop(f"{name}.toml", text)
    box.drop("batch.toml", BATCH)
    with box.running("--dry-run") as daemon:
        folders = [box.folder_of(box.result(name)) for name in NAMES]
        assert daemon.stop() == 0
    assert len(box.results()) == len(NAMES)
    assert box.leftovers() == []
    assert list((box.spool / "control").iterdir()) == []
    return {path.name: path.read_bytes() for folder in folders for path in folder.glob("*.png")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return drawn(Box(tmp_path_factory.mktemp("undisturbed") / "box"))


@pytest.mark.parametrize(
    "point",
    [pytest.param(point, marks=() if point in OFTEN else pytest.mark.slow) for point in listed_points()],
)
def test_a_kill_at_a_named_point_changes_nothing_of_what_comes_out(
    box: Box, point: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = box.root / "kills"
    monkeypatch.setenv(CRASH_AT, point)
    monkeypatch.setenv(CRASH_LEDGER, str(ledger))
    assert drawn(box) == undisturbed
    assert ledger.read_text().split() == [point]
    assert {result.status for result in box.results()} == {"succeeded"}
