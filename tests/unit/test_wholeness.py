"""What is missing or broken of a checkpoint is named before anything is loaded: component, file, and how."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.wholeness import components_of, refuse_broken, refuse_broken_component
from sharding import split_into_shards

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
ENCODER = "text_encoder/model.safetensors"
SOURCE = "the checkpoint"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def refusal(checkpoint: Path) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as refused:
        refuse_broken(checkpoint, SOURCE)
    return refused.value


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "demo"])
def test_every_familys_checkpoint_is_whole(tiny_family: Callable[[str], Path], family: str) -> None:
    checkpoint = tiny_family(family)

    assert set(components_of(checkpoint)) >= {"scheduler", "text_encoder", "transformer", "vae"}
    refuse_broken(checkpoint, SOURCE)


def test_a_checkpoint_in_shards_is_whole(checkpoint: Path) -> None:
    split_into_shards(checkpoint / TRANSFORMER, 3)
    split_into_shards(checkpoint / ENCODER)

    refuse_broken(checkpoint, SOURCE)


def test_all_shards_that_are_missing_are_named(checkpoint: Path) -> None:
    first, _, third = split_into_shards(checkpoint / TRANSFORMER, 3)
    other = split_into_shards(checkpoint / ENCODER)[1]
    for shard in (first, third, other):
        shard.unlink()

    told = str(refusal(checkpoint))

    assert told.startswith(f"{SOURCE} is not whole. ")
    for shard in (first, third, other):
        assert f"{shard} could not be loaded: it is missing" in told


def test_a_shard_that_is_cut_short_is_named_with_both_lengths(checkpoint: Path) -> None:
    _, second, _ = split_into_shards(checkpoint / TRANSFORMER, 3)
    size = second.stat().st_size
    os.truncate(second, size - 7)

    assert f"{second} could not be loaded: it has {size - 7} bytes instead of {size}" in str(refusal(checkpoint))


def test_a_shard_that_ends_within_its_header_was_cut_short(checkpoint: Path) -> None:
    shard, _ = split_into_shards(checkpoint / TRANSFORMER)
    os.truncate(shard, 40)

    assert f"{shard} could not be loaded: it was cut short: it has 40 bytes" in str(refusal(checkpoint))


def test_a_shard_of_another_checkpoint_is_named_with_the_first_tensor_that_it_lacks(checkpoint: Path) -> None:
    _, second = split_into_shards(checkpoint / TRANSFORMER)
    weights = load_file(second)
    gone = min(weights)
    del weights[gone]
    save_file(weights, second)

    told = str(refusal(checkpoint))
    assert f"{second} could not be loaded: 1 of the tensors that the index of shards places in it" in told
    assert f"{gone} first" in told


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("transformer", "the folder is missing"),
        ("vae/config.json", "it is missing"),
        ("scheduler/scheduler_config.json", "it is missing"),
        ("tokenizer/tokenizer.json", "it is missing"),
    ],
)
def test_what_a_component_cannot_do_without_is_named(checkpoint: Path, file: str, why: str) -> None:
    place = checkpoint / file
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()

    assert f"{place} could not be loaded: {why}" in str(refusal(checkpoint))


@pytest.mark.parametrize(
    "file", ["transformer/config.json", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_a_configuration_that_is_no_json_is_named_with_the_place(checkpoint: Path, file: str) -> None:
    (checkpoint / file).write_text('{"a": 1,\n oops', encoding="utf-8")

    told = str(refusal(checkpoint))
    assert re.search(rf"{file} could not be loaded: it is not a valid JSON file: .*line 2 column 2", told)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../../secret.safetensors"}}]
)
def test_an_index_of_shards_that_is_none_is_named(checkpoint: Path, index: dict[str, object]) -> None:
    split_into_shards(checkpoint / TRANSFORMER)
    (checkpoint / f"{TRANSFORMER}.index.json").write_text(json.dumps(index), encoding="utf-8")

    assert f"{TRANSFORMER}.index.json could not be loaded: it is no index of shards" in str(refusal(checkpoint))


def test_very_many_faults_are_counted_and_the_first_named(checkpoint: Path) -> None:
    for shard in split_into_shards(checkpoint / TRANSFORMER, 14):
        shard.unlink()

    assert str(refusal(checkpoint)).endswith("; and 4 more.")


def test_a_file_of_the_hubs_cache_is_to_be_deleted_with_what_it_points_to(checkpoint: Path) -> None:
    blob = checkpoint / "blobs" / "0123abcd"
    blob.parent.mkdir()
    (checkpoint / TRANSFORMER).rename(blob)
    os.truncate(blob, 100)
    (checkpoint / TRANSFORMER).symlink_to(blob)

    assert refusal(checkpoint).fix.startswith("Delete the files that are named and what they point to in blobs")


def test_a_component_by_itself_is_looked_at_likewise(checkpoint: Path) -> None:
    refuse_broken_component(checkpoint / "transformer", SOURCE)
    (checkpoint / TRANSFORMER).unlink()

    with pytest.raises(ModelUnavailable, match="no safetensors file is in it"):
        refuse_broken_component(checkpoint / "transformer", SOURCE)
