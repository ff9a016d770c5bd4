"""Every example runs, on the real classes, through real folders; every bad one comes back with its complaint."""

import hashlib
import shutil
from pathlib import Path

import pytest
from PIL import Image

from driving import Box, eventually, files_of, read_result
from qwen_image_daemon.outbox.results import JobResult

EXAMPLES = Path(__file__).parents[2] / "jobs_example"
JOBS = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".toml", ".json"})
PLAIN_JOBS = [path for path in JOBS if path.name.startswith("0")]
"""Those that the smallest model can draw, on the real classes."""
HARBOUR = EXAMPLES / "harbour.jpg"
REJECTED = sorted(path for path in (EXAMPLES / "rejected").iterdir() if path.suffix in {".toml", ".json"})


@pytest.mark.parametrize("how", ["processes", pytest.param("inline", marks=pytest.mark.slow)])
def test_every_plain_example_becomes_the_pictures_that_it_asks_for(tiny_box: Box, how: str) -> None:
    with tiny_box.running(*(["--inline"] if how == "inline" else [])) as daemon:
        tiny_box.wait_for_state("idle")
        for path in [*PLAIN_JOBS, HARBOUR]:
            shutil.copy(path, tiny_box.inbox)
        eventually(lambda: len(tiny_box.results()) == len(PLAIN_JOBS), "a result for every example")
        assert daemon.stop() == 0
    assert tiny_box.leftovers() == []
    for result in tiny_box.results():
        folder = tiny_box.folder_of(result)
        assert result.status == "succeeded", (folder / "ERROR.txt").read_text()
        effective = result.effective
        assert effective is not None
        assert len(result.images) == effective.num_images
        for index, image in enumerate(result.images):
            content = (folder / image.file.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == image.file.sha256
            assert image.seed == effective.seed + index
            with Image.open(folder / image.file.path) as picture:
                picture.load()
                assert picture.size == (effective.width, effective.height)
                assert picture.format == effective.output.format.upper()
        named = {file.path for file in result.files} | {image.file.path for image in result.images}
        assert files_of(folder) == named | {"result.json"}
        assert result.job_file is not None
        assert (folder / result.job_file).read_bytes() == (EXAMPLES / result.job_file).read_bytes()
        assert "job.accepted" in (folder / "job.log").read_text()
        assert "job.succeeded" in (folder / "job.log").read_text()


def test_every_example_is_done_where_there_are_models_for_all_tasks(box: Box) -> None:
    box.use_everything()
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, box.inbox)
    assert box.call("run", "--dry-run", "--once").returncode == 0, (box.root / "daemon.log").read_text()
    results = {result.job_file: result for result in box.results()}
    assert {result.status for result in results.values()} == {"succeeded"}
    assert set(results) >= {path.name for path in JOBS}
    for result in results.values():
        effective = result.effective
        assert effective is not None
        for image in result.images:
            assert len(image.layers) == (effective.layers or 0)
            for file in (image.file, *image.layers):
                with Image.open(box.folder_of(result) / file.path) as picture:
                    picture.load()
                    # An edit that comes back in its source's size: harbour.jpg.
                    drawn = (effective.width, effective.height)
                    assert picture.size == ((960, 640) if effective.back_to_source else drawn)
    assert results["14-edit-within-a-mask.toml"].effective.model == "qwen-image-edit"
    assert "negative_prompt had no effect" in "".join(results["23-not-strict.toml"].adjustments)
    assert box.leftovers() == []


FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir() and path.name not in {"rejected", "batches"})


def test_every_example_folder_becomes_the_pictures_that_it_asks_for(box: Box) -> None:
    for folder in FOLDERS:
        shutil.copytree(folder, box.inbox / folder.name)
    assert box.call("run", "--dry-run", "--once").returncode == 0
    found = {result.name: box.folder_of(result) for result in box.results()}
    day = next(iter(found.values())).relative_to(box.outbox).parts[0]
    assert {name: folder.parent.relative_to(box.outbox / day).as_posix() for name, folder in found.items()} == {
        "a-job-folder": ".",
        "harbour": "a-recipe-folder/summer",
    }
    assert files_of(box.inbox) - files_of(box.inbox / ".taken") >= {"a-recipe-folder/recipe.toml"}
    assert not (box.inbox / "a-job-folder").exists()
    assert box.leftovers() == []


JOBS_OF_BATCHES = {
    "three shapes": 3,
    "2-sweep": 6,
    "3-sweep-in-step": 3,
    "4-choices": 5,
    "5-every-choice": 4,
    "6-list": 4,
    "7-table": 2,
    "summer harbour": 2,
}


def test_every_example_with_many_jobs_becomes_all_of_them_and_their_results_lie_together(box: Box) -> None:
    shutil.copytree(EXAMPLES / "batches", box.inbox / "batches")
    assert box.call("run", "--dry-run", "--once").returncode == 0
    batches: dict[str, list[JobResult]] = {}
    for result in box.results():
        assert result.batch is not None
        batches.setdefault(result.batch.name, []).append(result)
    assert {name: len(results) for name, results in batches.items()} == JOBS_OF_BATCHES
    for name, results in batches.items():
        groups = {box.folder_of(result).parent for result in results}
        assert len(groups) == 1, name
        [group] = groups
        origins = [result.batch.origin for result in results if result.batch]
        assert [origin.index for origin in origins if origin] == list(range(1, len(results) + 1))
        # Beside the results lies what was dropped, under a name that is no job's.
        assert any(path.is_file() and not path.name.endswith((".toml", ".json")) for path in group.iterdir())
    assert files_of(box.inbox) - files_of(box.inbox / ".taken") >= {
        "batches/prompts.txt",
        "batches/table.csv",
        "batches/by-picture/recipe.toml",
    }
    assert box.leftovers() == []


def test_every_rejected_example_comes_back_with_exactly_its_complaint(box: Box) -> None:
    for path in (EXAMPLES / "rejected").iterdir():
        if not path.name.endswith(".expected.txt"):
            shutil.copy(path, box.inbox)
    assert box.call("run", "--dry-run", "--once").returncode == 1
    assert len(list(box.failed.iterdir())) == len(REJECTED)
    for folder in box.failed.iterdir():
        result = read_result(folder)
        assert result.status == "refused"
        assert result.job_file is not None
        complaint = (EXAMPLES / "rejected" / f"{result.job_file}.expected.txt").read_text().strip()
        assert complaint in (folder / "ERROR.txt").read_text()
        assert "\n".join(f"{p.where}: {p.what}\n  {p.fix}" for p in result.problems) == complaint
