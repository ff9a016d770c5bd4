#!/usr/bin/env python3
"""Build a tiny Qwen-Image checkpoint of the real classes with random weights, offline, in seconds.

usage: python tools/tiny_checkpoint.py FOLDER [--kind KIND]

Its pictures show nothing, but prompt, negative prompt, seed and source image all change them, so that everything
around a model can be tried on a CPU. Equal on every run. Does nothing where FOLDER already holds a checkpoint.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.utils import logging as transformers_logging

INDEX = "model_index.json"
HIDDEN = 32
HEADS = 2
HEAD_SIZE = HIDDEN // HEADS
VOCABULARY = 512
LATENT_CHANNELS = 8
"""Neither 3 nor 4: the image-to-image pipeline takes a tensor with that many channels for ready-made latents."""

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
SYSTEM_PROMPTS = [
    "system user assistant",
    (
        "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
        "of the objects and background:"
    ),
    (
        "Describe the key features of the input image (color, shape, size, texture, objects, background), "
        "then explain how the user's text instruction should alter or modify the image. Generate a new image "
        "that meets the user's requirements while maintaining consistency with the original input where "
        "appropriate."
    ),
]
"""What the merges are learned from: with them the pipelines' prefixes are as many tokens as the pipelines drop."""


def tokenizer() -> Any:
    """Give a byte-level BPE tokenizer in which the text-to-image prefix is exactly 34 tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.train_from_iterator(SYSTEM_PROMPTS * 4, trainer=trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]  # annotated as strings, read as pairs
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        eos_token="<|im_end|>",  # noqa: S106  no password
        pad_token="<|endoftext|>",  # noqa: S106
        unk_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=SPECIAL_TOKENS,
        model_max_length=131_072,
        padding_side="right",
    )


def text_encoder(words: Any) -> nn.Module:
    """Give a Qwen2.5-VL of two layers for the given tokenizer."""
    token = words.convert_tokens_to_ids
    torch.manual_seed(0)
    half = HEAD_SIZE // 2
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 1,
            "vocab_size": len(words),
            "max_position_embeddings": 32_768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half // 4, half // 4, half // 2],  # must add up to half the head size
            },
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN,
            "num_heads": HEADS,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    model: nn.Module = Qwen2_5_VLForConditionalGeneration(config).eval()
    return model


def transformer() -> nn.Module:
    """Give a Qwen-Image transformer of two blocks."""
    torch.manual_seed(0)
    model: nn.Module = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=HIDDEN,
        guidance_embeds=False,
        axes_dims_rope=(4, 6, 6),  # must add up to the head size
    ).eval()
    return strengthened(model, 2.0)


def vae() -> nn.Module:
    """Give a Qwen-Image VAE with the real one's factor of 8, so that sizes are multiples of 16 here too."""
    torch.manual_seed(0)
    model: nn.Module = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    ).eval()
    return strengthened(model, 1.5)


def strengthened(model: nn.Module, factor: float) -> nn.Module:
    """Scale all matrices up: with the usual initialisation two prompts give the same 8-bit picture."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
    return model


def scheduler() -> Any:
    """Give the scheduler as Qwen/Qwen-Image configures it."""
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        num_train_timesteps=1000,
        shift=1.0,
        shift_terminal=0.02,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )


def text_to_image() -> Any:
    """Give a pipeline for text-to-image and, with the same components, image-to-image."""
    words = tokenizer()
    return QwenImagePipeline(
        scheduler=scheduler(),
        vae=vae(),
        text_encoder=text_encoder(words),
        tokenizer=words,
        transformer=transformer(),
    )


KINDS: dict[str, Callable[[], Any]] = {"text-to-image": text_to_image}


def build(folder: Path, kind: str) -> bool:
    """Write the checkpoint, whole or not at all. Gives False where there already is one.

    Raises OSError where `folder` exists, is not empty and holds no checkpoint.
    """
    if (folder / INDEX).exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        KINDS[kind]().save_pretrained(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build a tiny random Qwen-Image checkpoint, offline.")
    parser.add_argument("folder", type=Path, help="where the checkpoint is to be")
    parser.add_argument("--kind", choices=sorted(KINDS), default="text-to-image")
    wanted = parser.parse_args()
    transformers_logging.disable_progress_bar()
    if not build(wanted.folder, wanted.kind):
        print(f"{wanted.folder} already holds a checkpoint")
        return
    size = sum(file.stat().st_size for file in wanted.folder.rglob("*") if file.is_file())
    print(f"{wanted.folder}: {wanted.kind}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
