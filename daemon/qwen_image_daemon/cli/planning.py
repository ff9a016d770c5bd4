"""`plan`: what a model would take on this card or on any other, and which arrangement would be chosen."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import typer

from qwen_image_daemon.cli.reading_settings import WRONG_USE, settings_or_exit
from qwen_image_daemon.jobs.families import FAMILIES, Size
from qwen_image_daemon.render.cards import first_card
from qwen_image_daemon.render.component_sizes import KNOWN_SIZES, ComponentSizes, sizes_of_folder
from qwen_image_daemon.render.memory import (
    BYTES,
    GIB,
    Choice,
    Memory,
    Work,
    allowed,
    blocks_that_stay,
    choose,
    claim,
    gib,
    lacking,
)
from qwen_image_daemon.render.parking import transformers_beside
from qwen_image_daemon.render.plans import PLANS, Plan
from qwen_image_daemon.render.quantised_files import quantised_in, refuse_unusable_folder
from qwen_image_daemon.render.quantisers import (
    EXTRAS,
    Library,
    Makers,
    formats_at_hand,
    how_to_install,
    in_words,
    installed_libraries,
    makers_at_hand,
    refuse_lacking_makers,
)
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.settings import ModelSettings, Precision, Quality, QuantiserSettings

FITS, DOES_NOT_FIT = 0, 1


def print_plans(
    config: Path | None,
    model: str | None,
    vram: str | None,
    ram: str | None,
    size: str | None,
    quality: Quality | None,
) -> int:
    """Print the table, and give the exit code."""
    settings = settings_or_exit(None, config, model)
    chosen_model = settings.models[settings.default_model]
    makers = _makers_or_exit(settings.render.quantisers)
    memory, where = _memory(vram, ram)
    picture = _size_or_exit(size) if size else FAMILIES[chosen_model.family].sizes["1:1"]
    work = Work(pixels=picture.width * picture.height)
    precision: Precision = settings.render.precisions[0]
    sizes = _sizes_or_exit(settings.default_model, chosen_model, precision)
    wanted = quality or settings.render.quality
    choice = choose(sizes, work, precision, memory, wanted)
    typer.echo(f"{settings.default_model}: one picture of {picture} in {precision}, {wanted}, {where}.")
    if chosen_model.transformer is not None:
        typer.echo(f"Lossy in each of them: the transformer is that of {chosen_model.transformer}.")
    elif chosen_model.folder is not None:
        for component, method in quantised_in(chosen_model.folder).items():
            typer.echo(f"Lossy in each of them: the {component} was quantised with {method}.")
    typer.echo("\n".join(_lines(choice, sizes, work, precision, memory, wanted, makers)))
    typer.echo("".join(_standing_by(choice, sizes, precision, memory, settings.render.warm_models)), nl=False)
    return FITS if choice.plan is not None else DOES_NOT_FIT


def _makers_or_exit(chosen: QuantiserSettings) -> Makers:
    try:
        refuse_lacking_makers(chosen)
    except ModelUnavailable as error:
        typer.echo(f"{error} {error.fix}", err=True)
        raise typer.Exit(WRONG_USE) from None
    return makers_at_hand(chosen)


def _lines(
    choice: Choice,
    sizes: ComponentSizes,
    work: Work,
    precision: Precision,
    memory: Memory,
    quality: Quality,
    makers: Makers,
) -> Iterator[str]:
    yield f"  {'plan':<24}{'device':>8}{'host':>8}  {'result':<12}GiB at the peak, estimated"
    for plan in allowed(quality, memory, sizes):
        needs = claim(plan, sizes, work, precision)
        mark = "→" if plan == choice.plan else " " if lacking(needs, memory) is None else "×"
        device = "–" if plan.on_cpu else gib(needs.device)
        yield f"{mark} {plan.name:<24}{device:>8}{gib(needs.host):>8}  {plan.exactness:<12}{plan.told(makers)}"
    yield from _what_would_help(choice, sizes, work, precision, memory, quality)
    if choice.plan is None:
        yield f"Nothing fits: {choice.reason}."
        return
    yield f"{choice.plan.name} is taken: {choice.reason}."
    staying = blocks_that_stay(choice.plan, sizes, work, precision, memory)
    if staying:
        yield f"{staying} of the transformer's {sizes.blocks} blocks stay on the device."


def _standing_by(
    choice: Choice, sizes: ComponentSizes, precision: Precision, memory: Memory, warm_models: int
) -> Iterator[str]:
    """Say what of the other models that stay loaded stays on the device, should they be as large as this one."""
    if warm_models == 1 or choice.plan is None or choice.claim is None or choice.plan.on_cpu:
        return
    room, each = transformers_beside(choice.plan, choice.claim, sizes, precision, memory)
    others = f"Of {warm_models - 1} more that may stand by (render.warm_models)"
    if room:
        kept = min(room, warm_models - 1)
        yield f"{others} {kept} can keep a transformer of {gib(each)} GiB on the device, too.\n"
    else:
        yield f"{others} none keeps its transformer on the device: there is no room beside this one.\n"


def _what_would_help(
    choice: Choice, sizes: ComponentSizes, work: Work, precision: Precision, memory: Memory, quality: Quality
) -> Iterator[str]:
    """Name the libraries that are not installed and would give a better arrangement, each by itself."""
    installed = installed_libraries()
    better: dict[Plan, list[Library]] = {}
    for library in EXTRAS:
        plan = choose(sizes, work, precision, memory, quality, formats_at_hand(installed | {library})).plan
        if plan is not None and plan != choice.plan:
            better.setdefault(plan, []).append(library)
    for plan in sorted(better, key=PLANS.index):
        libraries = better[plan]
        yield f"With {in_words(libraries)} it would be {plan.name}: {plan.what}. {how_to_install(*libraries)}"


def _sizes_or_exit(name: str, model: ModelSettings, precision: Precision) -> ComponentSizes:
    file = model.transformer_file
    if file is None:
        return _checkpoint_sizes_or_exit(name, model, precision)
    try:
        parameters = file.stat().st_size // BYTES[precision]
    except OSError as error:
        typer.echo(f"{name}: {file} could not be read: {error.strerror}. Set its transformer to a file.", err=True)
        raise typer.Exit(WRONG_USE) from None
    return _checkpoint_sizes_or_exit(name, model, precision).with_transformer_of(parameters)


def _checkpoint_sizes_or_exit(name: str, model: ModelSettings, precision: Precision) -> ComponentSizes:
    # Beside a file with the transformer its folder may hold none.
    if (model.folder is None or model.transformer is not None) and model.family in KNOWN_SIZES:
        return KNOWN_SIZES[model.family]
    if model.folder is None:
        typer.echo(f"{name}: its size is not known before it is here. Set its source to a folder.", err=True)
        raise typer.Exit(WRONG_USE)
    try:
        refuse_unusable_folder(model.folder, model.source, None)
        return sizes_of_folder(model.folder, BYTES[precision])
    except ModelUnavailable as error:
        typer.echo(f"{name}: {error} {error.fix}", err=True)
        raise typer.Exit(WRONG_USE) from None


def _memory(vram: str | None, ram: str | None) -> tuple[Memory, str]:
    host = _bytes_or_exit("--ram", ram) if ram else int(psutil.virtual_memory().available)
    if vram is not None:
        device = _bytes_or_exit("--vram", vram) or None
        card = f"a card of {gib(device)} GiB" if device else "no card"
    else:
        found = first_card()
        device = None if found is None else found.free_bytes
        card = "no card" if found is None else f"{found.name} with {gib(found.free_bytes)} GiB free"
    return Memory(device, host), f"{card} and {gib(host)} GiB of host memory"


def _bytes_or_exit(option: str, text: str) -> int:
    # A card of "16 GB" has 16 GiB: its makers count in powers of two.
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(M|G|T)?i?B?\s*", text, re.IGNORECASE)
    if match is None:
        typer.echo(f"{option} {text}: no amount of memory. Write for example 16GB.", err=True)
        raise typer.Exit(WRONG_USE)
    unit = {"M": 2**20, "G": GIB, "T": 2**40}[(match[2] or "G").upper()]
    return int(float(match[1]) * unit)


def _size_or_exit(text: str) -> Size:
    match = re.fullmatch(r"\s*(\d{2,5})\s*[x×]\s*(\d{2,5})\s*", text, re.IGNORECASE)
    if match is None:
        typer.echo(f"--size {text}: no size. Write for example 1328x1328.", err=True)
        raise typer.Exit(WRONG_USE)
    return Size(int(match[1]), int(match[2]))
