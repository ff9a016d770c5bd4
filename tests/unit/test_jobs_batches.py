"""Files with many jobs, purely: what they stand for, how they are counted, and what is said about bad ones."""

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from example_catalogue import EVERYTHING
from qwen_image_daemon.jobs.batch_settings import BATCH_KEYS, MAX_JOBS
from qwen_image_daemon.jobs.batches import Batch, PromptList, WantsList
from qwen_image_daemon.jobs.problems import Rejection
from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.jobs.reading import read_drop, read_job, read_recipe
from qwen_image_daemon.jobs.recipes import RecipePicture
from qwen_image_daemon.jobs.schema import job_schema
from wild_jobs import WILD_BATCHES, Dropped

EXAMPLES = Path(__file__).parents[2] / "jobs_example"
SCHEMA = jsonschema.Draft202012Validator(job_schema())


def read(text: str, listed: PromptList | None = None, name: str = "batch.toml") -> Batch:
    batch = read_drop(text.encode(), name, EVERYTHING, listed)
    assert isinstance(batch, Batch), str(batch)
    return batch


def refused(text: str, listed: PromptList | None = None, name: str = "batch.toml") -> list[str]:
    rejection = read_drop(text.encode(), name, EVERYTHING, listed)
    assert isinstance(rejection, Rejection)
    return [f"{problem.where}: {problem.what}" for problem in rejection.problems]


def values(batch: Batch) -> list[dict[str, Any]]:
    return [dict(job.values) for job in batch.jobs]


# What a file stands for.


def test_a_job_wins_over_the_defaults_also_inside_of_a_table() -> None:
    text = (
        '[defaults]\nseed = 1\noutput = { format = "webp", name = "{name} {index}" }\n'
        '[[jobs]]\nprompt = "a"\n[[jobs]]\nprompt = "b"\nseed = 2\noutput.format = "png"\n'
    )
    first, second = values(read(text))
    assert (first["seed"], first["output"]["format"]) == (1, "webp")
    assert (second["seed"], second["output"]) == (2, {"format": "png", "name": "{name} {index}"})


def test_a_sweep_is_every_value_with_every_other_and_the_last_changes_first() -> None:
    points = [
        (job["seed"], job["output"]["format"])
        for job in values(read('prompt = "a"\n[matrix]\nseed = [1, 2]\noutput.format = ["png", "webp"]\n'))
    ]
    assert points == [(1, "png"), (1, "webp"), (2, "png"), (2, "webp")]


def test_zipped_lists_go_in_step() -> None:
    text = '[matrix]\ncombine = "zip"\nprompt = ["a", "b"]\nseed = [1, 2]\n'
    assert values(read(text)) == [{"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 2}]


def test_jobs_may_be_swept_too() -> None:
    text = '[matrix]\nseed = [1, 2]\n[[jobs]]\nprompt = "a"\n[[jobs]]\nprompt = "b"\n'
    assert [(job["prompt"], job["seed"]) for job in values(read(text))] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_value_of_a_sweep_may_be_a_list_itself() -> None:
    text = 'prompt = "a"\n[matrix]\nloras = [[], [{ name = "watercolour", weight = 0.8 }]]\n'
    assert [job.get("loras") for job in values(read(text))] == [[], [{"name": "watercolour", "weight": 0.8}]]


def test_a_file_asks_for_its_list_and_a_row_wins_over_the_file() -> None:
    text = 'prompts_from = "list.csv"\nseed = 1\n'
    assert read_drop(text.encode(), "batch.toml", EVERYTHING) == WantsList("list.csv")
    batch = read(text, PromptList("list.csv", b"prompt,seed\na,\nb,2\n"))
    assert [(job["prompt"], job["seed"]) for job in values(batch)] == [("a", 1), ("b", 2)]
    assert [job.origin.line for job in batch.jobs] == [2, 3]


def test_prompts_by_lot_are_the_same_each_time_and_others_in_another_file() -> None:
    text = 'prompt = "{a|b|c|d|e|f} {1|2|3|4|5|6}"\nexpand = "random"\nnum_prompts = 20\n'
    prompts = [job["prompt"] for job in values(read(text))]
    assert prompts == [job["prompt"] for job in values(read(text))]
    assert prompts != [job["prompt"] for job in values(read(f"{text}# another\n"))]
    # None comes twice while others have not come.
    assert len(set(prompts)) == 20
    assert {job.origin.template for job in read(text).jobs} == {"{a|b|c|d|e|f} {1|2|3|4|5|6}"}


def test_prompts_by_lot_follow_the_seed_where_there_is_one() -> None:
    text = 'prompt = "{a|b|c|d|e|f} {1|2|3|4|5|6}"\nexpand = "random"\nnum_prompts = 20\nseed = 5\n'
    assert values(read(text)) == values(read(f"{text}# another\n"))
    assert values(read(text)) != values(read(text.replace("seed = 5", "seed = 6")))


def test_jobs_of_one_name_are_numbered_and_those_with_their_own_keep_it() -> None:
    jobs = "".join(f'[[jobs]]\nprompt = "{prompt}"\n' for prompt in "abc")
    text = f'name = "all"\n[defaults]\nname = "x"\n{jobs}name = "c"\n'
    batch = read(text)
    assert batch.name == "all"
    assert [job.job.name for job in batch.jobs] == ["x-1", "x-2", "c"]


def test_a_longest_name_is_cut_for_its_number() -> None:
    batch = read(f'name = "{"n" * 120}"\nprompts = ["a", "b"]\n')
    assert [job.job.name for job in batch.jobs] == [f"{'n' * 118}-1", f"{'n' * 118}-2"]


def test_without_expand_braces_and_underscores_are_drawn_as_they_are() -> None:
    assert values(read('prompts = ["{a|b}", "__c__"]')) == [{"prompt": "{a|b}"}, {"prompt": "__c__"}]


def test_each_job_has_a_file_that_asks_for_it_alone() -> None:
    text = (
        "end = true\n[defaults]\nnot_before = 2026-12-24T20:00:00+01:00\n[matrix]\nseed = [1, 2]\n"
        '[[jobs]]\nprompt = "größe 🦊\\n\\"x\\""\nnegative_prompt = "y"\noutput.format = "jpeg"\n'
    )
    for job in read(text).jobs:
        assert read_job(job.text, "job.json", EVERYTHING) == job.job


def test_bad_jobs_may_be_skipped_and_are_told() -> None:
    batch = read('on_invalid = "skip"\n[[jobs]]\nprompt = "a"\n[[jobs]]\npromt = "b"\n')
    assert [job.origin.index for job in batch.jobs] == [1]
    assert [problem.where for problem in batch.problems] == ["batch.toml, line 5, job 2 of 2: promt"]
    assert batch.left_out == ({"promt": "b"},)


# What is said about bad ones.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[jobs]]\n[[jobs]]\nprompt = "b"', "batch.toml, line 1: jobs.0: it is empty."),
        ("jobs = []", "batch.toml, line 1: jobs: it is empty."),
        ("jobs = 5", "batch.toml, line 1: jobs: 5 does not fit here."),
        ('[[jobs]]\nseed = 1\n[[jobs]]\nprompt = "b"', "batch.toml, line 1, job 1 of 2: prompt: every job"),
        ("[defaults]\nseed = 1", "batch.toml, line 1: defaults: there are no [[jobs]] for which it could hold."),
        ('[defaults]\nid = "7"\n[[jobs]]\nprompt = "a"', "batch.toml, line 2: defaults.id: all jobs"),
        ('prompts = ["a"]\n[[jobs]]\nprompt = "b"', "line 1: prompts: prompts and [[jobs]]"),
        ('prompt = "a"\nprompts = ["a"]', "batch.toml, line 1: prompt: the prompts are listed already."),
        ('prompts = ["a"]\nprompts_from = "x.txt"', "line 1: prompts: prompts and prompts_from"),
        ('prompts_from = "x.pdf"', 'batch.toml, line 1: prompts_from: "x.pdf" is no list that can be read.'),
        ('prompts_from = "../x.txt"', "line 1: prompts_from: it leads out"),
        ('prompt = "a"\nexpand = "some"', 'batch.toml, line 2: expand: "some" is not possible here.'),
        ('prompt = "a"\nexpand = "all"', "line 2: expand: no prompt holds a choice"),
        ('prompt = "{a|b}"\nexpand = "all"\nnum_prompts = 5', 'line 3: num_prompts: it is for expand = "random"'),
        ('prompt = "a"\n[matrix]', "batch.toml, line 2: matrix: it is empty."),
        ('prompt = "a"\n[matrix]\ncombine = "zip"', "batch.toml, line 2: matrix: it names no setting."),
        ('prompt = "a"\n[matrix]\nseed = []', "batch.toml, line 3: matrix.seed: the list is empty."),
        ('prompt = "a"\n[matrix]\nnum_prompts = [1]', "line 3: matrix.num_prompts: it is no setting"),
        ('name = ""\nprompts = ["a"]', "batch.toml, line 1: name: it is empty."),
        ('end = 1\nprompts = ["a"]', "batch.toml, line 1: end: 1 is not possible here."),
        ('prompts = ["a", ""]', "batch.toml, line 1, job 2 of 2: prompt: it is empty."),
        ('prompt = "{a|b}"\nexpand = "all"\n[wildcards]\n"a b" = ["x"]', 'line 4: wildcards."a b": "a b" cannot'),
    ],
)  # fmt: skip
def test_a_complaint_names_file_line_job_and_key(text: str, said: str) -> None:
    assert any(said in complaint for complaint in refused(text))


@pytest.mark.parametrize(
    ("key", "meant"),
    [("job", "jobs"), ("wildcard", "wildcards"), ("prompt_from", "prompts_from"), ("onInvalid", "on_invalid")],
)
def test_a_misspelt_key_of_a_batch_is_recognised(key: str, meant: str) -> None:
    rejection = read_drop(f'prompt = "a"\n[[{key}]]\nseed = 1'.encode(), "batch.toml", EVERYTHING)
    assert isinstance(rejection, Rejection)
    assert rejection.problems[0].fix == f"Did you mean {meant}?"


def test_a_fault_of_all_jobs_is_said_once() -> None:
    assert refused("[defaults]\nsed = 1\n" + '[[jobs]]\nprompt = "a"\n' * 5) == [
        "batch.toml, line 2, jobs 1, 2, 3, … of 5: sed: no such setting."
    ]


@pytest.mark.parametrize(
    "text",
    [
        'prompt = "{a|b}"\nexpand = "random"\nnum_prompts = 5000\n[matrix]\nseed = [1, 2]',
        f'prompt = "a"\n[matrix]\nseed = {list(range(1000))}\npriority = [1, 2, 3, 4, 5, 6]',
        f'prompt = "{"{a|b}" * 1000}"\nexpand = "all"',
        f'prompt = "a"\n[matrix]\nnum_images = {[1000] * 51}',
        "[[jobs]]\na=1\n" * 5001,
        f'negative_prompt = "{"x" * 9999}"\nprompt = "a"\n[matrix]\nseed = {list(range(2500))}',
    ],
)
def test_too_much_is_refused_with_its_count_before_it_is_multiplied(text: str) -> None:
    started = time.process_time()
    [said] = refused(text)
    assert "allowed" in said or "more than" in said
    assert time.process_time() - started < 2.0


def test_a_job_that_would_not_fit_into_a_file_of_its_own_is_refused() -> None:
    long = "🦊" * 9_999
    [said] = refused(f'negative_prompt = "{long}"\nprompts_from = "a.txt"', PromptList("a.txt", long.encode()))
    assert "a.txt, line 1, job 1 of 1: prompt: written alone, this job has 80," in said


# Whatever is written.

TEXTS = st.text(max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5000)
    | st.floats()
    | TEXTS
    | st.sampled_from(["zip", "all", "{a|b}"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
KEYS = st.sampled_from(["prompt", "seed", "name", "id", "output", "image", "model", "task", "num_images", "promt"])
TABLES = st.dictionaries(KEYS, ANYTHING | st.sampled_from(["x", 7, {"format": "png"}]), max_size=4)
ENTRIES = st.sampled_from(["x", "__d__", "{a|b}"])
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.sampled_from(["a", "{a|b}", "__c__", "{a|"]),
        "defaults": TABLES | ANYTHING,
        "jobs": st.lists(TABLES | ANYTHING, max_size=4) | ANYTHING,
        "matrix": st.dictionaries(KEYS, st.lists(SCALARS, max_size=3) | ANYTHING, max_size=3) | ANYTHING,
        "prompts": st.lists(TEXTS | ANYTHING, max_size=4),
        "prompts_from": st.sampled_from(["list.txt", "list.csv", "/x", ""]) | ANYTHING,
        "expand": st.sampled_from(["random", "all"]) | ANYTHING,
        "num_prompts": st.integers(-1, 6000) | ANYTHING,
        "wildcards": st.dictionaries(st.sampled_from(["c", "d"]), st.lists(ENTRIES, max_size=3)) | ANYTHING,
        "on_invalid": st.sampled_from(["refuse", "skip"]) | ANYTHING,
    },
)  # fmt: skip
PATIENTLY = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=400)
LIST = PromptList("list.csv", b"prompt,seed\na,1\n{b|c},\n")


@PATIENTLY
@given(LIKELY, st.sampled_from([None, LIST]))
def test_any_document_is_a_batch_of_good_jobs_or_is_refused(
    document: dict[str, Any], listed: PromptList | None
) -> None:
    content = json.dumps(document).encode()
    batch = read_drop(content, "batch.json", EVERYTHING, listed)
    picture = RecipePicture("a.png", "{folder}", "{file}")
    read_recipe(content, "recipe.json", EVERYTHING, picture, listed)
    if isinstance(batch, Rejection):
        assert all(problem.where and problem.what and problem.fix for problem in batch.problems)
        return
    if not isinstance(batch, Batch):
        return
    assert 0 < len(batch.jobs) <= MAX_JOBS
    assert batch == read_drop(content, "batch.json", EVERYTHING, listed)
    of = {job.origin.of for job in batch.jobs}
    assert len(of) == 1
    assert len(batch.jobs) + len(batch.left_out) == of.pop()
    for job in batch.jobs:
        assert read_job(job.text, "job.json", EVERYTHING) == job.job
    if not batch.left_out:
        SCHEMA.validate(document)


LISTS = st.sampled_from([LIST, PromptList("list.csv", b"prompt\n" + b"{a|b}{c|d}\n" * 3000)])


@PATIENTLY
@given(WILD_BATCHES, LISTS)
def test_files_that_nobody_would_write_get_their_answer_soon(dropped: Dropped, listed: PromptList) -> None:
    suffix, content = dropped
    started = time.process_time()
    answer = read_drop(content, f"wild{suffix}", EVERYTHING, listed)
    assert time.process_time() - started < 2.0
    if isinstance(answer, Rejection):
        assert len(str(answer)) < 20_000
        assert not any(is_control(character) for character in str(answer).replace("\n", ""))


NAMES = st.lists(
    st.sampled_from(["seed", "num_images", "priority", "num_inference_steps"]), unique=True, max_size=3
)


@PATIENTLY
@given(NAMES, st.integers(1, 4), st.integers(1, 3), st.sampled_from(["a", "{a|b}", "{a|b} {c|d|e}"]))
def test_the_number_of_jobs_is_the_product_of_what_is_combined(
    names: list[str], length: int, jobs: int, prompt: str
) -> None:
    document: dict[str, Any] = {"jobs": [{"prompt": prompt}] * jobs}
    choices = {"a": 1, "{a|b}": 2, "{a|b} {c|d|e}": 6}[prompt]
    if names:
        document["matrix"] = {name: list(range(2, 2 + length)) for name in names}
    if choices > 1:
        document["expand"] = "all"
    batch = read(json.dumps(document), name="batch.json")
    assert len(batch.jobs) == jobs * length ** len(names) * choices
    SCHEMA.validate(document)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "batches").glob("[0-9]*.*")), ids=lambda path: path.name)
def test_every_example_fits_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    SCHEMA.validate(tomli.loads(text) if path.suffix == ".toml" else json.loads(text))


def test_every_key_of_a_batch_is_described_for_editors() -> None:
    described = job_schema()["properties"]
    for key in BATCH_KEYS:
        assert described[key]["description"]
