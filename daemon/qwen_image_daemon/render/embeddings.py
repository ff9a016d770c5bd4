"""Prompts as the transformer reads them: counted, refused where too long, encoded, and kept for a short while."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL.Image import Image

from qwen_image_daemon.jobs.families import Family
from qwen_image_daemon.render.differences import Difference
from qwen_image_daemon.render.models import MODELS, ModelFacts
from qwen_image_daemon.render.renderer import RenderRequest, RequestRefused

KEPT = 4
"""Prompt and negative prompt of this job and of the one before: at most 4 × 7 MB."""
_IMAGE_MARK = "<|vision_start|>"


@dataclass(frozen=True, slots=True)
class Embedding:
    """One encoded prompt: `tokens` is (1, length, width), `mask` (1, length) is 1 for each of them."""

    tokens: torch.Tensor
    mask: torch.Tensor


class PromptEncoder:
    """Encodes prompts with a pipeline's own template; the last few are remembered, over jobs, too."""

    def __init__(self, pipeline: Any, family: Family) -> None:
        self._pipeline = pipeline
        self._facts: ModelFacts = MODELS[family.name]
        self._kept: OrderedDict[tuple[str, str], Embedding | str] = OrderedDict()
        self._template = template_of(pipeline)
        self._template_tokens = self._count(self._template.format(""))
        # What the template says after the prompt is encoded with it and needs its place, too.
        closing = self._template_tokens - self._count(self._template.partition("{}")[0])
        cut_after = self._facts.cut_after
        self._limit = min(family.max_prompt_tokens, cut_after or family.max_prompt_tokens) - closing

    def differences(self, request: RenderRequest) -> Iterator[Difference]:
        """Give the prompts that the pipeline would cut. Raises RequestRefused for what it would not cut either."""
        prompts = {"prompt": request.prompt, "negative prompt": request.negative_prompt}
        for name, prompt in prompts.items():
            filled = self._filled(prompt)
            if filled <= self._limit:
                continue
            bare = request.prompt_as_written if name == "prompt" else None
            styled = bare is not None and self._filled(bare) <= self._limit
            hint = " Without the words of its style it would fit." if styled else ""
            what = f"The {name} is {filled} tokens long; the model reads {self._limit}.{hint}"
            fix = f"Shorten it by at least {filled - self._limit} tokens (a word is one to two)."
            if self._facts.cut_after is None:
                raise RequestRefused(what, fix)
            note = f"the {name} of {filled} tokens was cut after {self._limit}"
            yield Difference(what, fix, f"{note}; without the words of its style it would fit" if styled else note)

    def _filled(self, prompt: str | None) -> int:
        """Count the tokens that a prompt fills."""
        # Two tokens can become one where prompt and template meet, hence never less than the bare prompt.
        return self._count(self._template.format(prompt or "")) - self._template_tokens

    def encoded(self, prompt: str, pictures: Sequence[Image] = ()) -> Embedding:
        """Give the embedding of a prompt, and of the pictures that it is about, from memory where it is there."""
        kept = self._remembered(prompt, pictures, self._encode)
        if isinstance(kept, str):
            raise TypeError("an embedding and a caption under one key")
        return kept

    def caption(self, picture: Image, resolution: int) -> str:
        """Give the model's own words for a picture, as QwenImageLayeredPipeline finds them."""

        def describe(_: str, pictures: Sequence[Image]) -> str:
            found: str = self._pipeline.get_image_caption(
                self._scaled(pictures[0], resolution * resolution), use_en_prompt=True, device=self._device
            )
            return found

        kept = self._remembered(f"caption {resolution}", (picture,), describe)
        return str(kept)

    def forget(self) -> None:
        """Drop all embeddings."""
        self._kept.clear()

    def _remembered(self, prompt: str, pictures: Sequence[Image], make: Any) -> Embedding | str:
        key = (prompt, _digest(pictures))
        if key not in self._kept:
            self._kept[key] = make(prompt, pictures)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _encode(self, prompt: str, pictures: Sequence[Image]) -> Embedding:
        if pictures:
            tokens, mask = self._pipeline.encode_prompt(prompt, image=self._as_read(pictures))
        else:
            # 2.1 says besides where pictures are: nowhere.
            tokens, mask, *_ = self._pipeline.encode_prompt(prompt)
        if mask is None:
            # The pipeline says "all valid" with None, and warns where it is given back to it.
            mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        return Embedding(tokens, mask)

    def _as_read(self, pictures: Sequence[Image]) -> Any:
        """Scale pictures as the edit pipelines do before they encode them."""
        if "QwenImageEditPlusPipeline" in self._facts.index_classes:
            area = pipeline_qwenimage_edit_plus.CONDITION_IMAGE_SIZE
            return [self._scaled(picture, area) for picture in pictures]
        return self._scaled(pictures[0], 1024 * 1024)

    def _scaled(self, picture: Image, area: int) -> Image:
        width, height, _ = pipeline_qwenimage_edit.calculate_dimensions(area, picture.width / picture.height)
        scaled: Image = self._pipeline.image_processor.resize(picture, height, width)
        return scaled

    @property
    def _device(self) -> Any:
        return self._pipeline._execution_device  # noqa: SLF001  see pyproject

    def _count(self, text: str) -> int:
        return len(tokenizer_of(self._pipeline)(text).input_ids)


def tokenizer_of(pipeline: Any) -> Any:
    """Give a pipeline's tokenizer, which 2.1 has in its processor."""
    return pipeline.processor.tokenizer if "tokenizer" not in pipeline.components else pipeline.tokenizer


def template_of(pipeline: Any) -> str:
    """Give the text around a prompt, with {} where it goes; without pictures."""
    template: str = getattr(pipeline, "prompt_template_t2i", None) or pipeline.prompt_template_encode
    return template


def dropped_prefix(template: str) -> str:
    """Give the part of a template whose tokens the pipeline drops: up to the pictures, or to the prompt."""
    return template.partition("{}")[0].partition(_IMAGE_MARK)[0]


def _digest(pictures: Sequence[Image]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.mode} {picture.size}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()
