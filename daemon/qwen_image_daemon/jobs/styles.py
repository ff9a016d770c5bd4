"""Named styles: what is written around a prompt, in the prompt's own language. Pure functions over text.

A style is asked for by name and is off by default; what was asked and what was drawn are both recorded.
"""
# ruff: noqa: RUF001  Chinese text has Chinese commas

import difflib
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from qwen_image_daemon.jobs.quoting import is_control, quoted

Language = Literal["en", "zh"]

PLACEHOLDER: Final = "{prompt}"
MAX_TEMPLATE_CHARACTERS: Final = 2_000
MAX_STYLE_NAME_CHARACTERS: Final = 80
_SIMILAR = 0.6
_SENTENCE_ENDS = " \t\n.,;。，；、"
"""What a prompt may end in and a template goes on from."""


@dataclass(frozen=True, slots=True)
class Style:
    """Templates by the prompt's language, each with {prompt} in it once. None leaves such prompts as they are."""

    en: str | None = None
    zh: str | None = None

    def template(self, language: Language | None) -> str | None:
        """Give the template for prompts of a language."""
        match language:
            case "en":
                return self.en
            case "zh":
                return self.zh
            case None:
                return None


STYLES: Mapping[str, Style] = MappingProxyType(
    {
        # The suffixes alone, as the makers add them to every prompt: `positive_magic` in the model card of
        # Qwen/Qwen-Image (https://huggingface.co/Qwen/Qwen-Image), to the letter.
        "makers": Style(
            en="{prompt}, Ultra HD, 4K, cinematic composition.",
            zh="{prompt}, 超清，4K，电影级构图.",
        ),
        # The others are our own words; that of the cinema ends in the makers'.
        "photo": Style(
            en="{prompt}. Realistic photograph, natural light, fine detail, true colours.",
            zh="{prompt}。真实摄影，自然光，细节清晰，色彩真实。",
        ),
        "cinematic": Style(
            en="{prompt}. Film still, dramatic light, shallow focus, Ultra HD, 4K, cinematic composition.",
            zh="{prompt}。电影剧照，戏剧性光影，浅景深，超清，4K，电影级构图.",
        ),
        "illustration": Style(
            en="{prompt}. Illustration, clean lines, harmonious colours, carefully drawn.",
            zh="{prompt}。插画，线条干净，色彩和谐，绘制精细。",
        ),
        "product": Style(
            en="{prompt}. Product photograph, plain seamless background, soft studio light, sharp focus.",
            zh="{prompt}。产品摄影，纯色无缝背景，柔和棚拍光，对焦清晰。",
        ),
        "poster": Style(
            en="{prompt}. Poster design, bold composition, clear legible lettering, balanced margins.",
            zh="{prompt}。海报设计，构图醒目，文字清晰易读，留白均衡。",
        ),
    }
)
"""What every daemon knows; the settings may add to it and replace in it."""


def language_of(prompt: str) -> Language | None:
    """Say in which language templates for a prompt are written; None where its script is neither of the two.

    Chinese where it holds CJK ideographs, as the makers tell the two apart
    (`get_caption_language`, https://github.com/QwenLM/Qwen-Image); English where all letters are Latin. One letter
    of any other script, Japanese kana and Korean among them, leaves the prompt alone.
    """
    scripts = {_script_of(character) for character in set(prompt) if unicodedata.category(character) in _LETTERS}
    if "other" in scripts or not scripts:
        return None
    return "zh" if "zh" in scripts else "en"


_LETTERS = frozenset({"Lu", "Ll", "Lt", "Lo"})


def _script_of(letter: str) -> Language | Literal["other"]:
    name = unicodedata.name(letter, "")
    if name.startswith("CJK ") and "IDEOGRAPH" in name:
        return "zh"
    # º, ª and µ are typed in Latin text and named otherwise.
    return "en" if "LATIN" in name or name.endswith((" INDICATOR", " SIGN")) else "other"


def in_style(prompt: str, style: Style) -> str:
    """Give the prompt with the style's words around it; as it is where the style has none in its language."""
    template = style.template(language_of(prompt))
    if template is None:
        return prompt
    before, _, after = template.partition(PLACEHOLDER)
    # "a fox." and ", Ultra HD" would give "a fox., Ultra HD".
    told = prompt.rstrip(_SENTENCE_ENDS) if after[:1] and after[0] in _SENTENCE_ENDS else prompt
    return f"{before}{told}{after}"


def fault_of_template(template: str) -> str | None:
    """Say what is wrong with a template; None where it can be used."""
    if template.count(PLACEHOLDER) != 1:
        return f"it must hold {PLACEHOLDER} exactly once, where the prompt goes"
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        return f"it has {len(template):,} characters; {MAX_TEMPLATE_CHARACTERS:,} are allowed"
    if any(is_control(character) and character not in "\n\t" for character in template):
        return "it holds a control character"
    return None


def similar_name(name: str, known: Collection[str]) -> str | None:
    """Give the style, or whatever else has names, that a misspelt one most likely stands for."""
    plain = {known_name.casefold(): known_name for known_name in known}
    found = difflib.get_close_matches(name.strip().casefold(), plain, n=1, cutoff=_SIMILAR)
    return plain[found[0]] if found else None


def untouched(style: str) -> str:
    """Say, in a result, that a style that was asked for changed nothing."""
    return f"style {quoted(style)} has no words in the prompt's language: the prompt was drawn as it is"
