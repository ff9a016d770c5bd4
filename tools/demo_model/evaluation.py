"""Measures the demo model: renders held-out prompts with the real pipeline and reads the pictures back."""

# Lots are drawn for pictures here, not for secrets.
# ruff: noqa: S311

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.progress import track

from .captions import COMPLETE, free_caption, plain_caption
from .curriculum import kept
from .judging import FIT_WANTED, Verdict, judge
from .reader import Reading, read
from .world import Layout, Scene, evaluation_scene, training_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusers import QwenImagePipeline

NEGATIVE_PROMPT: Final = " "
_AT_ONCE_PIXELS: Final = 20 * 128 * 128


@dataclass(frozen=True, slots=True)
class Question:
    """A scene and the prompt that asks for it."""

    scene: Scene
    prompt: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The picture that a question got, and what is to be seen on it."""

    question: Question
    picture: Image.Image
    reading: Reading
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Preset:
    """How pictures are rendered; the default is the one that the model card's scores hold for."""

    width: int = 128
    height: int = 128
    steps: int = 20
    scale: float = 4.0


def practice_scene(rng: random.Random, layout: Layout) -> Scene:
    """Draw a scene as training does, hard ones more often: for choices that must not see what is held out."""
    return training_scene(rng, layout, kept)


def questions(
    layout: Layout, count: int, seed: int, draw: Callable[[random.Random, Layout], Scene] = evaluation_scene
) -> list[Question]:
    """Draw scenes, held-out ones unless told otherwise.

    Every other prompt is plain, the others vary in form but name everything.
    """
    rng = random.Random(f"{layout} {seed}")
    asked = []
    for index in range(count):
        scene = draw(rng, layout)
        prompt = free_caption(scene, rng, COMPLETE) if index % 2 else plain_caption(scene, rng)
        asked.append(Question(scene, prompt))
    return asked


def answer(pipeline: QwenImagePipeline, asked: Sequence[Question], preset: Preset) -> list[Answer]:
    """Render each question with the seed of its index and judge the picture."""
    at_once = max(1, _AT_ONCE_PIXELS // (preset.width * preset.height))
    answers = []
    for start in track(range(0, len(asked), at_once), f"{preset.width}x{preset.height}"):
        some = asked[start : start + at_once]
        pictures = pipeline(
            prompt=[question.prompt for question in some],
            negative_prompt=[NEGATIVE_PROMPT] * len(some),
            width=preset.width,
            height=preset.height,
            num_inference_steps=preset.steps,
            true_cfg_scale=preset.scale,
            generator=[torch.Generator().manual_seed(start + offset) for offset in range(len(some))],
        ).images
        for question, picture in zip(some, pictures, strict=True):
            reading = read(picture)
            verdict = judge(question.scene, reading, preset.width, preset.height)
            answers.append(Answer(question, picture, reading, verdict))
    return answers


def _all_fit(reading: Reading) -> bool:
    return all(seen.fit >= FIT_WANTED for seen in reading.objects)


def scores(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the share of answers that are right, whole and part by part, and the shapes' mean overlap.

    "strict" is the share that would be right if thin shapes too had to overlap by FIT_WANTED.
    """
    parts = {field.name: 0.0 for field in dataclasses.fields(Verdict)}
    for name in parts:
        parts[name] = float(np.mean([getattr(one.verdict, name) for one in answers]))
    fits = [seen.fit for one in answers for seen in one.reading.objects]
    return {
        "right": float(np.mean([one.verdict.right for one in answers])),
        "strict": float(np.mean([one.verdict.right and _all_fit(one.reading) for one in answers])),
        **parts,
        "fit": float(np.mean(fits)) if fits else 0.0,
    }


def weak_words(answers: Sequence[Answer]) -> list[tuple[str, float, int]]:
    """Return (word, share right, number asked) for shapes, sizes, colours and backgrounds, the weakest first."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for one in answers:
        scene = one.question.scene
        words = {f"{scene.background} background", *(thing.shape for thing in scene.things)}
        words |= {thing.colour for thing in scene.things}
        if scene.layout == "single":
            words.add(scene.things[0].size)
        asked.update(words)
        if one.verdict.right:
            right.update(words)
    return sorted(((word, right[word] / asked[word], asked[word]) for word in asked), key=lambda entry: entry[1])


def contact_sheet(answers: Sequence[Answer], columns: int = 8) -> Image.Image:
    """Put the pictures on one sheet with their prompts: green where right, red where not."""
    width, height = answers[0].picture.size
    rows = -(-len(answers) // columns)
    sheet = Image.new("RGB", (columns * (width + 6), rows * (height + 36)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, one in enumerate(answers):
        x, y = (index % columns) * (width + 6), (index // columns) * (height + 36)
        sheet.paste(one.picture, (x, y))
        ink = (0, 110, 0) if one.verdict.right else (200, 0, 0)
        for line, text in enumerate(_wrapped(one.question.prompt, max(10, width // 6))[:3]):
            pen.text((x, y + height + 11 * line), text, fill=ink)
    return sheet


def _wrapped(text: str, letters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
