"""The ways in which a model can be arranged in the memory of card and host, best first. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from qwen_image_daemon.render.quantisers import Format, Makers
from qwen_image_daemon.render.renderer import Exactness
from qwen_image_daemon.settings import PlanName

TransformerPlace = Literal["resident", "by turns", "blocks streamed", "leaves streamed"]
EncoderPlace = Literal["resident", "streamed"]


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to arrange a model. `table` keeps the modulation's outputs instead of its weights on the device."""

    name: PlanName
    what: str
    """One line for a person, but for who makes the bits where weights are kept in fewer."""
    transformer: TransformerPlace
    encoder: EncoderPlace
    table: bool = False
    kept: Format = "as loaded"
    """How the matrices of the transformer's blocks are kept; in fewer bits they are turned back layer by layer."""
    exactness: Exactness = "exact"
    on_cpu: bool = False
    from_files: bool = False
    """What is streamed is read from the checkpoint's files each time: the host's memory need not hold it."""

    @property
    def keeps_transformer(self) -> bool:
        """Say whether the transformer's own weights are on the device from picture to picture."""
        return self.transformer == "resident" and self.kept == "as loaded" and not self.on_cpu

    def told(self, makers: Makers) -> str:
        """Give one line for a person."""
        return self.what if self.kept == "as loaded" else f"{self.what}; packed by {makers[self.kept]}"


PLANS: Final[tuple[Plan, ...]] = (
    Plan("resident", "everything stays on the device", "resident", "resident"),
    Plan(
        "resident-table",
        "everything stays on the device, tabulated modulation instead of its weights",
        "resident",
        "resident",
        table=True,
    ),
    Plan(
        "encoder-streamed",
        "transformer and VAE stay on the device, the text encoder is streamed through it for each new prompt",
        "resident",
        "streamed",
    ),
    Plan(
        "encoder-streamed-table",
        "the same with tabulated modulation",
        "resident",
        "streamed",
        table=True,
    ),
    Plan(
        "by-turns",
        "the transformer is on the device only while it draws, the text encoder is streamed, the VAE stays",
        "by turns",
        "streamed",
    ),
    Plan("by-turns-table", "the same with tabulated modulation", "by turns", "streamed", table=True),
    Plan(
        "int8",
        "transformer in 8-bit integers and VAE stay on the device, the text encoder is streamed",
        "resident",
        "streamed",
        kept="int8",
        exactness="lossy",
    ),
    Plan(
        "int8-table",
        "transformer in 8-bit integers with tabulated modulation and VAE stay on the device, "
        "the text encoder is streamed",
        "resident",
        "streamed",
        table=True,
        kept="int8",
        exactness="lossy",
    ),
    Plan(
        "uint6",
        "transformer in 6-bit integers and VAE stay on the device, the text encoder is streamed",
        "resident",
        "streamed",
        kept="uint6",
        exactness="lossy",
    ),
    Plan(
        "uint6-table",
        "transformer in 6-bit integers with tabulated modulation and VAE stay on the device, "
        "the text encoder is streamed",
        "resident",
        "streamed",
        table=True,
        kept="uint6",
        exactness="lossy",
    ),
    Plan(
        "float8",
        "transformer in 8-bit floating point and VAE stay on the device, the text encoder is streamed",
        "resident",
        "streamed",
        kept="float8",
        exactness="lossy",
    ),
    Plan(
        "float8-table",
        "transformer in 8-bit floating point with tabulated modulation and VAE stay on the device, "
        "the text encoder is streamed",
        "resident",
        "streamed",
        table=True,
        kept="float8",
        exactness="lossy",
    ),
    Plan(
        "uint4",
        "transformer in 4-bit integers and VAE stay on the device, the text encoder is streamed",
        "resident",
        "streamed",
        kept="uint4",
        exactness="lossy",
    ),
    Plan(
        "uint4-table",
        "transformer in 4-bit integers with tabulated modulation and VAE stay on the device, "
        "the text encoder is streamed",
        "resident",
        "streamed",
        table=True,
        kept="uint4",
        exactness="lossy",
    ),
    Plan(
        "nf4",
        "transformer in 4 bits (NF4) and VAE stay on the device, the text encoder is streamed",
        "resident",
        "streamed",
        kept="nf4",
        exactness="lossy",
    ),
    Plan(
        "nf4-table",
        "transformer in 4 bits (NF4) with tabulated modulation and VAE stay on the device, "
        "the text encoder is streamed",
        "resident",
        "streamed",
        table=True,
        kept="nf4",
        exactness="lossy",
    ),
    Plan(
        "blocks-table",
        "of the transformer's blocks those that do not fit are streamed for each step; tabulated modulation",
        "blocks streamed",
        "streamed",
        table=True,
    ),
    Plan("blocks", "the same with the modulation's weights", "blocks streamed", "streamed"),
    Plan(
        "leaves",
        "the transformer is streamed through the device layer by layer, for each step",
        "leaves streamed",
        "streamed",
    ),
    Plan(
        "encoder-disk",
        "transformer and VAE stay on the device, the text encoder is read from disk for each new prompt",
        "resident",
        "streamed",
        from_files=True,
    ),
    Plan(
        "encoder-disk-table",
        "the same with tabulated modulation",
        "resident",
        "streamed",
        table=True,
        from_files=True,
    ),
    Plan(
        "disk-table",
        "of the transformer's blocks those that do not fit are read from disk for each step; tabulated modulation",
        "leaves streamed",
        "streamed",
        table=True,
        from_files=True,
    ),
    Plan("disk", "the same with the modulation's weights", "leaves streamed", "streamed", from_files=True),
    Plan("cpu", "drawn on the CPU", "resident", "resident", exactness="float-drift", on_cpu=True),
)
"""Best first: less is moved for each picture, and what changes the picture comes after what does not, except where
that would stream the whole transformer for each step. Of what changes it, what changes it least comes first
(docs/decisions/0017). Those that read from disk are for hosts with little memory. In the order of PlanName."""

PLAN_OF: Final[Mapping[str, Plan]] = MappingProxyType({plan.name: plan for plan in PLANS})
