"""The VAE for single pictures: the same mathematics with two-dimensional convolutions.

The causal 3-D convolutions of AutoencoderKLQwenImage pad two empty frames in front of the first. A picture is one
frame, so only the last temporal slice of each kernel ever meets data, and a 2-D convolution with that slice
gives the same result several times faster. Training and the encoding of the training pictures use this; nothing
else does.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (the name that everybody knows)
from diffusers.models.autoencoders import autoencoder_kl_qwenimage as qwen_vae

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import AutoencoderKLQwenImage
    from torch import Tensor


def _convolve(self: qwen_vae.QwenImageCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    if x.shape[2] != 1 or cache_x is not None or self.stride[0] != 1:
        msg = "only single frames, without a cache and without temporal strides"
        raise ValueError(msg)
    flat = F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, stride=self.stride[1:], padding=self._padding[0])
    return flat.unsqueeze(2)


def _double(_: qwen_vae.QwenImageUpsample, x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest-exact")


@contextmanager
def two_dimensional() -> Iterator[None]:
    """Within this context the VAE's layers work in two dimensions."""
    convolve, double = qwen_vae.QwenImageCausalConv3d.forward, qwen_vae.QwenImageUpsample.forward
    qwen_vae.QwenImageCausalConv3d.forward = _convolve
    qwen_vae.QwenImageUpsample.forward = _double
    try:
        yield
    finally:
        qwen_vae.QwenImageCausalConv3d.forward = convolve
        qwen_vae.QwenImageUpsample.forward = double


def encode(vae: AutoencoderKLQwenImage, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance (n, z, height / 8, width / 8) of pictures (n, 3, height, width) in -1 to 1."""
    mean, log_variance = vae.quant_conv(vae.encoder(pictures.unsqueeze(2)))[:, :, 0].chunk(2, dim=1)
    return mean, log_variance


def decode(vae: AutoencoderKLQwenImage, latents: Tensor) -> Tensor:
    """Return pictures (n, 3, height, width), about -1 to 1, of latents (n, z, height / 8, width / 8)."""
    pictures: Tensor = vae.decoder(vae.post_quant_conv(latents.unsqueeze(2)))[:, :, 0]
    return pictures


def forget_other_frames(vae: AutoencoderKLQwenImage) -> None:
    """Zero the temporal slices that a single picture never meets: they would only be noise in the file."""
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, qwen_vae.QwenImageCausalConv3d):
                module.weight[:, :, :-1] = 0
