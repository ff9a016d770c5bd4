#!/usr/bin/env python3
"""Build a tiny checkpoint of the real Qwen-Image classes with random weights, offline, in seconds.

usage: python tools/tiny_checkpoint.py FAMILY FOLDER

Its pictures show nothing, but prompt, negative prompt, seed and source image all change them, so that everything
around a model can be tried on a CPU. Equal on every run. Does nothing where FOLDER already holds a checkpoint.
The families that look at pictures need torchvision; controlnet-union and controlnet-inpaint go with qwen-image.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageControlNetModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageLayeredPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.utils import logging as transformers_logging

INDEX = "model_index.json"
CONFIG = "config.json"
HIDDEN = 32
HEADS = 2
HEAD_SIZE = HIDDEN // HEADS
AXES = (4, 6, 6)
"""Of the rotary embedding: they must add up to the head size."""
VOCABULARY = 512
LATENT_CHANNELS = 8
"""Neither 3 nor 4: the image-to-image pipeline takes a tensor with that many channels for ready-made latents."""
VAE_WIDTH = 8
REFERENCE_VAE_WIDTH, REFERENCE_VAE_BLOCKS = 2, 0
"""The edit pipelines bring every reference to a million pixels: 7 s on a core at a width of 8."""
TURBO_SIGMAS = [1.0, 0.75, 0.5, 0.25]

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
    "Comprehend and analyze the provided prompt. You are a helpful assistant. Picture 1:",
]
"""What the merges are learned from: with them the pipelines' prefixes are as many tokens as the pipelines drop."""


CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if 'image' in part or part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""In the makers' style, as far as the pipelines need one."""


def tokenizer() -> Any:
    """Give a byte-level BPE tokenizer in which the prefixes are the 34 and 64 tokens that the pipelines drop."""
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
        chat_template=CHAT_TEMPLATE,
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


def text_encoder_of_2_1(words: Any) -> nn.Module:
    """Give a Qwen3-VL of three layers for the given tokenizer."""
    token = words.convert_tokens_to_ids
    torch.manual_seed(0)
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 3,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 1,
            "head_dim": HEAD_SIZE,
            "vocab_size": len(words),
            "max_position_embeddings": 32_768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [HEAD_SIZE // 4, HEAD_SIZE // 8, HEAD_SIZE // 8],
                "mrope_interleaved": True,
            },
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 3,
            "hidden_size": HIDDEN,
            "intermediate_size": HIDDEN,
            "num_heads": HEADS,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    model: nn.Module = Qwen3VLForConditionalGeneration(config).eval()
    return model


def processor(words: Any, kind: str) -> Any:
    """Give a processor of the Qwen2 or Qwen3 kind. Raises ImportError where torchvision is missing."""
    # transformers offers these names only where torchvision is.
    import transformers  # noqa: PLC0415

    patch = {"Qwen2VL": 14, "Qwen3VL": 16}[kind]
    pictures = transformers.Qwen2VLImageProcessor(
        min_pixels=(4 * patch) ** 2, max_pixels=1280 * (2 * patch) ** 2, patch_size=patch, merge_size=2
    )
    videos = getattr(transformers, f"{kind}VideoProcessor")(patch_size=patch)
    return getattr(transformers, f"{kind}Processor")(
        image_processor=pictures, tokenizer=words, video_processor=videos, chat_template=CHAT_TEMPLATE
    )


def transformer(seed: int = 0, **peculiarities: bool) -> nn.Module:
    """Give a Qwen-Image transformer of two blocks, with what its family switches on."""
    torch.manual_seed(seed)
    model: nn.Module = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=HIDDEN,
        guidance_embeds=False,
        axes_dims_rope=AXES,
        **peculiarities,
    ).eval()
    return strengthened(model, 2.0)


def transformer_of_2_1() -> nn.Module:
    """Give a Qwen-Image 2.1 transformer of two blocks."""
    torch.manual_seed(0)
    model: nn.Module = QwenImage21Transformer2DModel(
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        context_in_dim=HIDDEN,
        mlp_ratio=2,
        axes_dims_rope=AXES,
        causal_condition=True,
    ).eval()
    return strengthened(model, 2.0)


def controlnet(extra_channels: int) -> nn.Module:
    """Give a ControlNet of one block; the inpainting kind sees one more channel in each pixel of a 2×2 patch."""
    torch.manual_seed(1)
    model: nn.Module = QwenImageControlNetModel(
        patch_size=2,
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=1,
        attention_head_dim=HEAD_SIZE,
        num_attention_heads=HEADS,
        joint_attention_dim=HIDDEN,
        axes_dims_rope=AXES,
        extra_condition_channels=extra_channels,
    ).eval()
    with torch.no_grad():
        # A ControlNet begins with a say of zero; this one is to be seen.
        for block in model.controlnet_blocks:
            nn.init.normal_(block.weight, std=0.5)
        nn.init.normal_(model.controlnet_x_embedder.weight, std=0.5)
    return model


def vae(width: int = VAE_WIDTH, blocks: int = 1, colours: int = 3) -> nn.Module:
    """Give a Qwen-Image VAE with the real one's factor of 8, so that sizes are multiples of 16 here too."""
    torch.manual_seed(0)
    model: nn.Module = AutoencoderKLQwenImage(
        base_dim=width,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=blocks,
        temperal_downsample=[False, True, True],
        input_channels=colours,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    ).eval()
    return strengthened(model, 1.5)


def vae_of_2_1() -> nn.Module:
    """Give a Qwen-Image 2.1 VAE with the real one's factor of 16."""
    torch.manual_seed(0)
    model: nn.Module = AutoencoderKLQwenImage21(
        base_dim=VAE_WIDTH,
        decoder_base_dim=VAE_WIDTH,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        is_residual=True,
        in_channels=4,
        out_channels=4,
        scale_factor_temporal=8,
        scale_factor_spatial=16,
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
    """Give a pipeline for text-to-image and, with the same components, image-to-image and inpainting."""
    words = tokenizer()
    return QwenImagePipeline(
        scheduler=scheduler(),
        vae=vae(),
        text_encoder=text_encoder(words),
        tokenizer=words,
        transformer=transformer(),
    )


def _reading_pictures(colours: int = 3) -> dict[str, Any]:
    """Give what the edit and layered pipelines are made of, but for the transformer."""
    words = tokenizer()
    encoder: Any = text_encoder(words)
    encoder.generation_config.max_new_tokens = 8
    return {
        "scheduler": scheduler(),
        "vae": vae(REFERENCE_VAE_WIDTH, REFERENCE_VAE_BLOCKS, colours),
        "text_encoder": encoder,
        "tokenizer": words,
        "processor": processor(words, "Qwen2VL"),
    }


def edit() -> Any:
    """Give a pipeline for edits of one picture and, with the same components, of its masked part."""
    return QwenImageEditPipeline(transformer=transformer(5), **_reading_pictures())


def edit_plus() -> Any:
    """Give a pipeline for edits with several references, as Edit-2511 configures it."""
    return QwenImageEditPlusPipeline(transformer=transformer(6, zero_cond_t=True), **_reading_pictures())


def layered() -> Any:
    """Give a pipeline that takes a picture apart into layers."""
    drawing = transformer(7, use_layer3d_rope=True, use_additional_t_cond=True)
    return QwenImageLayeredPipeline(transformer=drawing, **_reading_pictures(colours=4))


def text_to_image_of_2_1(sigmas: list[float] | None = None) -> Any:
    """Give a pipeline for text-to-image and edits; `sigmas` fix its steps, as in the distilled checkpoint."""
    words = tokenizer()
    return QwenImage21Pipeline(
        scheduler=scheduler(),
        vae=vae_of_2_1(),
        text_encoder=text_encoder_of_2_1(words),
        processor=processor(words, "Qwen3VL"),
        transformer=transformer_of_2_1(),
        sample_sigmas=sigmas,
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "qwen-image": text_to_image,
    "qwen-image-edit": edit,
    "qwen-image-edit-plus": edit_plus,
    "qwen-image-layered": layered,
    "qwen-image-2.1": text_to_image_of_2_1,
    "qwen-image-2.1-turbo": partial(text_to_image_of_2_1, TURBO_SIGMAS),
    "controlnet-union": partial(controlnet, 0),
    "controlnet-inpaint": partial(controlnet, 4),
}


def build(family: str, folder: Path) -> bool:
    """Write the checkpoint, whole or not at all. Gives False where there already is one.

    Raises OSError where `folder` exists, is not empty and holds no checkpoint, ImportError where the family needs
    torchvision and there is none.
    """
    if any((folder / name).exists() for name in (INDEX, CONFIG)):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        unfinished.chmod(0o755)
        FAMILIES[family]().save_pretrained(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build a tiny random Qwen-Image checkpoint, offline.")
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("folder", type=Path, help="where the checkpoint is to be")
    wanted = parser.parse_args()
    transformers_logging.disable_progress_bar()
    if not build(wanted.family, wanted.folder):
        print(f"{wanted.folder} already holds a checkpoint")
        return
    size = sum(file.stat().st_size for file in wanted.folder.rglob("*") if file.is_file())
    print(f"{wanted.folder}: {wanted.family}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
