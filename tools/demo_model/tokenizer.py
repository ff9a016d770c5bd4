"""The tokenizer: a real Qwen2Tokenizer with a small byte-level vocabulary, learnt from the captions.

QwenImagePipeline wraps each prompt in a template and drops the template's first 34 tokens. So the vocabulary
must have every word of the template as one token; otherwise part of the template is kept or the beginning of the
prompt is lost.
"""

# Lots are drawn for pictures here, not for secrets.
# ruff: noqa: S311

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from .captions import (
    CENTRE_WORDS,
    EMPTY_PROMPTS,
    ENDINGS,
    LARGE_WORDS,
    OPENINGS,
    PLACE_WORDS,
    PLURALS,
    SHAPE_SYNONYMS,
    SMALL_WORDS,
    free_caption,
)
from .world import COLOURS, LAYOUTS, SHAPES, training_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPT_TEMPLATE: Final = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""QwenImagePipeline.prompt_template_encode; `export` checks that it still is."""
PREFIX_TOKENS: Final = 34
"""QwenImagePipeline.prompt_template_encode_start_idx."""
SPECIAL_TOKENS: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_VOCABULARY: Final = 1016
_CAPTIONS: Final = 40_000
_REPEATS: Final = 4_000


def _spoken_words() -> Iterator[str]:
    phrases = [
        *COLOURS,
        "grey",
        *SHAPES,
        *PLURALS.values(),
        *SMALL_WORDS,
        *LARGE_WORDS,
        *CENTRE_WORDS,
        *OPENINGS,
        *ENDINGS,
    ]
    phrases += [
        "above below under beneath over left right inside next to of on the a an and with",
        "background one two three pair",
    ]
    for synonyms in (*SHAPE_SYNONYMS.values(), *PLACE_WORDS.values()):
        phrases += synonyms
    for phrase in phrases:
        yield from phrase.replace(",", "").split()


def _corpus(seed: int) -> Iterator[str]:
    template = PROMPT_TEMPLATE
    for token in SPECIAL_TOKENS:
        template = template.replace(token, "\n")
    yield from [template.format("x")] * _REPEATS
    for word in _spoken_words():
        for form in (
            word,
            f" {word}",
            word.capitalize(),
            f" {word.capitalize()}",
            word.upper(),
            f" {word.upper()}",
        ):
            yield from [form] * 60
    yield from EMPTY_PROMPTS * 50
    rng = random.Random(seed)
    for index in range(_CAPTIONS):
        yield free_caption(training_scene(rng, LAYOUTS[index % len(LAYOUTS)]), rng)


def build_tokenizer(folder: Path, seed: int = 0) -> Qwen2Tokenizer:
    """Learn the vocabulary, save the tokenizer into `folder`, and return it as loaded from there.

    Raises ValueError if the template's prefix isn't exactly what the pipeline drops.
    """
    model = Tokenizer(BPE())
    model.normalizer = normalizers.NFC()
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=30,
        show_progress=False,
    )
    model.train_from_iterator(_corpus(seed), trainer)
    learnt = json.loads(model.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        eos_token="<|im_end|>",  # noqa: S106 (no password)
        pad_token="<|endoftext|>",  # noqa: S106
        unk_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
    )
    tokenizer.save_pretrained(folder)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    prefix = len(tokenizer(PROMPT_TEMPLATE.split("{}", maxsplit=1)[0]).input_ids)
    if prefix != PREFIX_TOKENS:
        msg = f"the template's prefix has {prefix} tokens, the pipeline drops {PREFIX_TOKENS}"
        raise ValueError(msg)
    return tokenizer
