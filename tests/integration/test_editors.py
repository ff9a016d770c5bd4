"""The schemas where people meet them: taplo (Even Better TOML), VS Code's JSON service, check-jsonschema."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from nodejs import called
from qwen_image_daemon.jobs.models import SchedulerName
from qwen_image_daemon.jobs.parsing import parse
from qwen_image_daemon.jobs.paths import IMAGE_SUFFIXES
from qwen_image_daemon.jobs.problems import Problem

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "config"
EXAMPLES = REPOSITORY / "jobs_example"

JOBS = [
    path for path in EXAMPLES.rglob("*.*") if path.suffix in {".toml", ".json"} and "rejected" not in path.parts
]
REJECTED = [path for path in (EXAMPLES / "rejected").iterdir() if path.suffix in {".toml", ".json"}]

SUFFIXES = ", ".join(IMAGE_SUFFIXES)
SCHEDULERS = ", ".join(f'"{name}"' for name in get_args(SchedulerName))
BELOW = "below [defaults] or into one of the jobs"

ONLY_THE_READER_KNOWS = {
    # What the daemon has, or its settings.
    "lora-by-path.toml",
    "misspelt-style.toml",
    "no-model-edits.toml",
    # Which of two settings is larger, or their product.
    "control-that-never-counts.toml",
    "sweep-out-of-step.toml",
    "too-many-pixels.toml",
    # What a template of names, and what choices in prompts become.
    "endless-wildcards.toml",
    "one-name-for-three.toml",
    "too-many-choices.toml",
    "unclosed-choice.toml",
    "unknown-wildcard.toml",
    # What stands in a list beside the job.
    "list-of-nothing.toml",
    "table-in-another-encoding.toml",
    "table-with-a-wrong-cell.toml",
    "table-with-a-wrong-column.toml",
    # Two jobs with one id; two keys of which JSON's parsers keep the last; which of all characters draw nothing.
    "one-id-for-two-jobs.toml",
    "right-to-left.toml",
    "seed-twice.json",
}
"""Rejected examples that are valid under the schema."""
MENDED_BY_THE_TOOL: dict[str, set[str]] = {
    "taplo": set(),
    "check-jsonschema": {"no-time-zone.toml"},  # takes TOML's moments without an offset for UTC
}
"""Rejected examples that a tool changes before it looks at them."""


@dataclass(frozen=True)
class Looked:
    """What the tools said of all files at once: starting one takes longer than reading a hundred files."""

    files: frozenset[str]
    refused_by: dict[str, frozenset[str]]
    said_by_taplo: str


WRONG = """\
prompt = "a fox"
steps = 20
preset = "fst"
strength = 0.5
"""


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    """Let the tools look at every example as an editor hands it on: without a byte-order mark, with its schema."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "wrong.toml").write_text(f"#:schema {(CONFIG / 'job.schema.json').as_uri()}\n{WRONG}")
    files = [folder / "wrong.toml"]
    for path in (*JOBS, *REJECTED):
        if not isinstance(document := parse(path.read_bytes(), path.name), Problem):
            files.append(folder / name_of(path))
            first_line = f"#:schema {(CONFIG / schema_of(path)).as_uri()}\n" if path.suffix == ".toml" else ""
            files[-1].write_text(first_line + document.text, encoding="utf-8", newline="")
    toml = [file for file in files if file.suffix == ".toml"]
    done = called("taplo", "check", "--colors", "never", *toml)
    assert f"total={len(toml)} " in done.stderr, done.stderr
    by_taplo = re.findall(r'invalid file error=schema validation failed path="([^"]+)"', done.stderr)
    return Looked(
        files=frozenset(file.name for file in files),
        refused_by={
            "taplo": frozenset(Path(path).name for path in by_taplo),
            "check-jsonschema": refused_by_check_jsonschema(files),
        },
        said_by_taplo=done.stderr,
    )


def name_of(path: Path) -> str:
    return "-".join(path.relative_to(EXAMPLES).parts)


def schema_of(path: Path) -> str:
    return "recipe.schema.json" if "recipe" in path.stem else "job.schema.json"


def refused_by_check_jsonschema(files: Iterable[Path]) -> frozenset[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--output-format", "json", "--schemafile"]
    refused: set[str] = set()
    for schema in ("job.schema.json", "recipe.schema.json"):
        asked = [file for file in files if schema_of(file) == schema]
        done = subprocess.run([*command, CONFIG / schema, *asked], capture_output=True, text=True, check=False)
        report = json.loads(done.stdout)
        assert not report.get("parse_errors"), done.stdout
        refused |= {Path(error["filename"]).name for error in report["errors"]}
    return frozenset(refused)


def in_the_editor(schema: str, *documents: str) -> list[list[list[str]]]:
    """Give what VS Code shows of each document: what it offers at a caret (|), or else what is wrong."""
    question = {"schema": json.loads((CONFIG / schema).read_bytes()), "documents": documents}
    done = called("editor", stdin=json.dumps(question))
    assert done.returncode == 0, done.stderr
    shown: list[list[list[str]]] = json.loads(done.stdout)
    return shown


TOOLS = pytest.mark.parametrize(
    ("tool", "suffixes"), [("taplo", {".toml"}), ("check-jsonschema", {".toml", ".json"})]
)


@TOOLS
def test_every_example_is_valid(looked: Looked, tool: str, suffixes: set[str]) -> None:
    del suffixes
    names = {name_of(path) for path in JOBS}
    assert names <= looked.files
    assert looked.refused_by[tool] & names == set()


@TOOLS
def test_a_rejected_example_is_invalid_unless_only_the_reader_can_know(
    looked: Looked, tool: str, suffixes: set[str]
) -> None:
    names = {path.name for path in REJECTED if name_of(path) in looked.files and path.suffix in suffixes}
    valid = {name for name in names if f"rejected-{name}" not in looked.refused_by[tool]}
    allowed = ONLY_THE_READER_KNOWS | MENDED_BY_THE_TOOL[tool]
    assert valid == {name for name in allowed if Path(name).suffix in suffixes}


def test_taplo_underlines_the_value_that_is_wrong_and_says_why(looked: Looked) -> None:
    faults = re.findall(r"(?m)^error: (.*)\n.*wrong\.toml.*\n.*\n(\d+) ", looked.said_by_taplo)
    assert sorted(WRONG.splitlines()[int(line) - 2] for _, line in faults) == [
        'preset = "fst"',
        "steps = 20",
        "strength = 0.5",
    ]
    said = " ".join(what for what, _ in faults)
    assert "Did you mean num_inference_steps?" in said
    assert '"fst" is not one of ["draft","fast"' in said
    assert "this job redraws none" in said


def test_vs_code_offers_every_setting_with_its_form() -> None:
    at_the_top, in_a_job, in_the_matrix, presets, tasks = in_the_editor(
        "job.schema.json",
        '{"prompt": "x", |}',
        '{"jobs": [{|}]}',
        '{"matrix": {|}}',
        '{"preset": |}',
        '{"task": |}',
    )
    settings = properties("job.schema.json")
    assert {label for label, _ in at_the_top} == settings - {"prompt"}
    assert dict(at_the_top)["num_images"] == '"num_images": ${1:1}'
    assert dict(at_the_top)["image"] == '"image": "${1:harbour.jpg}"'
    assert {"prompt", "strength"} <= {label for label, _ in in_a_job}
    assert {"seed", "combine", "output.format"} <= {label for label, _ in in_the_matrix}
    assert [label for label, _ in presets][:2] == ['"draft"', '"fast"']
    assert '"inpaint"' in {label for label, _ in tasks}


def properties(schema: str) -> set[str]:
    return set(json.loads((CONFIG / schema).read_bytes())["properties"])


FAULTS: Sequence[tuple[dict[str, Any], list[tuple[str, str]]]] = (
    ({"prompt": "x", "steps": 20}, [("20", "No such setting. Did you mean num_inference_steps?")]),
    ({"prompt": "x", "seed": "7"}, [('"7"', "Incorrect type. Expected one of integer, null.")]),
    ({"prompt": "x", "loras": [{"name": "a", "wieght": 1}]}, [("1", "No such setting.")]),
    (
        {"prompt": "x", "image": "a.png", "mask": "../b.png"},
        [('"../b.png"', f"A picture is a plain path below the job file's folder that ends in {SUFFIXES}.")],
    ),
    ({"prompt": "x", "output": {"quality": 3}}, [('"output"', 'Missing property "format".')]),
    ({"task": "image-to-image", "prompt": "x"}, [("{", 'Missing property "image".')]),
    (
        {"prompt": "x", "aspect_ratio": "1:1", "width": 512, "height": 512},
        [("512", "It excludes aspect_ratio."), ("512", "It excludes aspect_ratio.")],
    ),
    ({"prompt": "x", "scheduler": "eulr"}, [('"eulr"', f"Value is not accepted. Valid values: {SCHEDULERS}.")]),
    ({"jobs": [{"prompt": "x"}], "seed": 7}, [("7", f"In a file with [[jobs]] it belongs {BELOW}.")]),
)


def test_vs_code_underlines_what_is_wrong_and_says_it_in_our_words() -> None:
    shown = in_the_editor("job.schema.json", *(json.dumps(document) for document, _ in FAULTS))
    assert [[tuple(fault) for fault in faults] for faults in shown] == [faults for _, faults in FAULTS]


def test_a_recipe_names_no_picture_and_vs_code_does_not_offer_it() -> None:
    offered, refused = in_the_editor(
        "recipe.schema.json", '{"prompt": "x", |}', '{"prompt": "x", "image": "a.png"}'
    )
    labels = {label for label, _ in offered}
    assert "strength" in labels
    assert not labels & {"image", "id"}
    assert [what for _, what in refused] == [
        "A recipe names no picture. Take it out: each picture that is dropped beside the recipe is drawn."
    ]
