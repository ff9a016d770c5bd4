"""What a checkpoint must show before the first job: faults that loading does not report.

Shards that lack layers leave parameters without data, a lost tokenizer loads with an almost empty vocabulary,
flipped bytes give black pictures; none of it raises.
"""

from dataclasses import replace
from typing import Any

from PIL import Image
from torch import nn

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.render.embeddings import dropped_prefix, template_of, tokenizer_of
from qwen_image_daemon.render.renderer import ModelUnavailable, RenderRequest

TRIAL_STEPS = 2
"""One step alone gives NaN with the makers' scheduler."""


def refuse_incomplete(pipeline: Any, source: str) -> None:
    """Raise ModelUnavailable where weights or vocabulary are missing: no other precision mends that."""
    for name, component in pipeline.components.items():
        if isinstance(component, nn.Module):
            missing = [
                key
                for key, tensor in (*component.named_parameters(), *component.named_buffers())
                if tensor.is_meta
            ]
            if missing:
                raise ModelUnavailable(
                    f"{source} has no weights for {len(missing)} tensors of its {name}, {missing[0]} first.",
                    "Fetch the checkpoint again; the file and its config.json do not belong together.",
                )
    _refuse_vocabulary(pipeline, source)


def _refuse_vocabulary(pipeline: Any, source: str) -> None:
    cure = "Fetch the checkpoint's tokenizer folder again; prompts would be cut in the wrong place."
    tokenizer = tokenizer_of(pipeline)
    expected = getattr(pipeline, "prompt_template_encode_start_idx", None)
    found = len(tokenizer(dropped_prefix(template_of(pipeline))).input_ids)
    if expected is not None and found != expected:
        raise ModelUnavailable(
            f"The tokenizer of {source} makes {found} tokens of the prompt template's beginning, not {expected}.",
            cure,
        )
    # 2.1 counts what it drops with the tokenizer itself: another question, for all of them.
    wanted = getattr(pipeline.text_encoder.config, "image_token_id", None)
    if wanted is not None and tokenizer.convert_tokens_to_ids("<|image_pad|>") != wanted:
        raise ModelUnavailable(
            f"The tokenizer of {source} does not know the text encoder's mark for pictures (token {wanted}).", cure
        )


def trial_request(family: Family) -> RenderRequest:
    """Give the smallest picture worth looking at, of a kind that the family draws."""
    side = family.min_side
    plain = RenderRequest(
        task="text-to-image",
        prompt="a red apple on a wooden table",
        negative_prompt=None,
        true_cfg_scale=1.0,
        num_inference_steps=family.fixed_steps or TRIAL_STEPS,
        width=side,
        height=side,
        seed=0,
    )
    gradient = Image.linear_gradient("L").resize((side, side))
    if "text-to-image" in family.tasks:
        return plain
    if "edit" in family.tasks:
        return replace(plain, task="edit", references=(gradient.convert("RGB"),))
    resolution = 640
    return replace(
        plain,
        task="layered",
        source=gradient.convert("RGBA"),
        layers=1,
        resolution=resolution,
        width=resolution,
        height=resolution,
    )
