"""A folder that may be a dead share's bare mount point: touched only if it is certain that it is the real one."""

import json
import shutil
from pathlib import Path

import pytest

from qwen_image_daemon.spool.mounts import Mount, mount_among, mount_of
from qwen_image_daemon.spool.places import GONE_SECONDS, MARKER, Away, Place
from qwen_image_daemon.spool.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "share" / "inbox"


def was_on_another_file_system(spool: Spool) -> None:
    """Do as if the place had been set up while a share was mounted there."""
    file = spool.state / "inbox.place.json"
    known = json.loads(file.read_bytes())
    share = Mount(point=known["folder"], type="cifs", source="//server/share")
    file.write_text(json.dumps({**known, "mount": share.model_dump()}))


def test_a_new_place_is_made_and_marked(spool: Spool, inbox: Path) -> None:
    Place("inbox", inbox, spool).enter()
    assert [path.name for path in inbox.iterdir()] == [MARKER]


def test_a_folder_without_its_marker_on_another_file_system_is_left_alone(spool: Spool, inbox: Path) -> None:
    Place("inbox", inbox, spool).enter()
    (inbox / MARKER).unlink()
    was_on_another_file_system(spool)
    for _ in range(2):
        with pytest.raises(Away, match=r"the share is away: before, //server/share was mounted at .*/share/inbox"):
            Place("inbox", inbox, spool).enter()
    assert list(inbox.iterdir()) == []
    inbox.rmdir()
    with pytest.raises(Away):
        Place("inbox", inbox, spool).enter()
    assert not inbox.exists()


def test_a_share_that_comes_back_is_entered_wherever_it_is_mounted_from(spool: Spool, inbox: Path) -> None:
    place = Place("inbox", inbox, spool)
    place.enter()
    was_on_another_file_system(spool)
    place = Place("inbox", inbox, spool)
    place.enter()
    (inbox / MARKER).unlink()
    # What it is mounted from now is what counts from now on.
    Place("inbox", inbox, spool).enter()
    assert (inbox / MARKER).exists()


def test_a_person_may_mark_the_folder(spool: Spool, inbox: Path) -> None:
    Place("inbox", inbox, spool).enter()
    (inbox / MARKER).unlink()
    was_on_another_file_system(spool)
    (inbox / MARKER).touch()
    Place("inbox", inbox, spool).enter()


def test_a_folder_that_was_emptied_on_the_same_file_system_is_set_up_again(spool: Spool, inbox: Path) -> None:
    place = Place("inbox", inbox, spool)
    place.enter()
    shutil.rmtree(inbox)
    inbox.mkdir()
    place.enter()
    assert (inbox / MARKER).exists()


def test_a_folder_that_is_gone_is_waited_for_before_it_is_made_anew(spool: Spool, inbox: Path) -> None:
    now = [100.0]
    place = Place("inbox", inbox, spool, clock=lambda: now[0])
    place.enter()
    inbox.rename(inbox.with_name("moved"))
    for now[0] in (200.0, 200.0 + GONE_SECONDS - 1):
        with pytest.raises(Away, match="is gone"):
            place.enter()
    inbox.with_name("moved").rename(inbox)
    place.enter()
    shutil.rmtree(inbox)
    now[0] = 300.0
    with pytest.raises(Away):
        place.enter()
    now[0] = 300.0 + GONE_SECONDS
    place.enter()
    assert (inbox / MARKER).exists()


def test_another_folder_than_before_is_set_up_as_a_new_one(spool: Spool, inbox: Path) -> None:
    Place("inbox", inbox, spool).enter()
    was_on_another_file_system(spool)
    Place("inbox", inbox.with_name("elsewhere"), spool).enter()


@pytest.mark.parametrize(
    ("line", "path", "mount"),
    [
        (
            "36 35 98:0 / /mnt/my\\040share rw - cifs //nas/a\\040b rw",
            "/mnt/my share/in",
            ("/mnt/my share", "cifs", "//nas/a b"),
        ),
        (
            "36 35 0:9 / /srv/x rw shared:1 master:2 - fuse.sshfs host:/x rw",
            "/srv/x",
            ("/srv/x", "fuse.sshfs", "host:/x"),
        ),
        ("36 35 0:9 / /srv/x rw - fuseblk /dev/sdb1 rw", "/srv/x/y", ("/srv/x", "fuseblk", "/dev/sdb1")),
        ("36 35 0:9 / /srv/x rw - nfs4 host:/x rw", "/srv/xy", ("/", "ext4", "/dev/root")),
    ],
)
def test_the_mount_of_a_path_is_read_from_the_kernels_list(
    line: str, path: str, mount: tuple[str, str, str]
) -> None:
    found = mount_among(["1 0 8:1 / / rw - ext4 /dev/root rw", line], Path(path))
    assert (found.point, found.type, found.source) == mount
    assert found.is_shared is (mount[1] in {"cifs", "fuse.sshfs"})


def test_the_later_of_two_mounts_over_one_point_counts() -> None:
    lines = ["1 0 8:1 / / rw - ext4 old rw", "2 0 8:1 / / rw - xfs new rw"]
    assert mount_among(lines, Path("/x")).source == "new"


def test_the_kernel_is_asked_for_the_mount_of_a_path() -> None:
    assert mount_of(Path("/proc/self")) == Mount(point="/proc", type="proc", source="proc")
