"""Words for scenes: the sentence forms that the demo model is trained to follow.

A caption never says anything untrue of its scene; what it leaves out, the picture is free to choose.
"""

# Lots are drawn for pictures here, not for secrets, and a probability says itself what it is.
# ruff: noqa: PLR2004

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .world import Place, Scene, Thing

SHAPE_SYNONYMS: Final[Mapping[str, Sequence[str]]] = {
    "circle": ("disk", "disc", "dot"),
    "square": ("box",),
    "triangle": (),
    "star": ("five-pointed star",),
    "heart": ("love heart",),
    "diamond": ("rhombus",),
    "cross": ("plus sign", "plus"),
    "ring": ("donut", "hoop"),
}
PLURALS: Final[Mapping[str, str]] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "heart": "hearts",
    "diamond": "diamonds",
    "cross": "crosses",
    "ring": "rings",
}
PLACE_WORDS: Final[Mapping[Place, Sequence[str]]] = {
    (0, 0): ("in the top left corner", "at the top left", "in the upper left"),
    (1, 0): ("at the top", "near the top"),
    (2, 0): ("in the top right corner", "at the top right", "in the upper right"),
    (0, 1): ("on the left", "on the left side"),
    (2, 1): ("on the right", "on the right side"),
    (0, 2): ("in the bottom left corner", "at the bottom left", "in the lower left"),
    (1, 2): ("at the bottom", "near the bottom"),
    (2, 2): ("in the bottom right corner", "at the bottom right", "in the lower right"),
}
CENTRE_WORDS: Final = ("in the center", "in the middle", "in the centre")
SMALL_WORDS: Final = ("small", "small", "tiny", "little")
LARGE_WORDS: Final = ("large", "large", "big", "huge")
OPENINGS: Final = (
    "a picture of ",
    "an image of ",
    "a photo of ",
    "a drawing of ",
    "an illustration of ",
    "a painting of ",
    "a simple picture of ",
    "a flat icon of ",
    "draw ",
    "please draw ",
    "show me ",
    "generate ",
    "create an image with ",
    "there is ",
)
ENDINGS: Final = (
    ", minimalist",
    ", flat design",
    ", high quality",
    ", highly detailed",
    ", vector art",
    ", simple",
    ", clean",
    ", ultra HD, 4K, cinematic composition",
    ", best quality",
    ", 4k",
    ", sharp edges",
    ", digital art",
    ", masterpiece",
)
EMPTY_PROMPTS: Final = (
    *(" ",) * 12,
    *("",) * 3,
    "low quality, blurry",
    "blurry",
    "low quality",
    "worst quality, deformed, ugly",
    "text, watermark",
    "bad, ugly, blurry",
)
"""What stands for no prompt at all in training, so that guidance has something to push away from."""

_ABOVE: Final = ("above", "above", "over")
_BELOW: Final = ("below", "below", "under", "beneath")
_LEFT: Final = ("to the left of", "to the left of", "left of")
_RIGHT: Final = ("to the right of", "to the right of", "right of")
_INSIDE: Final = ("inside", "inside", "in", "inside of")
_NUMBERS: Final[Mapping[int, Sequence[str]]] = {2: ("two", "two", "2", "a pair of"), 3: ("three", "three", "3")}


@dataclass(frozen=True, slots=True)
class Openness:
    """How often a caption leaves something to the picture's choice, as probabilities."""

    colour: float = 0.05
    shape: float = 0.03
    size: float = 0.2
    arrangement: float = 0.10
    background: float = 0.06
    white_background: float = 0.5


OPEN: Final = Openness()
COMPLETE: Final = Openness(0, 0, 0, 0, 0, 0)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _spelled(rng: random.Random, colour: str) -> str:
    return "grey" if colour == "gray" and rng.random() < 0.4 else colour


def _words_for(rng: random.Random, thing: Thing, openness: Openness, *, plural: bool = False) -> str:
    """Return size, colour and shape without an article. Never leaves both colour and shape open."""
    lot = rng.random()
    any_colour = lot < openness.colour
    any_shape = not any_colour and lot < openness.colour + openness.shape
    shape, colour = thing.shape, _spelled(rng, thing.colour)
    if plural:
        shape = PLURALS[shape]
    elif SHAPE_SYNONYMS[shape] and rng.random() < 0.10:
        shape = rng.choice(SHAPE_SYNONYMS[shape])
    words = []
    if thing.size != "medium" and rng.random() >= openness.size:
        words.append(rng.choice(SMALL_WORDS if thing.size == "small" else LARGE_WORDS))
    if not any_colour:
        words.append(colour)
    if any_shape:
        shape = rng.choice(("shapes", "objects") if plural else ("shape", "object", "figure"))
    return " ".join((*words, shape))


def _phrase(rng: random.Random, thing: Thing, openness: Openness) -> str:
    words = _words_for(rng, thing, openness)
    article = rng.choices(("a", "", "the", "one"), (0.82, 0.10, 0.05, 0.03))[0]
    if article == "a":
        return _with_article(words)
    return f"{article} {words}".strip()


def _body(rng: random.Random, scene: Scene, openness: Openness) -> str:
    """Say everything about the things of a scene, nothing about its background."""
    match scene.layout:
        case "single":
            body = _phrase(rng, scene.things[0], openness)
            return f"{body} {rng.choice(CENTRE_WORDS)}" if rng.random() < 0.08 else body
        case "placed":
            assert scene.place is not None
            return f"{_phrase(rng, scene.things[0], openness)} {rng.choice(PLACE_WORDS[scene.place])}"
        case "count":
            number = rng.choice(_NUMBERS[len(scene.things)])
            return f"{number} {_words_for(rng, scene.things[0], openness, plural=True)}"
        case "inside":
            outer, inner = scene.things
            outer_words = _with_article(" ".join((_spelled(rng, outer.colour), outer.shape)))
            return f"{_phrase_of_medium(rng, inner)} {rng.choice(_INSIDE)} {outer_words}"
        case "above" | "left":
            return _related(rng, scene, openness)


def _related(rng: random.Random, scene: Scene, openness: Openness) -> str:
    """Relate two things in either direction; now and then leave open how they stand."""
    first, second = (_phrase(rng, thing, openness) for thing in scene.things)
    lot = rng.random()
    if lot < openness.arrangement:
        one, other = rng.sample((first, second), 2)
        return f"{one} {rng.choice(('and', 'and', 'with', 'next to'))} {other}"
    if lot < 0.55:
        return f"{first} {rng.choice(_ABOVE if scene.layout == 'above' else _LEFT)} {second}"
    return f"{second} {rng.choice(_BELOW if scene.layout == 'above' else _RIGHT)} {first}"


def _phrase_of_medium(rng: random.Random, thing: Thing) -> str:
    # The inner shape is small because of where it is; the word would teach another meaning of "small".
    return _with_article(f"{_spelled(rng, thing.colour)} {thing.shape}")


def _with_background(rng: random.Random, body: str, background: str) -> str:
    colour = _spelled(rng, background)
    article = _with_article(colour)
    return rng.choices(
        (
            f"{body} on {article} background",
            f"{body} on {colour}",
            f"{body}, {colour} background",
            f"{body} against {article} background",
            f"{body} with {article} background",
            f"{article} background with {body}",
            f"{colour} background, {body}",
        ),
        (0.56, 0.08, 0.10, 0.07, 0.07, 0.06, 0.06),
    )[0]


def _pseudo_word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 8)))


def _with_noise(rng: random.Random, body: str) -> str:
    """Add what should make no difference: openings, endings, unknown words, another case, a full stop."""
    if rng.random() < 0.20:
        body = rng.choice(OPENINGS) + body
    if rng.random() < 0.13:
        body += rng.choice(ENDINGS)
    if rng.random() < 0.04:
        body += ", " + " ".join(_pseudo_word(rng) for _ in range(rng.randint(1, 2)))
    lot = rng.random()
    if lot < 0.20:
        body = body[0].upper() + body[1:]
    elif lot < 0.24:
        body = body.upper()
    elif lot < 0.27:
        body = body.title()
    if rng.random() < 0.15:
        body += "."
    return body


def plain_caption(scene: Scene, rng: random.Random) -> str:
    """Name everything in one of the plain forms: "a red circle above a blue square on a white background"."""
    phrases = [_with_article(f"{thing.colour} {thing.shape}") for thing in scene.things]
    match scene.layout:
        case "single":
            thing = scene.things[0]
            size = "" if thing.size == "medium" else f"{thing.size} "
            body = _with_article(f"{size}{thing.colour} {thing.shape}")
        case "placed":
            assert scene.place is not None
            body = f"{phrases[0]} {PLACE_WORDS[scene.place][0]}"
        case "count":
            body = f"{_NUMBERS[len(scene.things)][0]} {scene.things[0].colour} {PLURALS[scene.things[0].shape]}"
        case "inside":
            body = f"{phrases[1]} inside {phrases[0]}"
        case "above" | "left":
            words = (("above", "below"), ("to the left of", "to the right of"))[scene.layout == "left"]
            body = (
                f"{phrases[0]} {words[0]} {phrases[1]}"
                if rng.random() < 0.5
                else f"{phrases[1]} {words[1]} {phrases[0]}"
            )
    return f"{body} on {_with_article(scene.background)} background"


def free_caption(scene: Scene, rng: random.Random, openness: Openness = OPEN) -> str:
    """Describe the scene in any of the sentence forms."""
    body = _body(rng, scene, openness)
    unspoken = openness.white_background if scene.background == "white" else openness.background
    if rng.random() >= unspoken:
        body = _with_background(rng, body, scene.background)
    return _with_noise(rng, body)


def training_caption(scene: Scene, rng: random.Random, *, dropout: float, plain: float) -> str:
    """Return an empty prompt or a plain caption with the given probabilities, else a free caption."""
    lot = rng.random()
    if lot < dropout:
        return rng.choice(EMPTY_PROMPTS)
    return plain_caption(scene, rng) if lot < dropout + plain else free_caption(scene, rng)
