"""What a checkpoint must show before the first job: faults that loading does not report.

Shards that lack layers leave parameters without data, a lost tokenizer loads with an almost empty vocabulary,
flipped bytes give black pictures; none of it raises.
"""

from typing import Any

from torch import nn

from qwen_image_daemon.render.embeddings import dropped_prefix, template_of, tokenizer_of
from qwen_image_daemon.render.renderer import ModelUnavailable


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
