"""Prompts as the transformer reads them: counted, refused where too long, encoded, and kept for a short while."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from qwen_image_daemon.render.renderer import RequestRefused

KEPT = 4
"""Prompt and negative prompt of this job and of the one before: at most 4 × 7 MB."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """One encoded prompt: `tokens` is (1, length, width), `mask` (1, length) is 1 for each of them."""

    tokens: torch.Tensor
    mask: torch.Tensor


class PromptEncoder:
    """Encodes prompts with a pipeline's own template; the last few are remembered, over jobs, too."""

    def __init__(self, pipeline: Any, max_prompt_tokens: int) -> None:
        self._pipeline = pipeline
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        template = pipeline.prompt_template_encode
        self._template_tokens = self._count(template.format(""))
        # What the template says after the prompt is encoded with it and needs its place, too.
        closing = self._template_tokens - pipeline.prompt_template_encode_start_idx
        self._limit = min(max_prompt_tokens, pipeline.tokenizer_max_length) - closing

    def refuse_long(self, name: str, prompt: str) -> None:
        """Raise RequestRefused where the pipeline would cut the prompt. `name` says which prompt it is."""
        # Two tokens can become one where prompt and template meet, hence never less than the bare prompt.
        filled = self._count(self._pipeline.prompt_template_encode.format(prompt)) - self._template_tokens
        if filled > self._limit:
            raise RequestRefused(
                f"The {name} is {filled} tokens long; the model reads {self._limit}.",
                f"Shorten it by at least {filled - self._limit} tokens (a word is one to two).",
            )

    def encoded(self, prompt: str) -> Embedding:
        """Give the prompt's embedding, from memory where it was among the last few."""
        if prompt not in self._kept:
            self._kept[prompt] = self._encode(prompt)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt)
        return self._kept[prompt]

    def forget(self) -> None:
        """Drop all embeddings."""
        self._kept.clear()

    def _encode(self, prompt: str) -> Embedding:
        tokens, mask = self._pipeline.encode_prompt(prompt)
        if mask is None:
            # The pipeline says "all valid" with None, and warns where it is given back to it.
            mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        return Embedding(tokens, mask)

    def _count(self, text: str) -> int:
        return len(self._pipeline.tokenizer(text).input_ids)
