"""`docs/jobs.md` says what is so: each block in it is a job that runs, or one that is refused in these words."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli
from PIL import Image

from documents import Block, blocks_of
from example_catalogue import EVERYTHING
from qwen_image_daemon.jobs.batch_settings import BATCH_KEYS, COMBINE
from qwen_image_daemon.jobs.batches import Batch, PromptList, WantsList
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import SETTINGS, TABLES, AnyJob, source_images
from qwen_image_daemon.jobs.problems import Rejection
from qwen_image_daemon.jobs.reading import read_drop, read_recipe
from qwen_image_daemon.jobs.recipes import RecipePicture
from qwen_image_daemon.jobs.resolution import resolve
from qwen_image_daemon.settings import load_settings

REPOSITORY = Path(__file__).parents[2]
JOBS = REPOSITORY / "docs" / "jobs.md"
PICTURES = REPOSITORY / "jobs_example"
BLOCKS = tuple(blocks_of(JOBS))
KINDS = {"job", "recipe", "rejected", "complaint", "drawn", "list", "settings"}


def of_kind(*kinds: str) -> list[Any]:
    chosen = [block for block in BLOCKS if block.kind in kinds]
    assert chosen
    return [pytest.param(block, id=f"line {block.line}") for block in chosen]


def list_before(block: Block, name: str) -> PromptList:
    """Give the list of this name that the document shows last before a block."""
    shown = [other for other in BLOCKS if other.words == ("list", name) and other.line < block.line]
    assert shown, f"no list {name} above line {block.line}"
    return PromptList(name, shown[-1].text.encode())


def read(block: Block) -> "AnyJob | Batch | Rejection":
    content, filename = block.text.encode(), f"{'recipe' if block.kind == 'recipe' else 'job'}.{block.language}"
    picture = RecipePicture("harbour.jpg", "harbour", "summer")
    prompt_list: PromptList | None = None
    for _ in range(2):
        if block.kind == "recipe":
            answer = read_recipe(content, filename, EVERYTHING, picture, prompt_list)
        else:
            answer = read_drop(content, filename, EVERYTHING, prompt_list)
        if not isinstance(answer, WantsList):
            return answer
        prompt_list = list_before(block, answer.name)
    raise AssertionError("it wants the list again")


def jobs_of(block: Block) -> list[AnyJob]:
    answer = read(block)
    assert not isinstance(answer, Rejection), str(answer)
    if not isinstance(answer, Batch):
        return [answer]
    assert not answer.problems
    return [entry.job for entry in answer.jobs]


def source_of(job: AnyJob) -> Size | None:
    images = source_images(job)
    if not images:
        return None
    with Image.open(PICTURES / images[0].path) as picture:
        return Size(*picture.size)


def test_every_block_says_what_it_is() -> None:
    untold = [
        block for block in BLOCKS if block.language in {"toml", "json", "text", "csv"} and block.kind not in KINDS
    ]
    assert [(block.line, block.words) for block in untold] == []
    fences = [line for line in JOBS.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(BLOCKS)


@pytest.mark.parametrize("block", of_kind("job", "recipe"))
def test_a_job_in_the_document_can_be_drawn(block: Block) -> None:
    for job in jobs_of(block):
        for image in source_images(job):
            assert (PICTURES / image.path).is_file()
        resolve(job, EVERYTHING, seed=1, source=source_of(job))


@pytest.mark.parametrize("block", of_kind("drawn"))
def test_what_the_document_says_is_drawn_of_the_job_above_is_drawn(block: Block) -> None:
    above = [other for other in BLOCKS if other.kind in {"job", "recipe"} and other.line < block.line][-1]
    (job,) = jobs_of(above)
    effective = resolve(job, EVERYTHING, seed=1, source=source_of(job)).model_dump(mode="json")
    for key, value in json.loads(block.text).items():
        found = effective[key]
        if isinstance(value, dict):
            found = {inner: found[inner] for inner in value}
        assert found == value, key


@pytest.mark.parametrize("block", of_kind("rejected"))
def test_a_job_that_the_document_calls_rejected_gets_just_the_complaint_below_it(block: Block) -> None:
    (complaint,) = (below for above, below in pairwise(BLOCKS) if above is block)
    assert complaint.kind == "complaint"
    answer = read(block)
    assert isinstance(answer, Rejection)
    assert f"{answer}\n" == complaint.text


@pytest.mark.parametrize("block", of_kind("settings"))
def test_settings_in_the_document_can_be_loaded(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(block.text, encoding="utf-8")
    settings = load_settings(file)
    assert set(tomli.loads(block.text)) <= set(type(settings).model_fields)


def test_every_key_is_used_in_some_job_of_the_document() -> None:
    shown = "\n".join(block.text for block in BLOCKS if block.kind in {"job", "recipe"})
    keys = [*SETTINGS, *BATCH_KEYS, COMBINE, *(key for table in TABLES.values() for key in table.model_fields)]
    assert [key for key in keys if not re.search(rf'\b{key}"?( =|:|\])', shown)] == []


def test_the_contents_lead_to_every_section_and_nowhere_else() -> None:
    text = JOBS.read_text(encoding="utf-8")
    sections = [
        re.sub(r"[^\w\s-]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^## (.*)$", text)
    ]
    assert re.findall(r"\]\(#([\w-]+)\)", text) == sections


def test_every_file_that_the_document_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!#|https?:)([^)]+)\)", JOBS.read_text(encoding="utf-8")):
        assert (JOBS.parent / target).exists(), target
