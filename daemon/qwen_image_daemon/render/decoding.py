"""From latents to a picture, as the pipelines do it themselves at their end, to the bit.

Done here because a decode that fails can be repeated without denoising again, and is timed on its own.
"""

from typing import Any

import torch
from PIL.Image import Image

from qwen_image_daemon.render.renderer import BadPicture, UnexpectedFailure


def decoded(pipeline: Any, latents: torch.Tensor, width: int, height: int) -> Image:
    """Decode packed latents (1, tokens, channels) of one picture into RGB of width × height pixels.

    Raises BadPicture, UnexpectedFailure and what the VAE raises. Source: the end of QwenImagePipeline.__call__.
    """
    vae = pipeline.vae
    unpacked = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)  # noqa: SLF001  see pyproject
    unpacked = unpacked.to(vae.dtype)
    mean = torch.tensor(vae.config.latents_mean).view(1, vae.config.z_dim, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std).view(1, vae.config.z_dim, 1, 1, 1)
    # Divided by the reciprocal, in this order: another rounding would be another picture.
    reciprocal = 1.0 / deviation.to(unpacked.device, unpacked.dtype)
    unpacked = unpacked / reciprocal + mean.to(unpacked.device, unpacked.dtype)
    pixels = vae.decode(unpacked, return_dict=False)[0][:, :, 0]
    refuse_not_finite(pixels, "The decoded picture")
    image: Image = pipeline.image_processor.postprocess(pixels, output_type="pil")[0]
    if image.size != (width, height):
        raise UnexpectedFailure(
            f"The model drew {image.width}×{image.height} pixels instead of {width}×{height}.",
            "Report it with the checkpoint's name.",
        )
    return image.convert("RGB")


def refuse_not_finite(values: torch.Tensor, what: str) -> None:
    """Raise BadPicture where any value is NaN or infinite. Waits for the device.

    The sum is in float32: one in float16 can overflow although all its values are finite.
    """
    if not values.sum(dtype=torch.float32).isfinite():
        raise BadPicture(
            f"{what} has values that are not numbers (NaN or infinite).",
            "Use more steps, another size or another precision; where all fail, fetch the checkpoint again.",
        )
