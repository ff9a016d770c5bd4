"""Which files of a listing become which jobs."""

import pytest

from qwen_image_daemon.inbox.drops import Drop, sort_out


def drops(*paths: str) -> set[tuple[str, str, str]]:
    return {(drop.kind, drop.path, drop.job_file) for drop in sort_out(paths).drops}


def test_a_job_file_is_a_drop_and_its_pictures_are_none() -> None:
    assert drops("a.toml", "x/b.json", "x/boat.png", "notes.txt") == {
        ("file", "a.toml", "a.toml"),
        ("file", "x/b.json", "x/b.json"),
    }


def test_a_folder_whose_only_job_file_is_called_job_is_one_drop() -> None:
    paths = ("order/job.toml", "order/boat.png", "order/more/sea.png", "other.toml")
    assert drops(*paths) == {("folder", "order", "order/job.toml"), ("file", "other.toml", "other.toml")}
    assert sort_out(paths).members == {"order": ("order/boat.png", "order/job.toml", "order/more/sea.png")}


@pytest.mark.parametrize("result", ["result.json", "RESULT.JSON"])
def test_a_result_folder_that_comes_back_is_one_drop(result: str) -> None:
    folder = "failed/boat-20260101-120000-000-c0ffee"
    assert drops(f"{folder}/boat.toml", f"{folder}/{result}", f"{folder}/sea.png") == {
        ("folder", folder, f"{folder}/boat.toml")
    }


def test_a_result_folder_that_comes_back_into_a_recipe_folder_is_one_drop() -> None:
    folder = "sepia/sea-20260101-120000-000-c0ffee"
    assert drops("sepia/recipe.toml", f"{folder}/sea.toml", f"{folder}/result.json", f"{folder}/sea-1.png") == {
        ("folder", folder, f"{folder}/sea.toml")
    }


def test_two_job_files_make_no_job_folder() -> None:
    assert drops("order/job.toml", "order/other.toml") == {
        ("file", "order/job.toml", "order/job.toml"),
        ("file", "order/other.toml", "order/other.toml"),
    }


def test_the_inbox_itself_is_no_job_folder() -> None:
    assert drops("job.toml", "result.json") == {("file", "job.toml", "job.toml")}


def test_the_outermost_job_folder_counts() -> None:
    assert drops("a/job.toml", "a/b/job.toml", "a/b/x.png") == {("folder", "a", "a/job.toml")}


def test_pictures_in_a_recipe_folder_and_below_it_are_drops_of_the_nearest_recipe() -> None:
    assert drops(
        "sepia/recipe.toml", "sepia/1.png", "sepia/holiday/2.JPG", "sepia/soft/recipe.json", "sepia/soft/a/3.webp"
    ) == {
        ("picture", "sepia/1.png", "sepia/recipe.toml"),
        ("picture", "sepia/holiday/2.JPG", "sepia/recipe.toml"),
        ("picture", "sepia/soft/a/3.webp", "sepia/soft/recipe.json"),
    }


def test_a_job_file_in_a_recipe_folder_is_out_of_place() -> None:
    assert drops("sepia/recipe.toml", "sepia/job.toml", "sepia/x.txt") == {
        ("misplaced", "sepia/job.toml", "sepia/job.toml")
    }


@pytest.mark.parametrize(
    ("drop", "folder", "title"),
    [
        (Drop("file", "boat.toml", "boat.toml"), "", "boat"),
        (Drop("file", "a/b/boat.toml", "a/b/boat.toml"), "a/b", "boat"),
        (Drop("folder", "a/order 7", "a/order 7/job.toml"), "a", "order 7"),
        (Drop("folder", "boat-20260101", "boat-20260101/boat.toml"), "", "boat"),
        (Drop("picture", "sepia/sea.png", "sepia/recipe.toml"), "sepia", "sea"),
    ],
)
def test_a_drop_knows_where_it_lay_and_what_to_be_called(drop: Drop, folder: str, title: str) -> None:
    assert (drop.folder, drop.title) == (folder, title)
