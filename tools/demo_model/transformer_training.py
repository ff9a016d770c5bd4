"""Train text encoder and transformer together: flow matching with the sigmas and the shift of inference."""

# Lots are drawn for pictures here, not for secrets, and a probability says itself what it is.
# ruff: noqa: S311, PLR2004

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 (the name that everybody knows)
from diffusers import QwenImageTransformer2DModel
from rich.progress import Progress
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from .captions import training_caption
from .curriculum import FROM_NOTHING, REFINING, PictureSize, Stage, stage_at
from .fast_forward import VelocityModel, encode_text, run_block
from .latents import NOTHING, TOKEN_PIXELS, Shard, read_shard
from .muon import Muon
from .precision import product_dtype
from .tokenizer import PREFIX_TOKENS, PROMPT_TEMPLATE
from .world import COLOURS, SHAPES, Layout

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

log = logging.getLogger(__name__)

BASE_SHIFT: Final = 0.5
MAX_SHIFT: Final = 0.9
BASE_TOKENS: Final = 256
MAX_TOKENS: Final = 8192
"""The scheduler's settings, those of Qwen-Image: the noise is shifted upwards with the number of tokens."""

NEW_LAYERS: Final = 6
"""How deep a transformer that begins from nothing is."""

_FIRST_RATE: Final = 3e-3
_REFINING_RATE: Final = 1.5e-3
_SHORT_CAPTION: Final = 24
_LONG_CAPTION: Final = 40
_TOKENS_IN_A_BATCH: Final = 128 * (64 + _SHORT_CAPTION)
_COMPILED_TOKENS: Final = frozenset({64, 144, 256})
_FEATURES_AFTER: Final = 3
_SAVE_EVERY_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train: a warm-up, a constant rate until `decay_from` of the time, then a straight line down.

    From `text_until` on the text encoder is its average and learns no more, which makes the rest a fifth faster.
    `outline_weight` says how much more a picture with little outline counts: not at all at 0, in inverse
    proportion at 1. `reading_weight` is that of the second lesson. `layers` is how deep the transformer becomes:
    as deep as it is, or as NEW_LAYERS, unless given. `learning_rate` is the highest one that matrices get.
    """

    minutes: float
    seed: int = 0
    learning_rate: float | None = None
    decay_from: float = 0.4
    text_until: float = 0.5
    dropout: float = 0.10
    plain: float = 0.20
    reading_weight: float = 0.05
    outline_weight: float = 0.5
    average: float = 0.998
    compiled: bool = True
    layers: int | None = None
    stages: tuple[Stage, ...] = FROM_NOTHING

    def refining(self) -> Settings:
        """Return what suits weights that know the world: a low rate that falls from the start, words left alone.

        There is no second lesson: its layer isn't shipped, and a new one would first upset what is learnt already.
        """
        return dataclasses.replace(
            self,
            learning_rate=self.learning_rate or _REFINING_RATE,
            decay_from=0.0,
            text_until=0.0,
            reading_weight=0.0,
            average=0.997,
            stages=REFINING,
        )


def shift_of(tokens: int) -> float:
    """Return the scheduler's `mu` for so many image tokens (calculate_shift in the pipeline)."""
    slope = (MAX_SHIFT - BASE_SHIFT) / (MAX_TOKENS - BASE_TOKENS)
    return BASE_SHIFT + (tokens - BASE_TOKENS) * slope


def draw_sigmas(n: int, tokens: int, generator: torch.Generator) -> Tensor:
    """Draw `n` noise levels: logit-normal, three tenths uniform, then shifted as in inference."""
    levels = torch.sigmoid(torch.randn(n, generator=generator))
    uniform = torch.rand(n, generator=generator)
    levels = torch.where(torch.rand(n, generator=generator) < 0.3, uniform, levels)
    stretch = math.exp(shift_of(tokens))
    return stretch * levels / (1 + (stretch - 1) * levels)


def new_text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Build an untrained text encoder: two layers, 128 wide, with a vision tower that is as small as can be."""
    index = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": index("<|im_start|>"),
            "eos_token_id": index("<|im_end|>"),
            "pad_token_id": index("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 1,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [0],
        },
        image_token_id=index("<|image_pad|>"),
        video_token_id=index("<|video_pad|>"),
        vision_start_token_id=index("<|vision_start|>"),
        vision_end_token_id=index("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    text_encoder = Qwen2_5_VLForConditionalGeneration(config)
    nn.init.normal_(text_encoder.model.language_model.embed_tokens.weight, std=0.5)
    return text_encoder


def new_transformer(latent_channels: int, layers: int = NEW_LAYERS) -> QwenImageTransformer2DModel:
    """Build an untrained transformer whose blocks, of four heads of 32, begin as the identity."""
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * latent_channels,
        out_channels=latent_channels,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    silent = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        silent += [block.img_mod[1], block.txt_mod[1]]
    for module in silent:
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    return transformer


def deepened(transformer: QwenImageTransformer2DModel, layers: int) -> QwenImageTransformer2DModel:
    """Return a transformer of so many layers that does what this one does: the new ones, the last, do nothing yet.

    Raises ValueError if that would be fewer layers than there are.
    """
    known = len(transformer.transformer_blocks)
    if layers < known:
        msg = f"--layers {layers}: the weights to begin with have {known} already; give {known} or more"
        raise ValueError(msg)
    deeper = new_transformer(transformer.config.out_channels, layers)
    deeper.load_state_dict(deeper.state_dict() | transformer.state_dict())
    return deeper


class Models(nn.Module):
    """What is trained together. `reader` names colour and shape from the image stream: a lesson, never shipped."""

    def __init__(
        self, text_encoder: Qwen2_5_VLForConditionalGeneration, transformer: QwenImageTransformer2DModel
    ) -> None:
        """Take both models over and train everything in them that a text-to-image run uses."""
        super().__init__()
        self.text_encoder = text_encoder.train()
        self.transformer = transformer.train()
        self.reader = nn.Linear(transformer.inner_dim, len(COLOURS) + len(SHAPES) + 1)
        self.requires_grad_(requires_grad=True)
        text_encoder.model.visual.requires_grad_(requires_grad=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one size, with their captions' tokens behind the template's prefix."""

    shape: tuple[int, int]
    latents: Tensor
    colours: Tensor
    shapes: Tensor
    outlines: Tensor
    tokens: Tensor
    mask: Tensor


class Samples:
    """Draws batches from a folder of shards and notices shards that are added while training runs."""

    def __init__(self, folder: Path, tokenizer: Qwen2Tokenizer, settings: Settings) -> None:
        """Read what the folder holds now."""
        self._folder, self._tokenizer, self._settings = folder, tokenizer, settings
        self._rng = random.Random(settings.seed)
        self._known: set[str] = set()
        self._shards: dict[tuple[PictureSize, Layout], list[tuple[Shard, list[int]]]] = {}
        self.look_again()

    @property
    def latent_channels(self) -> int:
        """How many channels the VAE's latents have before they are packed."""
        return next(iter(self._shards.values()))[0][0].latents.shape[-1] // 4

    def reseed(self, step: int) -> None:
        """Draw other samples than a run that began at another step."""
        self._rng = random.Random(f"{self._settings.seed} {step}")

    def look_again(self) -> None:
        """Read the shards that have appeared."""
        for file in sorted(self._folder.glob("*.safetensors")):
            if file.name in self._known:
                continue
            self._known.add(file.name)
            shard = read_shard(file)
            by_layout: dict[Layout, list[int]] = {}
            for index, scene in enumerate(shard.scenes):
                by_layout.setdefault(scene.layout, []).append(index)
            for layout, indices in by_layout.items():
                self._shards.setdefault(((shard.width, shard.height), layout), []).append((shard, indices))

    def _tokens(self, shard: Shard, index: int, limit: int) -> list[int]:
        while True:
            caption = training_caption(
                shard.scenes[index], self._rng, dropout=self._settings.dropout, plain=self._settings.plain
            )
            tokens: list[int] = self._tokenizer(PROMPT_TEMPLATE.format(caption)).input_ids[PREFIX_TOKENS:]
            if len(tokens) <= limit:
                return tokens

    def batch(self, stage: Stage) -> Batch:
        """Draw a size, then scenes of that size, then captions for them."""
        rng = self._rng
        sizes = [size for size in stage.sizes if any(size == known for known, _ in self._shards)]
        size = width, height = rng.choices(sizes, [stage.sizes[known] for known in sizes])[0]
        layouts = [layout for layout in stage.layouts if (size, layout) in self._shards]
        shares = [stage.layouts[layout] for layout in layouts]
        shape = (height // TOKEN_PIXELS, width // TOKEN_PIXELS)
        limit = _SHORT_CAPTION if rng.random() < 0.93 else _LONG_CAPTION
        count = max(4, _TOKENS_IN_A_BATCH // (shape[0] * shape[1] + _SHORT_CAPTION))
        picked = []
        for layout in rng.choices(layouts, shares, k=count):
            shards = self._shards[size, layout]
            shard, indices = rng.choices(shards, [len(members) for _, members in shards])[0]
            picked.append((shard, rng.choice(indices)))
        rows = [self._tokens(shard, index, limit) for shard, index in picked]
        tokens = torch.full((count, limit), self._tokenizer.pad_token_id)
        mask = torch.zeros((count, limit), dtype=torch.bool)
        for row, found in enumerate(rows):
            tokens[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = True
        return Batch(
            shape=shape,
            latents=torch.stack([shard.latents[index] for shard, index in picked]).float(),
            colours=torch.stack([shard.colours[index] for shard, index in picked]).long(),
            shapes=torch.stack([shard.shapes[index] for shard, index in picked]).long(),
            outlines=torch.stack([shard.outlines[index] for shard, index in picked]).float(),
            tokens=tokens,
            mask=mask,
        )


def flow_loss(velocity: Tensor, wanted: Tensor, outlines: Tensor, outline_weight: float) -> Tensor:
    """Return the squared error; pictures with little outline, small shapes that is, have more say.

    What there is to learn lies along the outline, which crosses 5 tokens of 64 of a small shape and 20 of a large
    one. Whole pictures are weighted, by their number of such tokens to the power of minus `outline_weight`:
    weighting tokens by where the outline turns out to be teaches the model to expect one there more often than it
    comes, as long as the noise hides it.
    """
    errors = (velocity - wanted).pow(2).mean((1, 2))
    weights = outlines.sum(1).clamp(min=1) ** -outline_weight
    return (errors * weights).mean() / weights.mean()


def _reading_loss(scores: Tensor, batch: Batch) -> Tensor:
    """Say how badly the image stream's features name what each token will show."""
    colours, shapes = scores[..., : len(COLOURS)], scores[..., len(COLOURS) :]
    wanted = batch.shapes.where(batch.shapes != NOTHING, len(SHAPES))
    return F.cross_entropy(colours.flatten(0, 1), batch.colours.flatten()) + F.cross_entropy(
        shapes.flatten(0, 1), wanted.flatten()
    )


class Training:
    """One run: the models, their average, two optimisers and the state that lets it go on where it stopped."""

    def __init__(self, models: Models, samples: Samples, prefix: Tensor, settings: Settings) -> None:
        """Prepare to train; `prefix` holds the tokens of the prompt template before the prompt."""
        self.models, self.samples, self.prefix, self.settings = models, samples, prefix, settings
        self.average = copy.deepcopy(models).requires_grad_(requires_grad=False)
        self.generator = torch.Generator().manual_seed(settings.seed)
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in models.named_parameters():
            if not parameter.requires_grad:
                continue
            ends = ("embed_tokens", "img_in", "proj_out", "timestep_embedder.linear_1", "reader")
            is_matrix = parameter.ndim == 2 and not any(end in name for end in ends)
            (matrices if is_matrix else others).append(parameter)
        self.parameters = [*matrices, *others]
        self.optimisers: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=1.0, weight_decay=0.01),
            torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        )
        rate = settings.learning_rate or _FIRST_RATE
        self.rates = (rate, rate * 2 / 3)
        self._text_is_learnt = False
        self.step = 0
        self.seconds = 0.0
        self.seen = 0
        compiled = torch.compile(run_block, dynamic=False) if settings.compiled else run_block
        self._products = product_dtype(prefix.device)
        self._eager = VelocityModel(models.transformer, _FEATURES_AFTER, self._products)
        self._compiled = VelocityModel(models.transformer, _FEATURES_AFTER, self._products, compiled)
        self._ahead = ThreadPoolExecutor(max_workers=1)
        self._next: Future[Batch] | None = None

    @property
    def progress(self) -> float:
        """How much of the time budget is used, from 0 to 1."""
        return self.seconds / (60 * self.settings.minutes)

    def _rate(self) -> float:
        warm_up = min(1.0, (self.step + 1) / 60)
        late = max(0.0, (self.progress - self.settings.decay_from) / (1 - self.settings.decay_from))
        return warm_up * max(0.01, 1 - late)

    def _finish_text_encoder(self) -> None:
        self.models.text_encoder.load_state_dict(self.average.text_encoder.state_dict())
        self.models.text_encoder.requires_grad_(requires_grad=False)
        for parameter in self.parameters:
            parameter.grad = None
        self._text_is_learnt = True

    def take_step(self) -> dict[str, float]:
        """Learn from one batch."""
        began = time.monotonic()
        stage = stage_at(self.settings.stages, self.progress)
        batch = self._next.result() if self._next else self.samples.batch(stage)
        self._next = self._ahead.submit(self.samples.batch, stage)
        device = self.prefix.device
        batch = dataclasses.replace(
            batch,
            **{
                name: getattr(batch, name).to(device)
                for name in ("latents", "colours", "shapes", "outlines", "tokens", "mask")
            },
        )
        n, image_tokens = batch.latents.shape[:2]
        sigma = draw_sigmas(n, image_tokens, self.generator).to(device)
        noise = torch.randn(batch.latents.shape, generator=self.generator).to(device)
        noisy = torch.lerp(batch.latents, noise, sigma[:, None, None])
        if self.progress >= self.settings.text_until and not self._text_is_learnt:
            self._finish_text_encoder()
        with torch.set_grad_enabled(not self._text_is_learnt):
            embeddings = encode_text(self.models.text_encoder, self.prefix, batch.tokens, self._products)
        usual = image_tokens in _COMPILED_TOKENS and batch.tokens.shape[1] == _SHORT_CAPTION
        model = self._compiled if usual else self._eager
        velocity, features = model(noisy, sigma, embeddings, batch.mask, batch.shape)
        flow = flow_loss(velocity, noise - batch.latents, batch.outlines, self.settings.outline_weight)
        reading = _reading_loss(self.models.reader(features), batch)
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward(flow + self.settings.reading_weight * reading)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        rate = self._rate()
        for optimiser, own in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = own * rate
            optimiser.step()
        self.step += 1
        self.seen += n
        kept = min(self.settings.average, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.models.parameters(), strict=True)
        with torch.no_grad():
            averaged, current = zip(*[(mean, now) for mean, now in pairs if now.requires_grad], strict=True)
            torch._foreach_lerp_(averaged, current, 1 - kept)
        self.seconds += time.monotonic() - began
        return {"flow": flow.item(), "reading": reading.item(), "norm": norm.item(), "tokens": image_tokens}

    def state(self) -> dict[str, Any]:
        """Collect everything that going on needs. A resumed run draws other samples."""
        return {
            "models": self.models.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
            "seen": self.seen,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; the time that it took counts against the budget."""
        self.models.load_state_dict(state["models"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.seen = state["seen"]
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.samples.reseed(self.step)
        self.generator.manual_seed(self.settings.seed + self.step)


def save(training: Training, folder: Path) -> None:
    """Write the averaged models and the state, each by a rename, so that a reader never sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "state.unfinished"
    torch.save(training.state(), unfinished)
    unfinished.rename(folder / "state.pt")
    training.average.text_encoder.save_pretrained(folder / "text_encoder")
    training.average.transformer.save_pretrained(folder / "transformer")


def train(training: Training, folder: Path) -> None:
    """Train until the time budget is used or Ctrl-C; saves every two minutes and at the end.

    Losses go to `folder`/log.jsonl, means over 50 steps by number of image tokens.
    """
    saved = time.monotonic()
    losses: dict[str, list[float]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with (
        suppress(KeyboardInterrupt),
        Progress() as bar,
        (folder / "log.jsonl").open("a", encoding="utf-8") as journal,
    ):
        task = bar.add_task("transformer", total=60 * training.settings.minutes)
        while training.progress < 1:
            result = training.take_step()
            for name in ("flow", "reading"):
                losses.setdefault(f"{name} {result['tokens']}", []).append(result[name])
            bar.update(task, completed=training.seconds)
            if training.step % 50 == 0:
                means = {name: round(sum(values) / len(values), 4) for name, values in sorted(losses.items())}
                line = {"step": training.step, "seen": training.seen, "seconds": round(training.seconds), **means}
                journal.write(json.dumps(line) + "\n")
                journal.flush()
                losses = {}
                training.samples.look_again()
            if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                save(training, folder)
                saved = time.monotonic()
    save(training, folder)


def template_prefix(tokenizer: Qwen2Tokenizer) -> Tensor:
    """Return the tokens that come before every prompt."""
    return torch.tensor(tokenizer(PROMPT_TEMPLATE.format("x")).input_ids[:PREFIX_TOKENS])


def start(work: Path, settings: Settings, device: torch.device) -> Training:
    """Prepare a run over `work`/tokenizer and `work`/latents; goes on where `work`/transformer-run stopped.

    A new run begins with the weights in `work`/unpacked, if `unpack` has written any, and refines them.
    """
    tokenizer = Qwen2Tokenizer.from_pretrained(work / "tokenizer")
    unpacked = work / "unpacked"
    if unpacked.is_dir():
        settings = settings.refining()
    samples = Samples(work / "latents", tokenizer, settings)
    if unpacked.is_dir():
        text_encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            unpacked / "text_encoder", dtype=torch.float32
        )
        transformer = QwenImageTransformer2DModel.from_pretrained(
            unpacked / "transformer", torch_dtype=torch.float32
        )
    else:
        text_encoder, transformer = new_text_encoder(tokenizer), new_transformer(samples.latent_channels)
    if settings.layers:
        transformer = deepened(transformer, settings.layers)
    models = Models(text_encoder, transformer).to(device)
    training = Training(models, samples, template_prefix(tokenizer).to(device), settings)
    state = work / "transformer-run" / "state.pt"
    if state.exists():
        training.load_state(torch.load(state, map_location=device, weights_only=True))
    return training
