"""What a checkpoint must show before the first job: faults that loading does not report.

Shards that lack layers leave parameters without data, a lost tokenizer loads with an almost empty vocabulary,
flipped bytes give black pictures; none of it raises.
"""

from typing import Any

from torch import nn

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.render.renderer import BadPicture, ModelUnavailable, Rendering, RenderRequest

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
    prefix, _, _ = pipeline.prompt_template_encode.partition("{}")
    found, expected = len(pipeline.tokenizer(prefix).input_ids), pipeline.prompt_template_encode_start_idx
    if found != expected:
        raise ModelUnavailable(
            f"The tokenizer of {source} makes {found} tokens of the prompt template's beginning, not {expected}.",
            "Fetch the checkpoint's tokenizer folder again; prompts would be cut in the wrong place.",
        )


def trial_request(family: Family) -> RenderRequest:
    """Give the smallest picture worth looking at."""
    return RenderRequest(
        task="text-to-image",
        prompt="a red apple on a wooden table",
        negative_prompt=None,
        true_cfg_scale=1.0,
        num_inference_steps=TRIAL_STEPS,
        width=family.min_side,
        height=family.min_side,
        seed=0,
    )


def refuse_blank(trial: Rendering) -> None:
    """Raise BadPicture where the trial is one flat colour."""
    if len(trial.image.getcolors(maxcolors=trial.image.width * trial.image.height) or ()) == 1:
        raise BadPicture("The trial picture is one flat colour.", "Fetch the checkpoint again.")
