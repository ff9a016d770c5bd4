import pytest

from qwen_image_daemon.jobs.paths import fault_of_image_path, is_ignored_name


@pytest.mark.parametrize(
    "path",
    ["a.png", "a.JPG", "sub/folder/a b.jpeg", "größe/图片.webp", "a..b.png", "a.part.png", "-a.png", "🦊.png"],
)
def test_a_plain_path_below_the_job_file_is_fine(path: str) -> None:
    assert fault_of_image_path(path) is None


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/etc/a.png", "absolute path"),
        ("//server/share/a.png", "network path"),
        ("\\\\server\\share\\a.png", "network path"),
        ("C:\\a.png", "a drive"),
        ("c:a.png", "a drive"),
        ("sub\\a.png", "not a backslash"),
        ("https://example.org/a.png", "fetches nothing"),
        ("file:///a.png", "fetches nothing"),
        ("a.png:stream", "no colon"),
        ("../a.png", "leads out"),
        ("sub/../a.png", "leads out"),
        ("./a.png", "needless dot"),
        ("sub//a.png", "missing"),
        ("sub/ /a.png", "missing"),
        ("sub/", "missing"),
        (".hidden/a.png", "passes over"),
        (".a.png", "passes over"),
        ("~a.png", "passes over"),
        ("@eaDir/a.png", "passes over"),
        ("__MACOSX/a.png", "passes over"),
        ("a.png.part", "passes over"),
        ("a.sync-conflict-20260101.png", "passes over"),
        ("x" * 252 + ".png", "longer than 255 bytes"),
        ("界" * 84 + ".png", "longer than 255 bytes"),
        ("a\x00.png", "control character"),
        ("C:\new.png", "control character"),
        ("a\u202egnp.png", "control character"),
        ("a.gif", "no picture that can be read"),
        ("png", "no picture that can be read"),
        ("a.png ", "no picture that can be read"),
    ],
)
def test_a_path_to_anything_else_is_refused(path: str, what: str) -> None:
    fault = fault_of_image_path(path)
    assert fault is not None
    assert what in fault[0]
    assert fault[1]


def test_the_cure_names_the_picture_as_it_could_lie_beside_the_job() -> None:
    fault = fault_of_image_path("C:\\Users\\Ada\\photo.png")
    assert fault is not None
    assert fault[1].endswith('and write "photo.png".')


@pytest.mark.parametrize("name", [".x", "~x", "a~", "Thumbs.db", "A.TMP", "x.crdownload", ".~lock.a#", "#recycle"])
def test_by_products_of_other_programs_are_ignored(name: str) -> None:
    assert is_ignored_name(name)


@pytest.mark.parametrize("name", ["a.toml", "x.tmp.toml", "part", "thumbs.db.png", "a~b.png"])
def test_other_names_are_not_ignored(name: str) -> None:
    assert not is_ignored_name(name)
