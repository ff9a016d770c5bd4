"""The memory plan: what goes where, so that a picture fits into the memory that is there. Imports no torch.

A plan says where the transformer and the text encoder are while they are not at work, and in which form. All
weights are counted exactly. What the computation itself takes (`Work`) is estimated from the shapes of the
tensors; it was not measured on a card.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from qwen_image_daemon.render.component_sizes import ComponentSizes
from qwen_image_daemon.render.plans import PLAN_OF, PLANS, Plan, TransformerPlace
from qwen_image_daemon.render.quantisers import QUANTISERS, Format, formats_at_hand
from qwen_image_daemon.settings import PlanName, Precision, Quality

GIB: Final = 2**30

BYTES: Mapping[Precision, int] = MappingProxyType({"bfloat16": 2, "float16": 2, "float32": 4})

_FIXED: Final = GIB
"""The CUDA context, the libraries' workspaces and what the allocator cannot use for fragmentation."""
_ENCODING: Final = GIB // 2
_DENOISING_PER_TOKEN: Final = GIB // 6889
"""At 1328², 6889 tokens with a short prompt: hidden states 41 MiB, MLP 163, queries, keys and values 122 for each
of the two streams' joint attention, and their temporaries. In bfloat16."""
_DECODING_PER_PIXEL: Final = 3 * GIB // 1328**2
"""The VAE's decoder: its largest pair of tensors at 1328² is 0.95 GiB, three such are alive. In bfloat16."""
_PIXELS_PER_TOKEN: Final = 16 * 16
_LONGEST_PROMPT: Final = 1024
_STREAMED_AHEAD: Final = 3
"""Blocks on the device while the transformer is streamed: one at work, one on its way, one not yet given back."""
_PARAMETERS_PER_VALUE: Final = 3073
"""A row of the table has 6·d values where the layer behind it has 6·d·(d+1) parameters; d = 3072."""
_HOST_PROCESS: Final = 2 * GIB
"""The libraries, the pictures on their way, and what is being read."""


@dataclass(frozen=True, slots=True)
class Work:
    """One picture, as far as memory is concerned. References are the pictures that an edit looks at."""

    pixels: int
    steps: int = 50
    reference_pixels: int = 0
    pictures: int = 1
    """That are decoded together: layers."""
    guests: int = 0
    """Bytes of weights that draw along: a ControlNet, LoRAs."""
    measured: Mapping[PlanName, int] = field(default_factory=dict)
    """Bytes that such a picture took at its most, by plan, where it was drawn before: of the device, and of the
    host in the plan without one. Without the blocks that stayed where others were streamed."""

    @property
    def tokens(self) -> int:
        """Tokens that the transformer attends over."""
        return (self.pixels + self.reference_pixels) // _PIXELS_PER_TOKEN + _LONGEST_PROMPT


@dataclass(frozen=True, slots=True)
class Claim:
    """What a plan takes, in bytes. `weights` and `work` are those of the stage that takes most of the device."""

    weights: int
    work: int
    host: int
    measured: bool = False
    """It was measured, not estimated."""

    @property
    def device(self) -> int:
        """Device memory at the peak."""
        return self.weights + self.work


@dataclass(frozen=True, slots=True)
class Memory:
    """What is free, in bytes. `device` is None where there is no accelerator with memory of its own."""

    device: int | None
    host: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen plan with what it takes, and why no better one was. `plan` is None where none fits."""

    plan: Plan | None
    claim: Claim | None
    reason: str


def claim(plan: Plan, sizes: ComponentSizes, work: Work, precision: Precision) -> Claim:
    """Say what a plan takes for a picture of this size."""
    each = BYTES[precision]
    encoder, vae = sizes.text_encoder * each, sizes.vae * each
    held = sizes.transformer - (sizes.modulation if plan.table else 0)
    table = sizes.modulation // _PARAMETERS_PER_VALUE * each * work.steps if plan.table else 0
    transformer = _transformer_bytes(plan, sizes, held, each)
    block = block_bytes(plan, sizes, precision)
    there: dict[TransformerPlace, tuple[int, int]] = {
        # While it denoises, and while others are at work.
        "resident": (transformer + table, transformer + table),
        "by turns": (transformer + table, table),
        "blocks streamed": (_STREAMED_AHEAD * block + table, table),
        "leaves streamed": (block + table, table),
    }
    at_work, at_rest = there[plan.transformer]
    encoding, encoder_at_rest = {
        "resident": (encoder, encoder),
        "streamed": (2 * sizes.text_encoder_leaf * each, 0),
    }[plan.encoder]
    scale = each / BYTES["bfloat16"]
    decoding = int(work.pixels * work.pictures * _DECODING_PER_PIXEL * scale)
    stages = [
        (encoding + at_rest + vae + work.guests, _FIXED + int(_ENCODING * scale)),
        (encoder_at_rest + at_work + vae + work.guests, _FIXED + int(work.tokens * _DENOISING_PER_TOKEN * scale)),
        (encoder_at_rest + at_rest + vae + work.guests, _FIXED + decoding),
    ]
    weights, working_memory = max(stages, key=sum)
    known = work.measured.get(plan.name)
    if plan.on_cpu:
        estimated = _HOST_PROCESS + weights + working_memory - _FIXED
        return Claim(0, 0, estimated if known is None else known, known is not None)
    on_host = _HOST_PROCESS + _held_by_the_host(plan, sizes, each, transformer)
    if known is not None:
        return Claim(weights, max(0, known + _FIXED - weights), on_host, measured=True)
    return Claim(weights, working_memory, on_host)


def _held_by_the_host(plan: Plan, sizes: ComponentSizes, each: int, transformer: int) -> int:
    """Give what must stay in the host's memory for the device to be served from it."""
    if not sizes.mapped:
        # The copies that were loaded are kept, whatever is on the device.
        return sizes.total * each
    if plan.from_files:
        return 0
    held = (sizes.modulation if plan.table else 0) * each
    if plan.transformer != "resident":
        held += transformer
    if plan.encoder != "resident":
        held += sizes.text_encoder * each
    return held


def _transformer_bytes(plan: Plan, sizes: ComponentSizes, held: int, each: int) -> int:
    """Give what the transformer's weights that the plan holds take where they rest. Packed are only its blocks."""
    if plan.kept == "as loaded":
        return held * each
    around = max(0, sizes.transformer - sizes.block * sizes.blocks)
    quantiser = QUANTISERS[plan.kept]
    return int((held - around) * (quantiser.bits / 8 + quantiser.values * each)) + around * each


def blocks_that_stay(plan: Plan, sizes: ComponentSizes, work: Work, precision: Precision, memory: Memory) -> int:
    """Say how many of the transformer's blocks can stay on the device where the others are streamed through it.

    One at least is streamed: a plan in which all stay comes before this one, and did not fit.
    """
    by_blocks = plan.transformer == "blocks streamed" or (plan.from_files and plan.transformer != "resident")
    if not by_blocks or memory.device is None:
        return 0
    spare = memory.device - claim(plan, sizes, work, precision).device
    return max(0, min(sizes.blocks - 1, spare // block_bytes(plan, sizes, precision)))


def block_bytes(plan: Plan, sizes: ComponentSizes, precision: Precision) -> int:
    """Say what one of the transformer's blocks takes on the device."""
    held = sizes.transformer - (sizes.modulation if plan.table else 0)
    return max(1, sizes.block * BYTES[precision] * held // sizes.transformer)


def choose(  # noqa: PLR0913, PLR0917  all that it depends on
    sizes: ComponentSizes,
    work: Work,
    precision: Precision,
    memory: Memory,
    quality: Quality,
    formats: frozenset[Format] | None = None,
) -> Choice:
    """Take the best plan that fits and that the quality allows. More memory never gives a worse one.

    `formats` are those that weights can be kept in; None: those whose libraries are installed here.
    """
    passed_over = ""
    for plan in allowed(quality, memory, sizes, formats):
        needs = claim(plan, sizes, work, precision)
        lack = lacking(needs, memory)
        if lack is None:
            reason = passed_over or "there is no better one"
            if needs.measured:
                reason += f"; it took {gib(needs.host if plan.on_cpu else needs.device)} GiB for such a picture"
            return Choice(plan, needs, reason)
        passed_over = f"{plan.name} would need {lack}"
    return Choice(None, None, passed_over)


def allowed(
    quality: Quality, memory: Memory, sizes: ComponentSizes, formats: frozenset[Format] | None = None
) -> Sequence[Plan]:
    """Give the plans that come into question for this machine and model, best first. `formats` as for `choose`."""
    if memory.device is None:
        return (PLAN_OF["cpu"],)
    if formats is None:
        formats = formats_at_hand()
    return tuple(
        plan
        for plan in PLANS
        if not plan.on_cpu
        and (plan.exactness != "lossy" or quality == "allow-quantized")
        # What is in fewer bits already is not quantised again.
        and (plan.kept == "as loaded" or (plan.kept in formats and not sizes.is_quantised))
        # Nothing to tabulate: the plan before it is the same.
        and (sizes.modulation or not plan.table)
        and (sizes.mapped or not plan.from_files)
    )


def lacking(needs: Claim, memory: Memory) -> str | None:
    """Say which memory is too small for a claim, with both numbers, or None where it fits."""
    how = " as measured" if needs.measured else ""
    if memory.device is not None and needs.device > memory.device:
        return f"{gib(needs.device)} GiB of device memory{how}, and {gib(memory.device)} GiB are free"
    if needs.host > memory.host:
        return f"{gib(needs.host)} GiB of host memory, and {gib(memory.host)} GiB are free"
    return None


def gib(size: int) -> str:
    """Write bytes as GiB, to a tenth."""
    return f"{size / GIB:.1f}"
