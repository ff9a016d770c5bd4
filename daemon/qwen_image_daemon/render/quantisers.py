"""Which libraries keep weights in fewer bits, and whether they are installed. Imports neither them nor torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, Literal

from qwen_image_daemon.render.renderer import ModelUnavailable

Format = Literal["as loaded", "float8", "int8", "nf4"]
"""How a matrix of the transformer is kept while it is not at work."""
Library = Literal["torchao", "bitsandbytes", "gguf", "sdnq"]


@dataclass(frozen=True, slots=True)
class Quantiser:
    """How a format is made, and what a parameter takes in it."""

    library: Library | None
    """None: torch itself."""
    bits: float
    """For each parameter, with its share of the scales."""


QUANTISERS: Final[Mapping[Format, Quantiser]] = MappingProxyType(
    {
        # One more number for each row; the shortest has 3072 parameters.
        "float8": Quantiser(None, 8 + 32 / 3072),
        "int8": Quantiser("torchao", 8 + 32 / 3072),
        # One byte for 64 parameters, and one float32 for 256 such bytes.
        "nf4": Quantiser("bitsandbytes", 4 + 8 / 64 + 32 / (64 * 256)),
    }
)

EXTRAS: Final[Mapping[Library, str]] = MappingProxyType({"torchao": "int8", "bitsandbytes": "nf4", "gguf": "gguf"})
"""Of this package, that bring a library along. They are called after what they are for. None brings SDNQ."""


def is_installed(library: Library) -> bool:
    """Say whether a library is there, at the cost of a look into the import path."""
    return find_spec(library) is not None


def formats_at_hand() -> frozenset[Format]:
    """Give the formats whose libraries are installed."""
    return frozenset(
        name for name, made in QUANTISERS.items() if made.library is None or is_installed(made.library)
    )


def how_to_install(library: Library) -> str:
    """Say in one sentence what brings a library along."""
    # SDNQ is GPL-3.0: who wants it fetches it himself.
    package = f"'qwen-image-daemon[{EXTRAS[library]}]'" if library in EXTRAS else library
    return f"Install it in the daemon's environment: pip install {package}."


def refuse_lacking(wanted: Format, setting: str) -> None:
    """Raise ModelUnavailable where a setting asks for a format whose library is not installed."""
    library = None if wanted == "as loaded" else QUANTISERS[wanted].library
    if library is not None and not is_installed(library):
        raise ModelUnavailable(
            f"{setting} needs {library}, which is not installed.",
            f"{how_to_install(library)} Or choose another arrangement that qwen-image-daemon plan lists.",
        )
