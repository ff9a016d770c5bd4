"""How much computing a picture takes, in floating point operations. Imports no torch.

Within a tenth of what was counted on the meta device (1.x: 69.3 TFLOP a forward at 1024², 130.2 at 1328², 195 for
an edit of one picture at 1024², 447 with three; 2.1: 66 at 1024²; the decoder: 20 at 1328²).
"""

from typing import Final

from qwen_image_daemon.render.component_sizes import ComponentSizes
from qwen_image_daemon.render.memory import Work

_DECODING_PER_PIXEL: Final = 20e12 / 1328**2
_PROMPT: Final = 128
_PROMPT_WITH_PICTURES: Final = 1024
"""Tokens; the text encoder makes up to 1,300 of a picture."""
_PIXELS_PER_TOKEN: Final = 16 * 16


def operations(sizes: ComponentSizes, width: int, work: Work, passes: int) -> float:
    """Say what a picture takes in all: `passes` forwards of the transformer, of that width, and the decoding."""
    prompt = _PROMPT_WITH_PICTURES if work.reference_pixels else _PROMPT
    tokens = (work.pixels + work.reference_pixels) / _PIXELS_PER_TOKEN + prompt
    # With a modulation of their own, words and pictures each go through layers of their own: half of all.
    counted = (sizes.transformer - sizes.modulation) / (2 if sizes.modulation else 1)
    parameters = counted * sizes.squeezed
    forward = 2 * parameters * tokens + 4 * tokens**2 * width * sizes.blocks
    return forward * passes + work.pixels * work.pictures * _DECODING_PER_PIXEL


def spelled(seconds: float) -> str:
    """Write a duration as a person says it, of two significant digits."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} seconds"
