"""Whatever is dropped: a job, or a complaint that says where, what and how to mend it."""

import json
import math
import multiprocessing
import time
import traceback
import tracemalloc
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import jsonschema
import psutil
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from example_catalogue import WITH_THE_DEMO_MODEL
from qwen_image_daemon.jobs import models
from qwen_image_daemon.jobs.families import ASPECT_RATIOS, Size
from qwen_image_daemon.jobs.models import AnyJob, TextToImageJob
from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES
from qwen_image_daemon.jobs.problems import MAX_PROBLEMS, Rejection
from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.jobs.reading import job_file_of_recipe, read_job, read_recipe
from qwen_image_daemon.jobs.recipes import RecipePicture
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.jobs.schema import job_schema
from qwen_image_daemon.jobs.styles import STYLES
from qwen_image_daemon.jobs.tasks import TASKS
from wild_jobs import WILD, Dropped, deep_and_broad_json, deep_and_broad_toml

CATALOGUE = WITH_THE_DEMO_MODEL
SCHEMA = jsonschema.Draft7Validator(job_schema())

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
SCALARS: st.SearchStrategy[Any] = (
    st.integers()
    | st.floats()
    | st.booleans()
    | TEXTS
    | st.sampled_from(
        [1, 1.0, 16, 512, 640, 1472, 1140, "1:1", "png", "a.png", "source", "photo", "euler", "faces"]
    )
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)
SETTINGS = st.sampled_from([*models.SETTINGS, "guidance_scale", "promt", "steps", "init_image", "$schema"])
OUTPUTS = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from(["png", "jpeg", "gif", 5]),
        "quality": st.integers(-1, 101) | VALUES,
        "name": st.sampled_from(["{name}", "{index}", "{nmae}", "a/b"]) | VALUES,
    },
)
LORAS = st.sampled_from(["faces", "lightning", "fases"]) | st.fixed_dictionaries(
    {"name": st.sampled_from(["faces", "watercolour"])}, optional={"weight": st.floats(-5, 5) | VALUES}
)
SCHEDULERS = st.sampled_from(["euler", "unipc", "lightning", "heun"]) | st.fixed_dictionaries(
    {"name": st.sampled_from(["euler", "unipc", "lightning", "lcm"])},
    optional={"shift": st.floats(-1, 21), "sigmas": st.just("karras") | VALUES, "solver_order": st.integers(0, 4)},
)
MOMENTS = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00+14:00",
        "2026-01-01T00:00:00",
        "0001-01-01T00:00:00+14:00",
        "2026",
    ]
)
DOCUMENTS = st.dictionaries(SETTINGS | TEXTS, VALUES, max_size=8).flatmap(
    lambda document: st.fixed_dictionaries(
        {},
        optional={
            "prompt": TEXTS,
            "output": OUTPUTS,
            "task": st.sampled_from(TASKS),
            "loras": st.lists(LORAS | VALUES, max_size=3),
            "scheduler": SCHEDULERS | VALUES,
            "not_before": MOMENTS | VALUES,
            "images": st.lists(st.just("a.png") | VALUES, max_size=3),
        },
    ).map(lambda likely: {**document, **likely})
)

PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)
SIZES = st.sampled_from([{}, {"width": 512, "height": 256}]) | st.sampled_from(ASPECT_RATIOS).map(
    lambda ratio: {"aspect_ratio": ratio}
)
GOOD_DOCUMENTS = st.tuples(
    st.fixed_dictionaries(
        {"prompt": PRINTABLE},
        optional={
            "name": PRINTABLE,
            "model": st.sampled_from(["qwen-image", "demo"]),
            "negative_prompt": PRINTABLE,
            "true_cfg_scale": st.floats(1.5, 20) | st.integers(2, 20),
            "num_inference_steps": st.integers(2, 200),
            "seed": st.integers(0, 2**62),
            "num_images": st.integers(1, 1000),
            "priority": st.integers(-100, 100),
            "style": st.sampled_from(list(STYLES)),
            "tags": st.lists(PRINTABLE, max_size=32),
            "timeout_seconds": st.floats(0.1, 1_000) | st.integers(1, 1_000),
            "output": st.sampled_from(
                [{}, {"format": "webp"}, {"format": "jpeg", "quality": 80}, {"name": "{name} {seed}"}]
            ),
            "end": st.just(value=True),
            "strict": st.booleans(),
            "on_exists": st.sampled_from(["draw", "skip", "refuse"]),
            "not_before": st.integers(2000, 2999).map(lambda year: f"{year}-02-28T23:59:59.5+01:00"),
            "loras": st.sampled_from([[], ["faces"], ["faces", {"name": "watercolour", "weight": -0.5}]]),
            "scheduler": st.sampled_from(["euler", {"name": "euler", "shift": 3.0, "sigmas": "karras"}]),
        },
    ),
    SIZES,
    st.sampled_from(
        [
            {},
            {"task": "text-to-image"},
            {"image": "sub/a.png"},
            {"image": "a.webp", "strength": 0.4},
            {"image": "a.png", "mask": "m.png", "preserve_unmasked": False, "fit": "crop"},
            {"task": "inpaint", "image": "a.png"},
        ]
    ),
).map(lambda parts: {**parts[0], **parts[1], **parts[2]})
ELSEWHERE = st.sampled_from(
    [
        {"prompt": "x", "images": ["a.png", "b.png"], "fit": "scale"},
        {"prompt": "x", "task": "edit", "image": "a.png", "mask": "m.png", "fit": "crop"},
        {"image": "a.png", "layers": 4, "resolution": 1024},
        {"task": "layered", "image": "a.png", "prompt": "x", "style": "photo"},
        {"prompt": "x", "control_image": "a.png", "controlnet": "union", "control_start": 0.2, "control_end": 0.8},
        {"prompt": "x", "control_image": "a.png", "mask": "m.png", "control_scale": 2},
        {"prompt": "x", "loras": ["lightning"], "preset": "draft"},
        {"prompt": "x", "scheduler": {"name": "unipc", "solver_order": 3}},
        {"prompt": "x", "model": "qwen-image-2.1-turbo", "negative_prompt": "y", "strict": False},
    ]
)
"""Good jobs that the demo model cannot draw."""


def as_toml(document: dict[str, Any]) -> str:
    return "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in document.items())


def _toml(value: Any) -> str:
    match value:
        case str():
            # JSON's escapes are TOML's, but TOML wants one more.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool() | int():
            return json.dumps(value)
        case float():
            return repr(value)
        case list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case _:
            return f"{{{', '.join(f'{_toml(key)} = {_toml(item)}' for key, item in value.items())}}}"


def check_promise(content: bytes, filename: str) -> AnyJob | Rejection:
    """Want a job that can be resolved, or problems that each say all three things in our words."""
    read = read_job(content, filename, CATALOGUE)
    if isinstance(read, Rejection):
        assert read.problems
        for problem in read.problems:
            assert problem.where.startswith(filename)
            assert problem.what.strip()
            assert problem.fix.strip()
            said = str(problem)
            said.encode()
            assert said.count("\n") == 1
            assert "nput should" not in said
            assert "does not fit here" not in said
    else:
        resolve(read, CATALOGUE, seed=1, source=Size(96, 64))
    return read


PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other things."""


@PATIENTLY
@given(st.binary(max_size=200) | TEXTS.map(str.encode), st.sampled_from(["a.toml", "a.json", "a.txt"]))
@example(b'\xff\xfe{\x00"\x00', "a.json")
@example(b'{"\\ud800": 1, "\\ud800": 2}', "a.json")
@example(b'{"prompt": "\\ud800", "seed": 1e999, "image": {"image": []}}', "a.json")
@example(b'"" = 1\n"a\\nb" = 2', "a.toml")
def test_any_bytes_are_a_job_or_a_complaint(content: bytes, filename: str) -> None:
    check_promise(content, filename)


@PATIENTLY
@given(DOCUMENTS)
def test_any_json_document_is_a_job_or_a_complaint(document: dict[str, Any]) -> None:
    read = check_promise(json.dumps(document).encode(), "a.json")
    if not isinstance(read, Rejection):
        SCHEMA.validate(document)


@PATIENTLY
@given(DOCUMENTS)
def test_toml_and_json_of_one_document_get_the_same_answer(document: dict[str, Any]) -> None:
    from_toml = check_promise(as_toml(document).encode(), "a.toml")
    from_json = check_promise(json.dumps(document).encode(), "a.json")
    assert isinstance(from_toml, Rejection) == isinstance(from_json, Rejection)


@PATIENTLY
@given(GOOD_DOCUMENTS | ELSEWHERE)
def test_a_good_job_means_the_same_in_toml_and_in_json_and_fits_the_schema(document: dict[str, Any]) -> None:
    from_toml = check_promise(as_toml(document).encode(), "a.toml")
    from_json = check_promise(json.dumps(document).encode(), "a.json")
    assert not isinstance(from_toml, Rejection), str(from_toml)
    assert from_toml == from_json
    SCHEMA.validate(document)


@PATIENTLY
@given(GOOD_DOCUMENTS | ELSEWHERE)
def test_a_job_read_again_from_its_normalised_form_is_the_same_job(document: dict[str, Any]) -> None:
    job = check_promise(json.dumps(document).encode(), "a.json")
    assert not isinstance(job, Rejection)
    assert check_promise(job.model_dump_json().encode(), "a.json") == job


@PATIENTLY
@given(
    GOOD_DOCUMENTS,
    st.sampled_from(["seed", "true_cfg_scale", "num_images", "strength"]),
    st.sampled_from([math.nan, math.inf]),
)
def test_no_number_that_is_none_gets_through(document: dict[str, Any], key: str, value: float) -> None:
    broken = {**document, key: value}
    assert isinstance(check_promise(as_toml(broken).encode(), "a.toml"), Rejection)
    assert isinstance(check_promise(json.dumps(broken).encode(), "a.json"), Rejection)


# Files that nobody would write. Time is that of this process: the machine may be busy with other things.

MOST_SECONDS = 2.0
MOST_CHARACTERS = 2_000
MOST_BYTES = 64 * 1024 * 1024
STEMS = st.sampled_from(["a", "new\nline", "\x1b[31mred\x07", "f\udcfcr", "\u202egnp", "x" * 240])


def check_answer(dropped: Dropped, stem: str) -> None:
    """Want a job or a short complaint, in words that do nothing to a terminal, and soon."""
    suffix, content = dropped
    started = time.process_time()
    read = read_job(content, stem + suffix, CATALOGUE)
    assert time.process_time() - started < MOST_SECONDS
    if not isinstance(read, Rejection):
        resolve(read, CATALOGUE, seed=1, source=Size(96, 64))
        return
    assert 1 <= len(read.problems) <= MAX_PROBLEMS + 1
    for problem in read.problems:
        for sentence in (problem.where, problem.what, problem.fix):
            sentence.encode()
            assert sentence.strip()
            assert not any(is_control(character) for character in sentence)
            assert len(sentence) <= MOST_CHARACTERS


def answer_all(connection: Connection) -> None:
    """Read what is sent until None comes; say what is wrong with each answer, its seconds and our memory."""
    while (sent := connection.recv()) is not None:
        started = time.process_time()
        try:
            check_answer(*sent)
            wrong = ""
        except Exception:  # noqa: BLE001  whatever is raised is the finding
            wrong = traceback.format_exc()
        connection.send((wrong, time.process_time() - started, psutil.Process().memory_info().rss))


@settings(PATIENTLY, max_examples=400)
@given(WILD, STEMS)
def test_files_that_nobody_would_write_get_a_short_harmless_answer_soon(dropped: Dropped, stem: str) -> None:
    check_answer(dropped, stem)


PICTURES = st.sampled_from(["a.png", "größe 1.jpg", 'a"b.webp', "'''.png", "🦊.png", "source.jpeg"])


@settings(PATIENTLY, max_examples=200)
@given(WILD | GOOD_DOCUMENTS.map(lambda document: (".toml", as_toml(document).encode())), PICTURES)
def test_a_recipe_that_nobody_would_write_is_refused_or_is_the_job_that_it_is_written_out_as(
    dropped: Dropped, picture: str
) -> None:
    suffix, content = dropped
    dropped_picture = RecipePicture(picture, picture.rpartition(".")[0], "a/b")
    job = read_recipe(content, f"recipe{suffix}", CATALOGUE, dropped_picture)
    if isinstance(job, Rejection):
        assert job.problems
        return
    assert isinstance(job, tuple(models.MODELS.values()))
    written_suffix, written = job_file_of_recipe(content, f"recipe{suffix}", dropped_picture)
    assert read_job(written, f"job{written_suffix}", CATALOGUE) == job


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_ten_thousand_files_that_nobody_would_write_get_their_answers_and_memory_stays_bounded() -> None:
    # Read in a process of their own, whose memory holds nothing that hypothesis remembers.
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=answer_all, args=(theirs,))
    reader.start()
    seconds: list[float] = []
    sizes: list[int] = []

    @settings(PATIENTLY, max_examples=10_000, database=None, phases=[Phase.generate])
    @given(WILD, STEMS)
    def examine(dropped: Dropped, stem: str) -> None:
        ours.send((dropped, stem))
        wrong, taken, size = ours.recv()
        seconds.append(taken)
        sizes.append(size)
        assert not wrong, wrong

    try:
        examine()
    finally:
        ours.send(None)
        reader.join()
    growth = max(sizes) - sizes[len(sizes) // 20]
    print(f"{len(sizes)} files, slowest {max(seconds):.3f} s CPU, resident memory +{growth / 2**20:.1f} MiB")  # noqa: T201
    assert growth < MOST_BYTES


HOSTILE = {
    "deep.toml": deep_and_broad_toml(400),
    "less-deep.toml": deep_and_broad_toml(20),
    "deep.json": deep_and_broad_json(900),
    "lists.toml": b"a = [" + b"1," * 32_000 + b"]",
    "tables.toml": b"a = [" + b"{b=1}," * 10_000 + b"]",
    "headers.toml": b"[[a.a.a.a.a.a.a.a]]\n" * 3_200,
    "unknown.toml": b"".join(b"promt%d = 1\n" % number for number in range(4_500)),
    "unknown.json": b"{%s}" % b",".join(b'"numimages%d":{}' % number for number in range(3_000)),
    "half-characters.json": b"{%s}" % b",".join([b'"\\ud800":"\\ud800"'] * 3_400),
    "one-key.toml": b'"%s" = 1' % (b"aA" * 30_000),
    "one-number.toml": b'prompt = "x"\nheight = 64\nwidth = 0x' + b"f" * 60_000,
    "one-number.json": b'{"seed": 1.%s}' % (b"1" * 60_000),
    "exponent.json": b'{"seed": 1e%s}' % (b"1" * 60_000),
    "quotes.toml": b'"""\\"' * 13_000 + b"\\",
    "backslashes.json": b'{"a": "' + b"\\" * 65_000,
    "line-ends.toml": b"\r\n" * 32_000 + b"a = [",
    "full.toml": b'prompt = "x"\n#' + b"x" * (MAX_JOB_BYTES - 14),
    "too-full.json": b'{"prompt": "x"}' + b" " * MAX_JOB_BYTES,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_was_made_to_hurt_takes_little_time_and_memory(name: str) -> None:
    content = HOSTILE[name]
    check_answer((f".{name.rpartition('.')[2]}", content), name)
    tracemalloc.start()
    try:
        read_job(content, name, CATALOGUE)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_a_job_file_of_exactly_the_allowed_size_is_read() -> None:
    assert len(HOSTILE["full.toml"]) == MAX_JOB_BYTES
    assert isinstance(read_job(HOSTILE["full.toml"], "full.toml", CATALOGUE), TextToImageJob)


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (b'prompt = "x"\r\nseed = 7\r\n', "a.toml"),
        (b'prompt = "x"\nseed = 7', "a.toml"),
        (b'\xef\xbb\xbfprompt = "x"\nseed = 7\n', "a.toml"),
        (b'{"prompt": "x",\r\n"seed": 7}\r\n', "a.json"),
        (b'{"prompt": "x", "seed": 7}', "a.json"),
        (b'\xef\xbb\xbf{"prompt": "x", "seed": 7}\n', "a.json"),
        (b'prompt = "x"\nseed = 7\nend = true', "a.toml"),
    ],
)
def test_line_ends_and_byte_order_marks_of_other_systems_change_nothing(content: bytes, filename: str) -> None:
    job = read_job(content, filename, CATALOGUE)
    assert isinstance(job, TextToImageJob)
    assert (job.prompt, job.seed) == ("x", 7)
