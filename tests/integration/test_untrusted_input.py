"""What strangers may put into the inbox: it leads nowhere, holds nothing up, and says nothing to a terminal.

Each test drops something and looks at what the take-in made of it. What parsers, paths and records do with it is
tested beside them: test_jobs_parsing, test_jobs_paths, test_jobs_reading_anything, test_beneath, test_listing.
"""

import ast
import io
import os
import stat
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

import qwen_image_daemon
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.inbox.pictures import UnfitPicture, upright_size
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.loop_control import LoopControl
from qwen_image_daemon.settings import InboxSettings, RenderSettings
from qwen_image_daemon.spool.durable import replace_content, write_durably
from rooms import Rooms, picture

JOB = 'prompt = "a red circle"'
REDRAW = 'prompt = "x"\nimage = "boat.png"'
SECRET = b"nobody's business"


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    return Rooms(tmp_path)


def names_queued(rooms: Rooms) -> list[str]:
    return [record.name for record in rooms.queued()]


def complaint(rooms: Rooms) -> str:
    [entry] = rooms.rendered()
    assert rooms.queued() == []
    assert entry.outcome().status == "refused"
    return "\n".join(f"{problem.where}: {problem.what} {problem.fix}" for problem in entry.outcome().problems)


def holds(folder: Path, content: bytes) -> bool:
    return any(content in path.read_bytes() for path in folder.rglob("*") if path.is_file())


# Paths in a job.


@pytest.mark.parametrize(
    "written",
    [
        "{outside}/secret.png",
        "../secret.png",
        "sub/../../secret.png",
        "..\\\\secret.png",
        "C:\\\\secret.png",
        "C:secret.png",
        "\\\\\\\\server\\\\secret.png",
        "//server/secret.png",
        "secret.png:stream",
        "secret.png\\u0000.png",
        "new\\nline.png",
        "file://{outside}/secret.png",
        "https://example.org/secret.png",
    ],
)
def test_a_job_reads_nothing_but_what_lies_below_its_own_folder(rooms: Rooms, written: str) -> None:
    (rooms.root / "secret.png").write_bytes(picture() + SECRET)
    rooms.drop("sub/boat.png", picture())
    rooms.drop("job.json", f'{{"prompt": "x", "image": "{written.format(outside=rooms.root)}"}}')
    rooms.take_in()
    assert "job.json, line 1: image: " in complaint(rooms)
    assert not holds(rooms.spool.root, SECRET)


# What is no file.


def link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def hanging_link(path: Path, secret: Path) -> None:
    path.symlink_to(secret.with_name("nothing"))


def round_link(path: Path, _secret: Path) -> None:
    path.symlink_to(path.name)


def pipe(path: Path, _secret: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, _secret: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def device(path: Path, _secret: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device file takes privileges")


def folder(path: Path, _secret: Path) -> None:
    path.mkdir()


NO_FILES = [link, hanging_link, round_link, pipe, unix_socket, device, folder]


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize("name", ["job.toml", "job.json"])
def test_what_is_no_file_is_no_job_and_holds_nothing_up(
    rooms: Rooms, make: Callable[[Path, Path], None], name: str
) -> None:
    secret = rooms.root / "secret.toml"
    secret.write_text('prompt = "nobody\'s business"')
    make(rooms.inbox / name, secret)
    rooms.drop("other.toml", JOB)
    rooms.take_in()
    assert names_queued(rooms) == ["other"]
    assert rooms.rendered() == []
    assert os.path.lexists(rooms.inbox / name)
    assert not holds(rooms.spool.root, SECRET)


@pytest.mark.parametrize("make", NO_FILES)
def test_what_is_no_file_is_no_picture_and_holds_only_its_job_up(
    rooms: Rooms, make: Callable[[Path, Path], None]
) -> None:
    secret = rooms.root / "secret.png"
    secret.write_bytes(picture() + SECRET)
    make(rooms.inbox / "boat.png", secret)
    rooms.drop("job.toml", REDRAW)
    rooms.drop("other.toml", JOB)
    rooms.take_in()
    assert names_queued(rooms) == ["other"]
    assert "not there yet" in (rooms.inbox / "job.toml.waiting.txt").read_text()
    assert not holds(rooms.spool.root, SECRET)


def test_a_folder_that_is_a_link_leads_nowhere(rooms: Rooms) -> None:
    outside = rooms.root / "outside"
    outside.mkdir()
    (outside / "boat.png").write_bytes(picture() + SECRET)
    (outside / "theirs.toml").write_text(JOB)
    (rooms.inbox / "photos").symlink_to(outside)
    rooms.drop("job.toml", 'prompt = "x"\nimage = "photos/boat.png"')
    rooms.take_in()
    assert rooms.queued() == rooms.rendered() == []
    assert (outside / "theirs.toml").exists()
    assert not holds(rooms.spool.root, SECRET)


def test_a_hard_link_is_a_file_like_any_other(rooms: Rooms) -> None:
    (rooms.root / "draft.toml").write_text(JOB)
    (rooms.inbox / "job.toml").hardlink_to(rooms.root / "draft.toml")
    rooms.take_in()
    assert names_queued(rooms) == ["job"]
    assert (rooms.root / "draft.toml").read_text() == JOB


# What changes while we look. Each beat of the loop is a moment at which somebody else may act.


def swapped_for_a_link(path: Path, secret: Path) -> None:
    path.with_name(".new").symlink_to(secret)
    path.with_name(".new").replace(path)


def swapped_for_a_pipe(path: Path, _secret: Path) -> None:
    os.mkfifo(path.with_name(".new"))
    path.with_name(".new").replace(path)


def gone(path: Path, _secret: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("moment", range(1, 9))
@pytest.mark.parametrize("happens", [swapped_for_a_link, swapped_for_a_pipe, gone])
@pytest.mark.parametrize("victim", ["job.toml", "boat.png"])
def test_a_swap_between_look_and_copy_lets_nothing_in(
    rooms: Rooms, victim: str, happens: Callable[[Path, Path], None], moment: int
) -> None:
    secret = rooms.root / "secret"
    secret.write_bytes(b"prompt = 'x' #" + SECRET if victim == "job.toml" else picture() + SECRET)
    rooms.drop("boat.png", picture())
    rooms.drop("job.toml", REDRAW)
    beats: Iterator[int] = iter(range(1, 1000))

    def beat(_allowance_seconds: float) -> None:
        if next(beats) == moment:
            with suppress(FileNotFoundError):
                happens(rooms.inbox / victim, secret)

    take_in(rooms.intake, LoopControl(beat=beat, drain=True))
    assert not holds(rooms.spool.root, SECRET)
    assert rooms.rendered() == []
    assert rooms.spool.entries(rooms.spool.tmp) == []
    # Either it was taken as it was before, or it was not taken.
    for record in rooms.queued():
        entry = rooms.spool.find(record.id)
        assert entry is not None
        assert entry.input_path("boat.png").read_bytes() == picture()


# Odd job files.


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"\r\n\r\n", "the file is empty"),
        ('prompt = "grün"'.encode("utf-16"), "UTF-16"),
        (b'prompt = "C:\\Users"', "single quotes"),
        (b"true_cfg_scale = nan\nprompt = 'x'", "true_cfg_scale"),
        (b"true_cfg_scale = inf\nprompt = 'x'", "true_cfg_scale"),
        (b"a.b.c.d.e.f.g.h.i.j = 1", "more than 8 dots"),
        (b"a = " + b"[" * 60_000, "nested too deeply"),
        (b"promt = 'x'", "no such setting"),
        (b"#" * (MAX_JOB_BYTES + 1), "65,536"),
    ],
    ids=["empty", "blank", "utf-16", "windows", "nan", "infinity", "dots", "deep", "unknown", "long"],
)
def test_a_file_that_is_no_job_is_answered_and_the_next_is_taken(rooms: Rooms, content: bytes, what: str) -> None:
    rooms.drop("a.toml", content)
    rooms.take_in()
    assert what in complaint(rooms)
    rooms.drop("b.toml", JOB)
    rooms.take_in()
    assert names_queued(rooms) == ["b"]


@pytest.mark.parametrize("size", [1, 500, MAX_JOB_BYTES])
def test_a_file_of_zeros_is_never_run_and_holds_nothing_up(rooms: Rooms, size: int) -> None:
    rooms.drop("a.toml", b"\0" * size)
    rooms.drop("b.toml", JOB)
    rooms.take_in()
    assert names_queued(rooms) == ["b"]


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbfprompt = "x"\r\nseed = 7\r\n',
        b'prompt = "x"\nseed = 7',
        b'prompt = "x"\nseed = 7\nend = true\n',
        b'prompt = "x"\nseed = 7\n#'.ljust(MAX_JOB_BYTES, b"."),
    ],
    ids=["windows", "no-line-end", "end", "full"],
)
def test_a_job_from_any_system_up_to_the_allowed_size_is_taken(rooms: Rooms, content: bytes) -> None:
    rooms.drop("job.toml", content)
    rooms.take_in()
    [record] = rooms.queued()
    assert (record.to_do().prompt, record.to_do().seed) == ("x", 7)
    assert record.source.size_bytes == len(content)


def test_a_folder_that_is_called_like_a_job_is_looked_into(rooms: Rooms) -> None:
    rooms.drop("x.toml/y.toml", JOB)
    rooms.take_in()
    assert names_queued(rooms) == ["y"]


@pytest.mark.parametrize(
    "setting",
    [
        'device = "cuda:0"',
        'env = {PATH = "/tmp"}',
        'environment = "LD_PRELOAD=x"',
        'model = "Qwen/Qwen-Image"',
        'model = "/models/other"',
        'model = "../other"',
        'model = "https://example.org/model"',
        'revision = "main"',
        'source = "Qwen/Qwen-Image"',
        "trust_remote_code = true",
        "use_safetensors = false",
        'weight_name = "x.bin"',
        'lora = "x.bin"',
        'output_dir = "/tmp"',
        'dtype = "float16"',
        'custom_pipeline = "x"',
    ],
)
def test_a_job_chooses_neither_device_nor_environment_nor_any_code_or_weights(rooms: Rooms, setting: str) -> None:
    rooms.drop("job.toml", f"{JOB}\n{setting}")
    rooms.take_in()
    assert f"job.toml, line 2: {setting.partition(' ')[0]}: " in complaint(rooms)


# Odd names.

TWINS = [("ä.toml", unicodedata.normalize("NFD", "ä.toml")), ("a.toml", "A.TOML"), ("ß.toml", "ss.toml")]


@pytest.mark.parametrize("twins", TWINS, ids=["unicode-form", "case", "folding"])
def test_two_names_that_look_alike_are_two_jobs(rooms: Rooms, twins: tuple[str, str]) -> None:
    for seed, name in enumerate(twins):
        rooms.drop(name, f"{JOB}\nseed = {seed}")
    rooms.take_in()
    assert sorted(record.to_do().seed for record in rooms.queued()) == [0, 1]
    assert {record.source.path for record in rooms.queued()} == set(twins)
    assert rooms.left_in_inbox() == set()


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_job", ["NFC", "NFD"])
@pytest.mark.parametrize("folder_on_disk", ["NFC", "NFD"])
def test_a_picture_is_found_in_whichever_unicode_form_its_name_is_written(
    rooms: Rooms, on_disk: str, in_job: str, folder_on_disk: str
) -> None:
    shelf, file = "Größe", "Übersicht.png"
    place = f"{unicodedata.normalize(folder_on_disk, shelf)}/{unicodedata.normalize(on_disk, file)}"  # type: ignore[arg-type]
    named = unicodedata.normalize(in_job, f"{shelf}/{file}")  # type: ignore[arg-type]
    rooms.drop(place, picture())
    rooms.drop("job.toml", f'prompt = "x"\nimage = "{named}"')
    rooms.take_in()
    [record] = rooms.queued()
    [source] = record.inputs
    assert source.path == named
    entry = rooms.spool.find(record.id)
    assert entry is not None
    assert entry.input_path(named).read_bytes() == picture()


def test_of_two_pictures_that_look_alike_the_one_is_taken_that_is_named(rooms: Rooms) -> None:
    for form, colour in (("NFC", "red"), ("NFD", "blue")):
        name = unicodedata.normalize(form, "ä.png")  # type: ignore[arg-type]
        rooms.drop(name, picture(colour=colour))
        rooms.drop(f"{colour}.toml", f'prompt = "x"\nimage = "{name}"')
    rooms.take_in()
    for record in rooms.queued():
        entry = rooms.spool.find(record.id)
        assert entry is not None
        assert entry.input_path(record.inputs[0].path).read_bytes() == picture(colour=record.name)


@pytest.mark.parametrize(
    "name", [b"\x1b]0;x\x07\x9b31m.toml", b"a\nSTOPPING=1\n.toml", "\u202elmot.toml".encode()]
)
@pytest.mark.parametrize("content", [JOB, "promt = 1", REDRAW])
def test_no_name_steers_the_terminal_of_those_who_read_about_it(rooms: Rooms, name: bytes, content: str) -> None:
    rooms.drop(os.fsdecode(name), content)
    rooms.take_in()
    said = [
        *rooms.inbox.glob("*.waiting.txt"),
        *rooms.spool.root.rglob("*.json"),
        *rooms.spool.root.rglob("*.log"),
    ]
    for path in said:
        text = path.read_text(encoding="utf-8")
        assert not any(is_control(character) for character in text.replace("\n", "")), path
    for entry in (*rooms.rendered(), *rooms.spool.entries(rooms.spool.queue)):
        record = entry.record()
        assert not any(is_control(character) for character in record.name + record.source.path)
        for problem in entry.outcome().problems if content == "promt = 1" else ():
            assert not any(is_control(character) for character in problem.where)


# In the place of what we write ourselves.


@pytest.mark.parametrize("make", NO_FILES)
def test_a_trap_in_the_place_of_a_note_is_not_written_through_and_holds_nothing_up(
    rooms: Rooms, make: Callable[[Path, Path], None]
) -> None:
    secret = rooms.root / "secret"
    secret.write_bytes(SECRET)
    make(rooms.inbox / "late.toml.waiting.txt", secret)
    rooms.drop("late.toml", REDRAW)
    rooms.drop("other.toml", JOB)
    rooms.take_in()
    assert names_queued(rooms) == ["other"]
    assert secret.read_bytes() == SECRET
    if make != folder:
        assert "not there yet" in (rooms.inbox / "late.toml.waiting.txt").read_text()


@pytest.mark.parametrize("make", [link, hanging_link, pipe, unix_socket])
def test_a_trap_in_the_place_of_a_file_that_is_replaced_is_not_written_through(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    for write in (replace_content, write_durably):
        make(tmp_path / ".status.json.tmp", secret)
        write(tmp_path / "status.json", b"new")
        assert (tmp_path / "status.json").read_bytes() == b"new"
        assert not (tmp_path / "status.json").is_symlink()
    assert secret.read_bytes() == SECRET
    assert not secret.with_name("nothing").exists()


# Pictures.


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IEND", b"")


def saved(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *(saved(form) for form in ("GIF", "TIFF", "BMP", "EPS", "ICO", "PDF", "PPM", "TGA", "JPEG2000")),
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"push graphic-context\nimage over 0,0 1,1 'https://example.org/x.png'\npop graphic-context",
        b"\0" * 5000 + b"x",
    ],
    ids=["gif", "tiff", "bmp", "eps", "ico", "pdf", "ppm", "tga", "jpeg2000", "svg", "mvg", "zeros"],
)
def test_only_png_jpeg_and_webp_are_pictures_whatever_they_are_called(rooms: Rooms, content: bytes) -> None:
    rooms.drop("boat.png", content)
    rooms.drop("job.toml", REDRAW)
    rooms.take_in()
    assert "no PNG, JPEG or WEBP" in complaint(rooms)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_known_by_its_content_and_not_by_its_suffix(rooms: Rooms, form: str) -> None:
    rooms.drop("boat.png", saved(form))
    rooms.drop("job.toml", REDRAW)
    rooms.take_in()
    assert names_queued(rooms) == ["job"]


@pytest.mark.parametrize(
    ("size", "what"),
    [((8_000, 8_000), "8000×8000 pixels; the limit is"), ((13_000, 13_000), "more than 89,478,485")],
)
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    rooms: Rooms, size: tuple[int, int], what: str
) -> None:
    # There is nothing to decode: if anybody tried, it would be called broken.
    rooms.drop("boat.png", png(*size, chunk(b"IDAT", b"")))
    rooms.drop("job.toml", REDRAW)
    rooms.take_in()
    assert what in complaint(rooms)


def test_a_small_file_of_very_many_pixels_is_not_decoded(rooms: Rooms) -> None:
    content = png(13_000, 13_000, chunk(b"IDAT", zlib.compress(bytes(13_001) * 13_000, 9)))
    assert len(content) < 200 * 1024
    rooms.drop("boat.png", content)
    rooms.drop("job.toml", REDRAW)
    rooms.take_in()
    assert "Scale it down" in complaint(rooms)


def test_pillows_warning_of_a_bomb_is_an_error_whatever_the_settings_allow(tmp_path: Path) -> None:
    (tmp_path / "boat.png").write_bytes(png(10_000, 10_000, chunk(b"IDAT", b"")))
    with pytest.raises(UnfitPicture, match="more than 89,478,485 pixels"):
        upright_size(tmp_path / "boat.png", InboxSettings(max_image_pixels=10**9))


def test_a_bomb_in_a_pictures_text_is_refused(rooms: Rooms) -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    rooms.drop("boat.png", png(8, 8, text, chunk(b"IDAT", zlib.compress(bytes(9) * 8))))
    rooms.drop("job.toml", REDRAW)
    rooms.take_in()
    assert "cannot be decoded" in complaint(rooms)


def test_the_size_of_a_picture_is_its_size_when_it_stands_upright(rooms: Rooms) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (96, 64)).save(file, "JPEG", exif=exif)
    rooms.drop("boat.png", file.getvalue())
    rooms.drop("job.toml", REDRAW)
    rooms.take_in()
    [record] = rooms.queued()
    assert (record.to_do().width, record.to_do().height) == (128, 192)


# The libraries.


def calls() -> Iterator[tuple[Path, str, dict[str, ast.expr]]]:
    """Give every call in the daemon's code: the last part of its name, and its keyword arguments."""
    for path in sorted(Path(qwen_image_daemon.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                yield path, name, {word.arg: word.value for word in node.keywords if word.arg}


def test_weights_are_loaded_as_safetensors_only() -> None:
    loading = [keywords for _, name, keywords in calls() if name == "from_pretrained"]
    assert loading
    for keywords in loading:
        assert ast.unparse(keywords["use_safetensors"]) == "True"


def test_nothing_is_called_that_fetches_or_unpacks_what_a_text_names() -> None:
    # diffusers' load_image fetches addresses; pickles run code; LoRA loaders take a file name's word for its kind.
    feared = {"load_image", "load_video", "urlopen", "load_lora_weights", "load_textual_inversion", "eval", "exec"}
    assert [(path.name, name) for path, name, _ in calls() if name in feared] == []
    sources = "\n".join(path.read_text() for path in Path(qwen_image_daemon.__file__).parent.rglob("*.py"))
    for module in ("pickle", "torch.load", "requests", "urllib.request", "http.client", "yaml", "shell=True"):
        assert f"import {module}" not in sources
        assert f"{module}(" not in sources


def test_code_from_a_checkpoint_is_not_trusted_unless_the_settings_say_so() -> None:
    # That diffusers' own switch is set then is tested in test_loading.
    assert RenderSettings().trust_remote_code is False
    trusting = [word["trust_remote_code"] for _, _, word in calls() if "trust_remote_code" in word]
    assert {ast.unparse(value) for value in trusting} <= {"trust", "trust_remote_code"}
