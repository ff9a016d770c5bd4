"""Pictures that nobody asked for: to see whether a model works, and to spare the first job a wait. No torch."""

from dataclasses import replace
from typing import Final

from PIL import Image

from qwen_image_daemon.jobs.families import Family, Size
from qwen_image_daemon.render.renderer import RenderRequest

TRIAL_STEPS: Final = 2
"""One step alone gives NaN with the makers' scheduler."""
_RESOLUTION: Final = 640
"""The smaller one of layered models."""


def trial_request(family: Family) -> RenderRequest:
    """Give the smallest picture worth looking at, of a kind that the family draws."""
    return _request(family, Size(family.min_side, family.min_side))


def warm_up_request(family: Family) -> RenderRequest:
    """Give a picture that needs all that the family's usual jobs need, in the fewest steps: size and guidance."""
    request = _request(family, family.sizes["1:1"])
    scale = family.recommended.true_cfg_scale
    if scale <= 1:
        return request
    return replace(request, negative_prompt=" ", true_cfg_scale=scale)


def _request(family: Family, size: Size) -> RenderRequest:
    plain = RenderRequest(
        task="text-to-image",
        prompt="a red apple on a wooden table",
        negative_prompt=None,
        true_cfg_scale=1.0,
        num_inference_steps=family.fixed_steps or TRIAL_STEPS,
        width=size.width,
        height=size.height,
        seed=0,
    )
    gradient = Image.linear_gradient("L").resize((size.width, size.height))
    if "text-to-image" in family.tasks:
        return plain
    if "edit" in family.tasks:
        return replace(plain, task="edit", references=(gradient.convert("RGB"),))
    return replace(
        plain,
        task="layered",
        source=gradient.convert("RGBA"),
        layers=1,
        resolution=_RESOLUTION,
        width=_RESOLUTION,
        height=_RESOLUTION,
    )
