"""What a person may have meant by a setting that does not exist."""

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

from qwen_image_daemon.jobs.quoting import LONGEST_QUOTE
from qwen_image_daemon.jobs.tasks import TASKS, Task

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        # Words of other programs for settings that exist here.
        "step": "num_inference_steps",
        "steps": "num_inference_steps",
        "num_steps": "num_inference_steps",
        "inference_steps": "num_inference_steps",
        "sampling_steps": "num_inference_steps",
        "guidance_scale": "true_cfg_scale",
        "guidance": "true_cfg_scale",
        "cfg": "true_cfg_scale",
        "cfg_scale": "true_cfg_scale",
        "true_cfg": "true_cfg_scale",
        "n": "num_images",
        "count": "num_images",
        "images_per_prompt": "num_images",
        "num_images_per_prompt": "num_images",
        "num_outputs": "num_images",
        "batch": "num_images",
        "batch_size": "num_images",
        "n_iter": "num_images",
        "text": "prompt",
        "positive": "prompt",
        "positive_prompt": "prompt",
        "description": "prompt",
        "negative": "negative_prompt",
        "neg_prompt": "negative_prompt",
        "uncond": "negative_prompt",
        "ratio": "aspect_ratio",
        "aspect": "aspect_ratio",
        "shape": "aspect_ratio",
        "w": "width",
        "h": "height",
        "denoise": "strength",
        "denoising": "strength",
        "denoising_strength": "strength",
        "image_strength": "strength",
        "init_image": "image",
        "input_image": "image",
        "input": "image",
        "source": "image",
        "source_image": "image",
        "reference_image": "image",
        "img": "image",
        "image_path": "image",
        "mask_image": "mask",
        "mask_path": "mask",
        "image_mask": "mask",
        "inpaint_mask": "mask",
        "control_mask": "mask",
        "reference_images": "images",
        "input_images": "images",
        "source_images": "images",
        "references": "images",
        "image_paths": "images",
        "control": "control_image",
        "controlnet_image": "control_image",
        "condition_image": "control_image",
        "controlnet_conditioning_scale": "control_scale",
        "controlnet_scale": "control_scale",
        "control_strength": "control_scale",
        "control_guidance_start": "control_start",
        "control_guidance_end": "control_end",
        "controlnet_name": "controlnet",
        "controlnet_model": "controlnet",
        "num_layers": "layers",
        "layer_num": "layers",
        "lora": "loras",
        "lora_name": "loras",
        "adapters": "loras",
        "sampler": "scheduler",
        "sampler_name": "scheduler",
        "scheduler_name": "scheduler",
        "resize_mode": "fit",
        "fit_mode": "fit",
        "keep_unmasked": "preserve_unmasked",
        "start_at": "not_before",
        "start_after": "not_before",
        "run_at": "not_before",
        "after": "not_before",
        "if_exists": "on_exists",
        "on_duplicate": "on_exists",
        "duplicate": "on_exists",
        "noise_seed": "seed",
        "random_seed": "seed",
        "title": "name",
        "job_name": "name",
        "label": "name",
        "checkpoint": "model",
        "model_name": "model",
        "model_id": "model",
        "style_preset": "style",
        "style_name": "style",
        "timeout": "timeout_seconds",
        "time_limit": "timeout_seconds",
        "max_seconds": "timeout_seconds",
        "mode": "task",
        "type": "task",
        "format": "output.format",
        "output_format": "output.format",
        "file_format": "output.format",
        "quality": "output.quality",
        "jpeg_quality": "output.quality",
        "output_quality": "output.quality",
    }
)

RENAMED_IN_TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "loras": MappingProxyType(
            {
                "strength": "weight",
                "scale": "weight",
                "lora_scale": "weight",
                "multiplier": "weight",
                "file": "name",
                "path": "name",
                "lora": "name",
                "model": "name",
            }
        ),
        "scheduler": MappingProxyType({"type": "name", "scheduler": "name", "order": "solver_order"}),
    }
)
"""The same for the settings of tables."""

TASK_WORDS: Mapping[str, Task] = MappingProxyType(
    {
        # Words of other programs for tasks.
        "t2i": "text-to-image",
        "txt2img": "text-to-image",
        "text2img": "text-to-image",
        "text2image": "text-to-image",
        "text_to_image": "text-to-image",
        "generate": "text-to-image",
        "i2i": "image-to-image",
        "img2img": "image-to-image",
        "image2image": "image-to-image",
        "image_to_image": "image-to-image",
        "inpainting": "inpaint",
        "fill": "inpaint",
        "image_edit": "edit",
        "image_editing": "edit",
        "editing": "edit",
        "layers": "layered",
        "decompose": "layered",
        "control": "controlnet",
        "control_net": "controlnet",
    }
)

Explanation = tuple[str, str]

EXPLAINED: Mapping[str, Explanation] = MappingProxyType(
    {
        "guidance_scale": (
            "Qwen-Image does not use guidance_scale.",
            "Use true_cfg_scale (4.0 is the model's recommendation).",
        ),
        "image_size": ("no such setting.", "Use width and height, or aspect_ratio."),
        "dimensions": ("no such setting.", "Use width and height, or aspect_ratio."),
        "prompts": ("a job has one prompt.", "Use prompt, and a job for each prompt."),
        "seeds": (
            "a job has one seed.",
            "Use seed and num_images: image k is drawn from seed + k. Or use a job for each seed.",
        ),
        "clip_skip": ("Qwen-Image has no CLIP.", "Leave it out."),
        "device": ("a job cannot choose the device.", "Leave it out: it is set for the whole daemon."),
        "dtype": ("a job cannot choose the precision.", "Leave it out: it is set for the whole daemon."),
        "precision": ("a job cannot choose the precision.", "Leave it out: it is set for the whole daemon."),
        "output_dir": ("a job cannot choose where its pictures go.", "Leave it out: look into the outbox."),
        "output_path": ("a job cannot choose where its pictures go.", "Leave it out: look into the outbox."),
        "max_sequence_length": (
            "no such setting.",
            "Leave it out: the longest prompt that the model takes is allowed.",
        ),
    }
)

_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIMILAR = 0.75


def meant(key: str, settings: tuple[str, ...]) -> str | None:
    """Give the setting that a misspelt, renamed or differently written key most likely stands for."""
    if len(key) > LONGEST_QUOTE:
        return None
    word = plain(key)
    if word in settings:
        return word
    if word in RENAMED:
        return RENAMED[word]
    similar = difflib.get_close_matches(word, (*settings, *RENAMED), n=1, cutoff=_SIMILAR)
    return next((RENAMED.get(found, found) for found in similar), None)


def task_meant(word: str) -> Task | None:
    """Give the task that another program's word for it, or a misspelt one, most likely stands for."""
    if len(word) > LONGEST_QUOTE:
        return None
    if plain(word) in TASK_WORDS:
        return TASK_WORDS[plain(word)]
    similar = difflib.get_close_matches(plain(word).replace("_", "-"), TASKS, n=1, cutoff=_SIMILAR)
    return next((task for task in TASKS if task in similar), None)


def plain(key: str) -> str:
    """Write `numImages`, `Num-Images` and `num images` all as `num_images`."""
    return re.sub(r"[\s-]+", "_", _WORD_BORDER.sub("_", key.strip())).lower()
