"""From latents to pictures, as the pipelines do it themselves at their end, to the bit.

Done here because a decode that fails can be repeated without denoising again, and is timed on its own.
"""

from typing import Any

import torch
from PIL.Image import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.renderer import BadPicture, UnexpectedFailure


def decoded(pipeline: Any, latents: torch.Tensor, size: Size, layers: int | None = None) -> tuple[Image, ...]:
    """Decode the packed latents (1, tokens, channels) of one picture, or of its layers, the lowest first.

    RGB, or RGBA where the model draws transparency. Raises BadPicture, UnexpectedFailure and what the VAE raises.
    Source: the ends of the pipelines' __call__.
    """
    vae = pipeline.vae
    unpacked = _unpacked(pipeline, latents, size, layers).to(vae.dtype)
    frames = _scaled_back(vae, unpacked)
    if layers is not None:
        # The first one is the picture that was taken apart.
        frames = frames[:, :, 1:].permute(0, 2, 1, 3, 4).reshape(-1, vae.config.z_dim, 1, *frames.shape[3:])
    pixels = vae.decode(frames, return_dict=False)[0][:, :, 0]
    refuse_not_finite(pixels, "The decoded picture")
    images: list[Image] = pipeline.image_processor.postprocess(pixels, output_type="pil")
    for image in images:
        if image.size != (size.width, size.height):
            raise UnexpectedFailure(
                f"The model drew {image.width}×{image.height} pixels instead of {size}.",
                "Report it with the checkpoint's name.",
            )
    return tuple(images)


def _unpacked(pipeline: Any, latents: torch.Tensor, size: Size, layers: int | None) -> torch.Tensor:
    """Give latents as (1, channels, frames, height, width)."""
    counted = () if layers is None else (layers,)
    unpack = pipeline._unpack_latents  # noqa: SLF001  see pyproject
    unpacked: torch.Tensor = unpack(latents, size.height, size.width, *counted, pipeline.vae_scale_factor)
    return unpacked


def _scaled_back(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation of latents, in the order of each pipeline: another rounding is another picture."""
    config, shape = vae.config, (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(config.latents_mean).view(shape).to(latents.device, latents.dtype)
    deviation = torch.tensor(config.latents_std).view(shape).to(latents.device, latents.dtype)
    if type(vae).__name__ == "AutoencoderKLQwenImage21":
        return latents * deviation + mean
    return latents / (1.0 / deviation) + mean


def refuse_not_finite(values: torch.Tensor, what: str) -> None:
    """Raise BadPicture where any value is NaN or infinite. Waits for the device.

    The sum is in float32: one in float16 can overflow although all its values are finite.
    """
    if not values.sum(dtype=torch.float32).isfinite():
        raise BadPicture(
            f"{what} has values that are not numbers (NaN or infinite).",
            "Use more steps, another size or another precision; where all fail, fetch the checkpoint again.",
        )
