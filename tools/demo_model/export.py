"""Puts the trained parts together as a QwenImagePipeline folder, in half the precision, with checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Final

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from .tokenizer import PREFIX_TOKENS, PROMPT_TEMPLATE
from .transformer_training import BASE_SHIFT, BASE_TOKENS, MAX_SHIFT, MAX_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

CHECKSUMS: Final = "CHECKSUMS"
MODEL_CARD: Final = "README.md"
MOST_BYTES: Final = 16_000_000
_PARTS: Final = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae")


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Build Qwen-Image's scheduler."""
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=BASE_TOKENS,
        base_shift=BASE_SHIFT,
        max_image_seq_len=MAX_TOKENS,
        max_shift=MAX_SHIFT,
        num_train_timesteps=1000,
        shift=1.0,
        shift_terminal=0.02,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )


def assemble(tokenizer: Path, vae: Path, trained: Path, dtype: torch.dtype) -> QwenImagePipeline:
    """Load the parts from where they were trained. Raises ValueError if the prompt template has changed."""
    pipeline = QwenImagePipeline(
        scheduler=scheduler(),
        vae=AutoencoderKLQwenImage.from_pretrained(vae, torch_dtype=dtype),
        text_encoder=Qwen2_5_VLForConditionalGeneration.from_pretrained(trained / "text_encoder", dtype=dtype),
        tokenizer=Qwen2Tokenizer.from_pretrained(tokenizer),
        transformer=QwenImageTransformer2DModel.from_pretrained(trained / "transformer", torch_dtype=dtype),
    )
    if (pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx) != (
        PROMPT_TEMPLATE,
        PREFIX_TOKENS,
    ):
        msg = "this version of diffusers wraps prompts in another template than the one that was trained"
        raise ValueError(msg)
    return pipeline


def unpack(folder: Path, work: Path) -> None:
    """Take an exported checkpoint apart, in float32, into what training goes on from; the reverse of `export`."""
    pipeline = QwenImagePipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.tokenizer.save_pretrained(work / "tokenizer")
    pipeline.vae.save_pretrained(work / "vae")
    pipeline.text_encoder.save_pretrained(work / "unpacked" / "text_encoder")
    pipeline.transformer.save_pretrained(work / "unpacked" / "transformer")


def export(tokenizer: Path, vae: Path, trained: Path, folder: Path, dtype: torch.dtype = torch.float16) -> int:
    """Write the checkpoint to `folder` and return its size in bytes. Other files there, the model card, stay.

    In float16: none of its weights is larger than 6, and it keeps them eight times as exactly as bfloat16 would.

    Raises ValueError if the whole is larger than 16 MB.
    """
    for part in _PARTS:
        path = folder / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    assemble(tokenizer, vae, trained, dtype).save_pretrained(folder)
    for part in _PARTS:
        for file in (folder / part).rglob("*") if (folder / part).is_dir() else [folder / part]:
            # Weights come as readable for their owner only.
            file.chmod(0o644)
            if file.suffix == ".json":
                _forget_origin(file)
    write_checksums(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        msg = f"{size / 1e6:.1f} MB are more than {MOST_BYTES / 1e6:.0f} MB"
        raise ValueError(msg)
    return size


def _forget_origin(file: Path) -> None:
    """Drop the path of the folder that a part was loaded from."""
    content = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file of the model, in the format that `sha256sum --check` reads.

    The model card is left out: its words may be mended without a change to the model.
    """
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in {CHECKSUMS, MODEL_CARD}
    ]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
