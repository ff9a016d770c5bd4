"""Which libraries keep weights in fewer bits, and whether they are installed. Imports neither them nor torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, Literal, get_args

from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.settings import QuantiserSettings

Format = Literal["as loaded", "int8", "uint6", "float8", "uint4", "nf4"]
"""How a matrix of the transformer is kept while it is not at work."""
Library = Literal["torchao", "bitsandbytes", "gguf", "sdnq"]
Maker = Literal["torch", "torchao", "bitsandbytes", "sdnq"]
"""What packs a matrix and turns it back."""
Makers = Mapping[Format, Maker]
"""Who makes each of the formats that can be made here."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Who can make a format, and what a parameter takes in it, whoever does."""

    makers: tuple[Maker, ...]
    """The one that loses least comes first."""
    bits: float
    """For each parameter, with its share of the scales."""
    values: float = 0
    """More for each parameter: numbers in the model's own precision."""


QUANTISERS: Final[Mapping[Format, Quantiser]] = MappingProxyType(
    {
        # One more number for each row, of which the shortest has 3072 parameters, or for 1024 of them.
        "int8": Quantiser(("sdnq", "torchao", "bitsandbytes"), 8, values=1 / 1024),
        # A step and a beginning for 256 parameters.
        "uint6": Quantiser(("sdnq",), 6, values=2 / 256),
        "float8": Quantiser(("torch", "torchao"), 8 + 32 / 3072),
        # For 64 parameters.
        "uint4": Quantiser(("sdnq",), 4, values=2 / 64),
        # One byte for 64 parameters, and one float32 for 256 such bytes.
        "nf4": Quantiser(("bitsandbytes",), 4 + 8 / 64 + 32 / (64 * 256)),
    }
)
"""That which loses least comes first (docs/decisions/0017)."""

EXTRAS: Final[Mapping[Library, str]] = MappingProxyType(
    {"torchao": "int8", "bitsandbytes": "nf4", "gguf": "gguf", "sdnq": "sdnq"}
)
"""Of this package, that bring a library along. They are called after what they were first for."""
_LICENCES: Final[Mapping[Library, str]] = MappingProxyType({"sdnq": "GPL-3.0"})
"""Of those whose licence asks more of who passes them on than this program's own does."""


def is_installed(library: Library) -> bool:
    """Say whether a library is there, at the cost of a look into the import path."""
    return find_spec(library) is not None


def installed_libraries() -> frozenset[Library]:
    """Give all that are there."""
    return frozenset(library for library in get_args(Library) if is_installed(library))


def formats_at_hand(installed: frozenset[Library] | None = None) -> frozenset[Format]:
    """Give the formats that can be made with what is installed; None: here."""
    return frozenset(makers_at_hand(installed=installed))


def makers_at_hand(chosen: QuantiserSettings | None = None, installed: frozenset[Library] | None = None) -> Makers:
    """Say who makes each format that can be made: whom the settings choose, or the first that is installed."""
    there: set[str] = {"torch", *(installed_libraries() if installed is None else installed)}
    choices = _choices(chosen or QuantiserSettings())
    makers: dict[Format, Maker] = {}
    for kept, quantiser in QUANTISERS.items():
        wanted = choices.get(kept)
        able = [maker for maker in quantiser.makers if maker in there and wanted in {None, maker}]
        if able:
            makers[kept] = able[0]
    return MappingProxyType(makers)


def how_to_install(*libraries: Library) -> str:
    """Say in one sentence what brings a library along, or any of several."""
    packages = [f"'qwen-image-daemon[{EXTRAS[library]}]'" for library in libraries]
    which = "it" if len(packages) == 1 else "one of them"
    licences = [f" {library} is under the {_LICENCES[library]}." for library in libraries if library in _LICENCES]
    return f"Install {which} in the daemon's environment: pip install {in_words(packages)}.{''.join(licences)}"


def in_words(names: Sequence[str]) -> str:
    """Join what there is a choice of: a, b or c."""
    *before, last = names
    return f"{', '.join(before)} or {last}" if before else last


def refuse_lacking_makers(chosen: QuantiserSettings, installed: frozenset[Library] | None = None) -> None:
    """Raise ModelUnavailable where the settings choose a library that is not installed."""
    there = installed_libraries() if installed is None else installed
    for kept, maker in _choices(chosen).items():
        library = _library(maker)
        if library is not None and library not in there:
            raise ModelUnavailable(
                f'render.quantisers.{kept} = "{maker}" needs {library}, which is not installed.',
                f'{how_to_install(library)} Or set it to "auto".',
            )


def refuse_lacking(wanted: Format, setting: str, installed: frozenset[Library] | None = None) -> None:
    """Raise ModelUnavailable where a setting asks for a format that nothing installed makes."""
    if wanted == "as loaded" or wanted in formats_at_hand(installed):
        return
    libraries = [library for maker in QUANTISERS[wanted].makers if (library := _library(maker)) is not None]
    missing = "which is not installed" if len(libraries) == 1 else "of which none is installed"
    raise ModelUnavailable(
        f"{setting} needs {in_words(libraries)}, {missing}.",
        f"{how_to_install(*libraries)} Or choose another arrangement that qwen-image-daemon plan lists.",
    )


def _choices(chosen: QuantiserSettings) -> Mapping[Format, Maker]:
    choices: dict[Format, Maker] = {}
    if chosen.int8 != "auto":
        choices["int8"] = chosen.int8
    if chosen.float8 != "auto":
        choices["float8"] = chosen.float8
    return choices


def _library(maker: Maker) -> Library | None:
    """Give what a maker is called as a library to install; torch is always there."""
    return None if maker == "torch" else maker
