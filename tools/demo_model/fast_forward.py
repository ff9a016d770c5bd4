"""The text encoder's and the transformer's forward passes, written for training speed.

Same weights and same mathematics as Qwen2_5_VLForConditionalGeneration's language model and
QwenImageTransformer2DModel, which stay the owners of the parameters; where products are in bfloat16, the
difference is that of rounding. What is cheaper: matrix products in the format that the hardware likes
(`precision.py`), the three projections of a stream in one product, rotary embedding without complex numbers,
plain matrix products instead of the flash kernel (whose backward pass is slow on a CPU), and the constant prefix
of the prompt template encoded once for a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (the name that everybody knows)
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import QwenImageTransformer2DModel
    from torch import nn
    from transformers import Qwen2_5_VLForConditionalGeneration

Weights = dict[str, Tensor]
Block = Callable[[Tensor, Tensor, "Context", Weights], tuple[Tensor, Tensor]]

_MASKED: Final = -1e4
_NORM_EPSILON: Final = 1e-6
_LINEAR_NAMES: Final = (
    "img_mod.1",
    "txt_mod.1",
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_out.0",
    "attn.to_add_out",
    "img_mlp.net.0.proj",
    "img_mlp.net.2",
    "txt_mlp.net.0.proj",
    "txt_mlp.net.2",
)
_NORM_NAMES: Final = ("attn.norm_q", "attn.norm_k", "attn.norm_added_q", "attn.norm_added_k")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, products: torch.dtype) -> Tensor:
    """Multiply in the format `products`, whatever the arguments are stored in."""
    return F.linear(x.to(products), weight.to(products), None if bias is None else bias.to(products))


def root_mean_square_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Normalise the last dimension to a mean square of one, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def block_weights(block: nn.Module) -> Weights:
    """Collect a transformer block's parameters by short names, so that one compiled function serves all."""
    weights = {name: block.get_parameter(f"{name}.weight") for name in _NORM_NAMES}
    for name in _LINEAR_NAMES:
        weights[f"{name}.w"] = block.get_parameter(f"{name}.weight")
        weights[f"{name}.b"] = block.get_parameter(f"{name}.bias")
    return {**weights}


def _evens_first(rows: Tensor, head: int) -> Tensor:
    """Reorder each head's channels (the first dimension): those with even numbers, then those with odd ones.

    The model rotates neighbouring channels. Queries and keys may be reordered alike without a change to their
    products, and halves are rotated several times faster than neighbours.
    """
    return rows.view(-1, head // 2, 2, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the halves of (n, tokens, heads, size); `cosine` and `sine` are (tokens, size / 2)."""
    even, odd = x.chunk(2, -1)
    cosine, sine = cosine[:, None], sine[:, None]
    return torch.cat((even * cosine - odd * sine, even * sine + odd * cosine), -1)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), eps=_NORM_EPSILON) * (1 + scale[:, None]) + shift[:, None]


def _projected(
    x: Tensor, w: Weights, names: tuple[str, str, str], head: int, products: torch.dtype
) -> tuple[Tensor, ...]:
    weight, bias = (
        torch.cat(
            [*(_evens_first(w[f"attn.{name}.{part}"], head) for name in names[:2]), w[f"attn.{names[2]}.{part}"]]
        )
        for part in ("w", "b")
    )
    n, tokens, channels = x.shape
    return linear(x, weight, bias, products).view(n, tokens, 3, channels // head, head).unbind(2)


def _feed_forward(x: Tensor, w: Weights, name: str, products: torch.dtype) -> Tensor:
    inner = linear(x, w[f"{name}.net.0.proj.w"], w[f"{name}.net.0.proj.b"], products)
    return linear(F.gelu(inner, approximate="tanh"), w[f"{name}.net.2.w"], w[f"{name}.net.2.b"], products)


class Context(NamedTuple):
    """What every block of one pass shares; `mask` (n, 1, 1, tokens) is added to the attention's logits."""

    activated_time: Tensor
    mask: Tensor
    cosine: Tensor
    sine: Tensor
    products: torch.dtype


def run_block(image: Tensor, text: Tensor, context: Context, w: Weights) -> tuple[Tensor, Tensor]:
    """Run one double-stream block on the image's and the text's tokens (n, tokens, channels)."""
    activated_time, mask, cosine, sine, products = context
    head = 2 * cosine.shape[-1]
    i = linear(activated_time, w["img_mod.1.w"], w["img_mod.1.b"], products).float().chunk(6, -1)
    t = linear(activated_time, w["txt_mod.1.w"], w["txt_mod.1.b"], products).float().chunk(6, -1)
    image_q, image_k, image_v = _projected(
        _modulated(image, i[0], i[1]), w, ("to_q", "to_k", "to_v"), head, products
    )
    text_names = ("add_q_proj", "add_k_proj", "add_v_proj")
    text_q, text_k, text_v = _projected(_modulated(text, t[0], t[1]), w, text_names, head, products)

    def joint(of_text: Tensor, of_image: Tensor, text_norm: str, image_norm: str) -> Tensor:
        of_text = root_mean_square_norm(of_text, _evens_first(w[text_norm], head), _NORM_EPSILON)
        of_image = root_mean_square_norm(of_image, _evens_first(w[image_norm], head), _NORM_EPSILON)
        return _rotated(torch.cat((of_text, of_image), 1), cosine, sine)

    query = joint(text_q, image_q, "attn.norm_added_q", "attn.norm_q") * head**-0.5
    key = joint(text_k, image_k, "attn.norm_added_k", "attn.norm_k")
    value = torch.cat((text_v, image_v), 1).transpose(1, 2)
    logits = (
        query.to(products).transpose(1, 2) @ key.to(products).transpose(1, 2).transpose(-1, -2)
    ).float() + mask
    mixed = (logits.softmax(-1).to(products) @ value).transpose(1, 2).flatten(2)
    seen_text, seen_image = mixed.split((text.shape[1], image.shape[1]), 1)

    image = image + i[2][:, None] * linear(seen_image, w["attn.to_out.0.w"], w["attn.to_out.0.b"], products)
    text = text + t[2][:, None] * linear(seen_text, w["attn.to_add_out.w"], w["attn.to_add_out.b"], products)
    image = image + i[5][:, None] * _feed_forward(_modulated(image, i[3], i[4]), w, "img_mlp", products)
    text = text + t[5][:, None] * _feed_forward(_modulated(text, t[3], t[4]), w, "txt_mlp", products)
    return image, text


@dataclass(frozen=True, slots=True)
class VelocityModel:
    """A transformer's forward pass. `block` may be a compiled `run_block`."""

    transformer: QwenImageTransformer2DModel
    features_after: int
    products: torch.dtype
    block: Block = run_block

    def __call__(
        self, latents: Tensor, sigma: Tensor, embeddings: Tensor, mask: Tensor, shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the velocity (n, tokens, channels) and the image stream after block number `features_after`.

        `latents` (n, tokens, channels) and `sigma` (n,) as the pipeline passes them; `embeddings` (n, words,
        width) with the boolean `mask` (n, words); `shape` is rows and columns of tokens.
        """
        transformer, products = self.transformer, self.products
        rotary_of_image, rotary_of_text = transformer.pos_embed(
            [(1, *shape)], max_txt_seq_len=embeddings.shape[1], device=latents.device
        )
        rotary = torch.cat((rotary_of_text, rotary_of_image))
        time = transformer.time_text_embed
        context = Context(
            activated_time=F.silu(time.timestep_embedder(time.time_proj(sigma))),
            mask=torch.where(F.pad(mask, (0, latents.shape[1]), value=True), 0.0, _MASKED)[:, None, None, :],
            cosine=rotary.real.contiguous(),
            sine=rotary.imag.contiguous(),
            products=products,
        )
        image = linear(latents, transformer.img_in.weight, transformer.img_in.bias, products).float()
        text = root_mean_square_norm(embeddings, transformer.txt_norm.weight, _NORM_EPSILON)
        text = linear(text, transformer.txt_in.weight, transformer.txt_in.bias, products).float()
        features = image
        for number, module in enumerate(transformer.transformer_blocks):
            image, text = self.block(image, text, context, block_weights(module))
            if number == self.features_after:
                features = image
        out = transformer.norm_out.linear
        scale, shift = linear(context.activated_time, out.weight, out.bias, products).float().chunk(2, -1)
        velocity = linear(
            _modulated(image, shift, scale), transformer.proj_out.weight, transformer.proj_out.bias, products
        )
        return velocity.float(), features


# ------------------------------------------------------------------------------------------------ text encoder


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the halves of the channels of (n, heads, tokens, size), the language model's way."""
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def encode_text(
    text_encoder: Qwen2_5_VLForConditionalGeneration, prefix: Tensor, tokens: Tensor, products: torch.dtype
) -> Tensor:
    """Return the last hidden states (n, tokens, width) of what follows the template's prefix.

    `prefix` (length,) is the same for all; `tokens` (n, length) are padded on the right, which a causal model
    never looks back at.
    """
    model = text_encoder.model.language_model
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    length = prefix.numel() + tokens.shape[1]
    steps = torch.arange(0, head, 2, device=tokens.device) / head
    angles = torch.outer(
        torch.arange(length, device=tokens.device), config.rope_parameters["rope_theta"] ** -steps
    )
    angles = torch.cat((angles, angles), -1)
    cosine, sine = angles.cos(), angles.sin()
    causal = torch.full((length, length), _MASKED, device=tokens.device).triu(1)
    repeats = config.num_attention_heads // config.num_key_value_heads

    def projected(x: Tensor, module: nn.Linear, first: int) -> Tensor:
        heads = linear(x, module.weight, module.bias, products).view(*x.shape[:2], -1, head).transpose(1, 2)
        if module.out_features < config.hidden_size:
            heads = heads.repeat_interleave(repeats, 1)
        return (
            heads
            if first < 0
            else _turned(heads.float(), *(table[first : first + x.shape[1]] for table in (cosine, sine)))
        )

    def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        logits = (query.to(products) @ key.to(products).transpose(-1, -2)).float() * head**-0.5 + mask
        mixed: Tensor = logits.softmax(-1).to(products) @ value
        return mixed.transpose(1, 2).flatten(2)

    start = prefix.numel()
    states = [model.embed_tokens(prefix)[None], model.embed_tokens(tokens)]
    for layer in model.layers:
        attention, norm = layer.self_attn, layer.input_layernorm
        normed = [root_mean_square_norm(state, norm.weight, norm.variance_epsilon) for state in states]
        queries = [projected(x, attention.q_proj, first) for x, first in zip(normed, (0, start), strict=True)]
        keys = [projected(x, attention.k_proj, first) for x, first in zip(normed, (0, start), strict=True)]
        values = [projected(x, attention.v_proj, -1) for x in normed]
        n = tokens.shape[0]
        all_keys = torch.cat((keys[0].expand(n, -1, -1, -1), keys[1]), 2)
        all_values = torch.cat((values[0].expand(n, -1, -1, -1), values[1]), 2)
        mixed = (
            attended(queries[0], keys[0], values[0], causal[:start, :start]),
            attended(queries[1], all_keys, all_values, causal[start:]),
        )
        norm, mlp = layer.post_attention_layernorm, layer.mlp
        for index, (state, seen) in enumerate(zip(states, mixed, strict=True)):
            after = state + linear(seen, attention.o_proj.weight, None, products)
            x = root_mean_square_norm(after, norm.weight, norm.variance_epsilon)
            gated = F.silu(linear(x, mlp.gate_proj.weight, None, products)) * linear(
                x, mlp.up_proj.weight, None, products
            )
            states[index] = after + linear(gated, mlp.down_proj.weight, None, products)
    return root_mean_square_norm(states[1], model.norm.weight, model.norm.variance_epsilon)
