"""A checkpoint is held against a list of its files' hashes, which are read once and remembered."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from qwen_image_daemon.render.checksums import CHECKSUMS, HASHED_FILES, KnownHashes, verified
from qwen_image_daemon.render.renderer import Loading, ModelUnavailable

WEIGHTS, CONFIG = Path("vae/model.safetensors"), Path("vae/config.json")
LONG_AGO = 1_700_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with two files that were written long ago."""
    folder = tmp_path / "checkpoint"
    (folder / "vae").mkdir(parents=True)
    write(folder / WEIGHTS, b"weights" * 1_000)
    write(folder / CONFIG, b"{}")
    return folder


def write(file: Path, content: bytes, moment: int = LONG_AGO) -> None:
    file.write_bytes(content)
    os.utime(file, (moment, moment))


def line_of(folder: Path, name: Path, separator: str = "  ") -> str:
    return f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}{separator}{name}\n"


def list_all(folder: Path, place: Path) -> Path:
    place.write_text(line_of(folder, WEIGHTS) + line_of(folder, CONFIG), encoding="utf-8")
    return place


def told_of(
    folder: Path, listed: Path | None = None, state: Path | None = None
) -> tuple[str | None, list[Loading]]:
    told: list[Loading] = []
    found = verified(folder, listed, [folder / WEIGHTS], KnownHashes(state), told.append)
    return found, told


def refusal(folder: Path, listed: Path | None = None, state: Path | None = None) -> str:
    with pytest.raises(ModelUnavailable) as refused:
        told_of(folder, listed, state)
    assert refused.value.fix
    return str(refused.value)


def test_without_a_list_nothing_is_read(folder: Path) -> None:
    assert told_of(folder) == (None, [])


def test_a_list_in_the_folder_is_used_by_itself(folder: Path) -> None:
    listed = list_all(folder, folder / CHECKSUMS)

    found, told = told_of(folder)

    assert found == f"2 files, 0.00 GB, as {listed} lists them"
    assert (told[0].done_bytes, told[0].total_bytes) == (0, 7_002)
    assert told[-1].done_bytes == 7_002
    assert {loading.stage for loading in told} == {"verify"}


def test_the_settings_may_name_a_list_elsewhere_or_in_the_folder(folder: Path, tmp_path: Path) -> None:
    elsewhere = list_all(folder, tmp_path / "list.sha256")
    list_all(folder, folder / "own.txt")

    assert told_of(folder, elsewhere)[0] == f"2 files, 0.00 GB, as {elsewhere} lists them"
    assert told_of(folder, Path("own.txt"))[0] == f"2 files, 0.00 GB, as {folder / 'own.txt'} lists them"


def test_what_sha256sum_writes_is_read(folder: Path) -> None:
    text = (
        line_of(folder, WEIGHTS, " *")
        + "\n"
        + line_of(folder, CONFIG).replace("  ", "  ./").upper().replace("VAE/CONFIG.JSON", "vae/config.json")
    )
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")

    assert told_of(folder)[0] is not None


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_what_the_cure_makes_is_a_list(folder: Path) -> None:
    assert os.system(f"cd '{folder}' && find . -type f | xargs sha256sum > /tmp/$$ && mv /tmp/$$ {CHECKSUMS}") == 0  # noqa: S605

    assert told_of(folder)[0] is not None


def test_an_altered_file_is_named_with_both_hashes(folder: Path) -> None:
    list_all(folder, folder / CHECKSUMS)
    listed = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    write(folder / WEIGHTS, b"weighty" * 1_000)
    found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()

    told = refusal(folder)
    assert str(folder / WEIGHTS) in told
    assert found in told
    assert listed in told


def test_a_missing_file_is_named(folder: Path) -> None:
    list_all(folder, folder / CHECKSUMS)
    (folder / CONFIG).unlink()

    assert refusal(folder) == f"{folder / CONFIG} is missing."


def test_weights_that_are_not_listed_are_refused_with_the_command_that_lists_them(folder: Path) -> None:
    (folder / CHECKSUMS).write_text(line_of(folder, CONFIG), encoding="utf-8")

    with pytest.raises(ModelUnavailable, match="is not listed") as refused:
        told_of(folder)
    assert refused.value.fix.endswith(f"cd {folder} && sha256sum {WEIGHTS}")


def test_a_list_that_the_settings_name_must_be_there(folder: Path, tmp_path: Path) -> None:
    assert "cannot be read" in refusal(folder, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("hello", "line 2, is no hash of a file"),
        (f"{'0' * 63}  vae/config.json", "line 2, is no hash of a file"),
        (f"{'0' * 64}", "line 2, is no hash of a file"),
        (f"{'0' * 64}  ../../etc/passwd", "line 2, names ../../etc/passwd, which leads out"),
        (f"{'0' * 64}  /etc/passwd", "line 2, names /etc/passwd, which leads out"),
    ],
)
def test_a_line_that_is_none_is_named(folder: Path, line: str, complaint: str) -> None:
    (folder / CHECKSUMS).write_text(line_of(folder, WEIGHTS) + line, encoding="utf-8")

    assert complaint in refusal(folder)


def test_an_empty_list_is_no_list(folder: Path) -> None:
    (folder / CHECKSUMS).write_text("\n", encoding="utf-8")

    with pytest.raises(ModelUnavailable, match="is empty"):
        verified(folder, None, [], KnownHashes(None), lambda _: None)


def test_what_was_read_once_is_not_read_again(folder: Path, tmp_path: Path) -> None:
    list_all(folder, folder / CHECKSUMS)
    _, first = told_of(folder, state=tmp_path)
    _, second = told_of(folder, state=tmp_path)

    assert first[0].total_bytes == 7_002
    assert [(loading.done_bytes, loading.total_bytes) for loading in second] == [(0, 0)]


@pytest.mark.parametrize("moment", [LONG_AGO, LONG_AGO + 1])
def test_a_file_that_was_replaced_is_read_again(folder: Path, tmp_path: Path, moment: int) -> None:
    """Even with the same size and the same time: it has another inode."""
    list_all(folder, folder / CHECKSUMS)
    told_of(folder, state=tmp_path)
    write(folder / "new", b"weighty" * 1_000, moment)
    (folder / "new").replace(folder / WEIGHTS)

    assert "was altered or is broken" in refusal(folder, state=tmp_path)


def test_a_file_that_was_written_just_now_is_read_again_the_next_time(folder: Path, tmp_path: Path) -> None:
    """Another write within the same tick of the clock would leave its time as it is."""
    list_all(folder, folder / CHECKSUMS)
    (folder / CONFIG).write_bytes(b"{}")
    told_of(folder, state=tmp_path)
    _, second = told_of(folder, state=tmp_path)

    assert second[0].total_bytes == 2


def test_files_that_are_gone_are_forgotten(folder: Path, tmp_path: Path) -> None:
    list_all(folder, folder / CHECKSUMS)
    told_of(folder, state=tmp_path)
    (folder / CONFIG).unlink()
    (folder / CHECKSUMS).write_text(line_of(folder, WEIGHTS), encoding="utf-8")
    told_of(folder, state=tmp_path)

    remembered = (tmp_path / HASHED_FILES).read_text(encoding="utf-8")
    assert WEIGHTS.name in remembered
    assert CONFIG.name not in remembered


def test_a_broken_memory_of_hashes_means_that_all_is_read(folder: Path, tmp_path: Path) -> None:
    list_all(folder, folder / CHECKSUMS)
    (tmp_path / HASHED_FILES).write_bytes(b"{oops")

    assert told_of(folder, state=tmp_path)[1][0].total_bytes == 7_002


def test_the_list_counts_and_not_what_is_remembered_of_it(folder: Path, tmp_path: Path) -> None:
    """The hash of a file is remembered, not that it was right."""
    list_all(folder, folder / CHECKSUMS)
    told_of(folder, state=tmp_path)
    other = f"{'0' * 64}  {WEIGHTS}\n"
    (folder / CHECKSUMS).write_text(other, encoding="utf-8")

    assert "was altered or is broken" in refusal(folder, state=tmp_path)
