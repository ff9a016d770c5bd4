"""What a look at the inbox sees, and which names it passes over."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_image_daemon.inbox.listing import MAX_DEPTH, Stamp, list_inbox
from qwen_image_daemon.inbox.names import is_conflict, is_ignored, is_job, kept_name, printable
from qwen_image_daemon.jobs.paths import fault_of_image_path


def test_files_in_folders_are_listed_with_forward_slashes_and_their_stamps(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "job.toml").write_text("x")
    (tmp_path / "top.png").write_bytes(b"")
    listing = list_inbox(tmp_path)
    assert set(listing) == {"a/b/job.toml", "top.png"}
    assert listing["a/b/job.toml"] == Stamp.of((tmp_path / "a" / "b" / "job.toml").stat())


def test_links_and_special_files_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.toml").write_text("x")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "link.toml").symlink_to(tmp_path / "outside" / "secret.toml")
    (inbox / "folder").symlink_to(tmp_path / "outside")
    (inbox / "round").symlink_to(inbox)
    os.mkfifo(inbox / "pipe.toml")
    assert list_inbox(inbox) == {}


def test_an_inbox_that_is_not_there_is_an_error_and_no_empty_inbox(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list_inbox(tmp_path / "gone")


def test_folders_are_looked_into_to_a_limit(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    (deepest / "d").mkdir(parents=True)
    (deepest / "seen.toml").write_text("x")
    (deepest / "d" / "unseen.toml").write_text("x")
    assert set(list_inbox(tmp_path)) == {"d/" * MAX_DEPTH + "seen.toml"}


def test_names_that_are_no_utf8_are_listed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"f\xfcr.toml")).write_text("x")
    [name] = list_inbox(tmp_path)
    assert os.fsencode(name) == b"f\xfcr.toml"
    assert printable(name) == "f%FCr.toml"


@pytest.mark.parametrize(
    "name",
    [
        ".taken",
        ".claims",
        "~$order.toml",
        ".job.toml.Xy12ab",
        "job.toml.part",
        "JOB.TOML.FilePart",
        "job.toml~",
        "Thumbs.DB",
        "@eaDir",
        "ERROR.txt",
        "job.log",
        "late.toml.waiting.txt",
    ],
)
def test_by_products_of_programs_and_our_own_files_are_ignored(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize(
    "name", ["job.toml", "results.json", "error.toml", "part.toml", "für.png", "job.log.toml"]
)
def test_ordinary_names_are_not_ignored(name: str) -> None:
    assert not is_ignored(name)


def test_a_job_is_known_by_its_suffix_without_case() -> None:
    assert [is_job(name) for name in ("a.toml", "b/a.JSON", "a.txt", "toml", "a.png")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"f\xfcr.toml", "f%FCr.toml"),
        (b"new\nline.toml", "new%0Aline.toml"),
        (b"\x1b[31mred\x7f.toml", "%1B[31mred%7F.toml"),
        ("\u009b31m.toml".encode(), "%C2%9B31m.toml"),
        ("\u202elmot.toml".encode(), "%E2%80%AElmot.toml"),
        ("a/ü 🐈.toml".encode(), "a/ü 🐈.toml"),
    ],
)
def test_a_name_is_written_down_so_that_it_steers_nothing(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown
    assert kept_name(os.fsdecode(name)) == shown.rpartition("/")[2]


@pytest.mark.parametrize("letter", [b"\xff", b"\n", b"x", "ü".encode(), "🐈".encode()])
def test_a_name_of_any_length_is_kept_under_one_that_file_systems_take(tmp_path: Path, letter: bytes) -> None:
    name = os.fsdecode(letter * (250 // len(letter)) + b".toml")
    (tmp_path / name).write_text("x")
    kept = kept_name(f"folder/{name}")
    (tmp_path / kept).write_text("x")
    assert kept.endswith(".toml")
    assert len(kept.encode()) > 240
    assert kept_name(kept) == kept


# Name by name what is ignored, with an example of what each pattern stands for.
BY_PRODUCTS = {
    "leading dot": ".hidden.toml",
    "leading tilde": "~job.toml",
    "._*": "._job.toml",
    ".DS_Store": ".DS_Store",
    "Thumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    "~$*": "~$job.toml",
    ".~lock.*#": ".~lock.job.toml#",
    "*.part": "job.toml.part",
    "*.partial": "job.toml.partial",
    "*.filepart": "job.toml.filepart",
    "*.crdownload": "job.toml.crdownload",
    "*.download": "job.toml.download",
    "*.tmp": "job.toml.tmp",
    "*.swp": "job.toml.swp",
    ".syncthing.*.tmp": ".syncthing.job.toml.tmp",
    "~syncthing~*.tmp": "~syncthing~job.toml.tmp",
    "rsync's .name.XXXXXX": ".job.toml.Ab3dEf",
    "rsync's .~tmp~/": ".~tmp~",
    ".nfs*": ".nfs000000000123abcd00000001",
    ".fuse_hidden*": ".fuse_hidden0000001200000001",
    ".goutputstream-*": ".goutputstream-ABC123",
    "@eaDir": "@eaDir",
    "#recycle": "#recycle",
    ".stfolder": ".stfolder",
    ".stversions": ".stversions",
    ".TemporaryItems": ".TemporaryItems",
    ".Trashes": ".Trashes",
    "__MACOSX": "__MACOSX",
}


@pytest.mark.parametrize(
    "spelt", [str, str.upper, str.lower, str.swapcase], ids=["as it is", "upper", "lower", "swap"]
)
@pytest.mark.parametrize("pattern", BY_PRODUCTS)
def test_every_by_product_of_other_programs_is_passed_over_without_case(
    tmp_path: Path, pattern: str, spelt: Callable[[str], str]
) -> None:
    name = spelt(BY_PRODUCTS[pattern])
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / name).write_text('prompt = "x"')
    (tmp_path / "folder" / name).mkdir(parents=True)
    (tmp_path / "folder" / name / "job.toml").write_text('prompt = "x"')
    assert list_inbox(tmp_path) == {}
    # Nor may a job name a picture there.
    assert fault_of_image_path(f"{name}/boat.png") is not None


@pytest.mark.parametrize("spelt", [str, str.upper, str.lower])
def test_a_copy_that_syncthing_could_not_merge_is_never_a_job(spelt: Callable[[str], str]) -> None:
    name = spelt("job.sync-conflict-20260101-101010-ABCDEFG.toml")
    assert is_ignored(name) or not is_job(name)
    assert fault_of_image_path(spelt("boat.sync-conflict-20260101-101010-ABCDEFG.png")) is not None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("job.sync-conflict-20260101-101010-ABC.toml", True),
        ("Boat.SYNC-CONFLICT-20260101-101010-ABC.PNG", True),
        ("job.sync-conflict-20260101-101010-ABC.toml.tmp", False),
        (".syncthing.job.sync-conflict-20260101-101010-ABC.toml", False),
        ("job.toml", False),
    ],
)
def test_a_copy_that_could_not_be_merged_is_told_and_others_that_are_on_their_way_are_not(
    name: str, *, told: bool
) -> None:
    assert is_conflict(name) is told
