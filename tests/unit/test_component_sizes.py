"""Sizes are read from the files' headers, and a file that is not whole is named."""

import shutil
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline
from torch import nn

from qwen_image_daemon.render.component_sizes import sizes_of_folder
from qwen_image_daemon.render.renderer import ModelUnavailable
from sharding import split_into_shards

TRANSFORMER = Path("transformer/diffusion_pytorch_model.safetensors")


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_headers_say_what_the_loaded_model_has(tiny_checkpoint: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny_checkpoint)

    sizes = sizes_of_folder(tiny_checkpoint)

    blocks = pipeline.transformer.transformer_blocks
    assert sizes.transformer == count(pipeline.transformer)
    assert sizes.modulation == sum(count(block.img_mod) + count(block.txt_mod) for block in blocks)
    assert sizes.block == count(blocks[0])
    assert sizes.blocks == len(blocks)
    assert sizes.text_encoder + sizes.text_encoder_head == count(pipeline.text_encoder)
    assert sizes.text_encoder_head == count(pipeline.text_encoder.lm_head)
    assert sizes.vae == count(pipeline.vae)


def test_shards_are_added_up(checkpoint: Path) -> None:
    whole = sizes_of_folder(checkpoint)
    split_into_shards(checkpoint / TRANSFORMER)

    assert sizes_of_folder(checkpoint) == whole


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    _, second = split_into_shards(checkpoint / TRANSFORMER)
    second.unlink()

    with pytest.raises(ModelUnavailable, match=f"{second.name} could not be loaded: it is missing"):
        sizes_of_folder(checkpoint)


def test_a_shard_that_is_cut_short_is_named_with_both_lengths(checkpoint: Path) -> None:
    shard, _ = split_into_shards(checkpoint / TRANSFORMER)
    content = shard.read_bytes()
    shard.write_bytes(content[:-7])

    with pytest.raises(
        ModelUnavailable, match=rf"{shard.name} .*it has {len(content) - 7} bytes instead of {len(content)}"
    ):
        sizes_of_folder(checkpoint)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"<html>not found</html>", b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"[]"]
)
def test_what_is_no_safetensors_file_is_named(checkpoint: Path, content: bytes) -> None:
    (checkpoint / TRANSFORMER).write_bytes(content)

    with pytest.raises(ModelUnavailable, match=rf"{TRANSFORMER.name} could not be loaded"):
        sizes_of_folder(checkpoint)


def test_a_component_without_weights_is_named(checkpoint: Path) -> None:
    (checkpoint / TRANSFORMER).unlink()

    with pytest.raises(ModelUnavailable, match="transformer could not be loaded: no safetensors file"):
        sizes_of_folder(checkpoint)
