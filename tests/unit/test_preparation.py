"""What must be true before the daemon begins."""

from pathlib import Path

import pytest

import qwen_image_daemon
from qwen_image_daemon.service.preparation import Unready, check_ready
from qwen_image_daemon.settings import ModelSettings, Settings


def settings(root: Path, **more: object) -> Settings:
    return Settings.model_validate({"root": root, **more})


def test_the_default_folders_are_fine(tmp_path: Path) -> None:
    check_ready(settings(tmp_path), dry_run=True)


@pytest.mark.parametrize(
    ("inbox", "spool", "outbox"),
    [
        ("a", "a", "b"),
        ("a", "a/spool", "b"),
        ("a", "b", "a/../a/out"),
        ("a/b/c", "spool", "a"),
        ("a", "b", "link-to-a/out"),
    ],
)
def test_folders_inside_one_another_are_refused(tmp_path: Path, inbox: str, spool: str, outbox: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link-to-a").symlink_to(tmp_path / "a")
    wrong = settings(
        tmp_path,
        inbox_folder=tmp_path / inbox,
        spool_folder=tmp_path / spool,
        outbox_folder=tmp_path / outbox,
    )
    with pytest.raises(Unready, match="Give each a place of its own"):
        check_ready(wrong, dry_run=True)


def test_the_program_itself_is_no_place_for_folders(tmp_path: Path) -> None:
    program = Path(qwen_image_daemon.__file__).parent
    with pytest.raises(Unready, match="program"):
        check_ready(settings(tmp_path, inbox_folder=program / "inbox"), dry_run=True)


def test_a_checkpoint_folder_that_is_not_there_is_told_before_the_start(tmp_path: Path) -> None:
    models = {"mine": ModelSettings(source=str(tmp_path / "none"))}
    wrong = settings(tmp_path, models=models, default_model="mine")
    with pytest.raises(Unready, match=r"Model mine: .*none holds no model_index.json.*\[models.mine\].*--model"):
        check_ready(wrong, dry_run=False)
    check_ready(wrong, dry_run=True)


def test_a_checkpoint_folder_that_is_there_and_a_hub_name_are_fine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    for source in (str(tmp_path / "model"), "Qwen/Qwen-Image"):
        models = {"mine": ModelSettings(source=source)}
        check_ready(settings(tmp_path, models=models, default_model="mine"), dry_run=False)
