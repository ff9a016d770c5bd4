"""`check --expand`: the jobs that a file stands for, as the daemon would draw them, and how long it would take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer
from rich.cells import cell_len, set_cell_size

from qwen_image_daemon.cli.checking import FAULTY, FINE, check_file, jobs_of
from qwen_image_daemon.cli.reading_settings import settings_or_exit
from qwen_image_daemon.inbox.pictures import UnfitPicture, upright_size
from qwen_image_daemon.jobs.batches import Batch, numbered
from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.jobs.models import AnyJob, source_images
from qwen_image_daemon.jobs.problems import Rejection
from qwen_image_daemon.jobs.quoting import escaped
from qwen_image_daemon.jobs.resolution import EffectiveParameters, resolve
from qwen_image_daemon.settings import Settings
from qwen_image_daemon.spool.paces import Paces
from qwen_image_daemon.spool.spool import Spool

_FIRST_SHOWN, _LAST_SHOWN = 20, 5
"""Of a long list, so many jobs at its beginning and at its end say how it goes."""
_PROMPT_CELLS: Final = 60
_COLUMNS: Final = ("", "name", "model", "task", "size", "steps", "cfg", "seed", "pictures", "time", "prompt")


@dataclass(frozen=True, slots=True)
class _Planned:
    index: int
    name: str
    job: AnyJob
    effective: EffectiveParameters
    """Its seed means nothing where the job gives none."""
    seconds: float | None


def expand_files(files: list[Path], root: Path | None, config: Path | None, *, every: bool) -> int:
    """Print the jobs of each file, and give the exit code. `every`: also those in the middle of a long list."""
    settings = settings_or_exit(root, config)
    paces = Paces(Spool(settings.folders.spool))
    code = FINE
    for file in files:
        checked = check_file(file, settings.catalogue)
        if checked.problems:
            typer.echo(str(Rejection(checked.problems)))
            code = FAULTY
        if checked.read is not None:
            planned = list(_planned(file, checked.read, settings, paces))
            for line in _lines(file, planned, len(jobs_of(checked.read)), paces, every=every):
                typer.echo(line)
    return code


def _planned(file: Path, read: AnyJob | Batch, settings: Settings, paces: Paces) -> Iterator[_Planned]:
    """Resolve each job as the take-in does. One whose picture is missing or broken has no size to be told."""
    sizes: dict[str, Size | None] = {}
    title = (read.name if isinstance(read, Batch) else None) or file.stem
    batched = read.jobs if isinstance(read, Batch) else ()
    indices = [(one.origin.index, one.origin.of) for one in batched] or [(1, 1)]
    for (index, of), job in zip(indices, jobs_of(read), strict=True):
        images = source_images(job)
        source = None
        if images:
            first = images[0].path
            if first not in sizes:
                sizes[first] = _size(file.parent / first, settings)
            source = sizes[first]
            if source is None:
                continue
        effective = resolve(job, settings.catalogue, seed=0, source=source)
        name = job.name or (numbered(title, index, of, len(title) + 10) if batched else title)
        yield _Planned(index, name, job, effective, paces.seconds(effective))


def _size(picture: Path, settings: Settings) -> Size | None:
    try:
        return upright_size(picture, settings.inbox)
    except (OSError, UnfitPicture):
        return None


def _lines(file: Path, planned: Sequence[_Planned], jobs: int, paces: Paces, *, every: bool) -> Iterator[str]:
    pictures = sum(plan.effective.num_images for plan in planned)
    yield (f"{file}: {_counted(jobs, 'job')}, {_counted(pictures, 'picture')}, {_in_all(planned, paces)}.")
    short = every or len(planned) <= _FIRST_SHOWN + _LAST_SHOWN
    shown = list(planned) if short else [*planned[:_FIRST_SHOWN], *planned[-_LAST_SHOWN:]]
    rows = [_COLUMNS, *map(_row, shown)]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for at, row in enumerate(rows):
        if not short and at == _FIRST_SHOWN + 1:
            yield f"  … {len(planned) - len(shown):,} more (--all shows them)"
        cells = (set_cell_size(cell, width) for cell, width in zip(row, widths, strict=False))
        yield f"  {'  '.join(cells)}  {row[-1]}".rstrip()
    if len(planned) < jobs:
        yield f"  {jobs - len(planned):,} jobs are not shown: their pictures are missing or cannot be decoded."


def _row(plan: _Planned) -> tuple[str, ...]:
    effective = plan.effective
    return (
        str(plan.index),
        _short(plan.name, 30),
        effective.model,
        effective.task,
        f"{effective.width}×{effective.height}",
        str(effective.num_inference_steps),
        f"{effective.true_cfg_scale:g}",
        "by lot" if plan.job.seed is None else str(plan.job.seed),
        str(effective.num_images),
        "unknown" if plan.seconds is None else _long(plan.seconds),
        _short(effective.prompt, _PROMPT_CELLS),
    )


def _short(text: str, cells: int) -> str:
    plain = escaped(" ".join(text.split()))
    return plain if cell_len(plain) <= cells else f"{set_cell_size(plain, cells - 1)}…"


def _in_all(planned: Sequence[_Planned], paces: Paces) -> str:
    """Say how long all of it takes, as far as that can be known."""
    unknown = sorted({plan.effective.model for plan in planned if plan.seconds is None})
    known = sum(plan.seconds for plan in planned if plan.seconds is not None)
    if unknown:
        more = f", besides {_long(known)} for the others" if known else ""
        return f"time unknown, for nothing was drawn yet by {', '.join(unknown)}{more}"
    if not planned:
        return "time unknown"
    rests_on = sum(paces.pictures(model) for model in {plan.effective.model for plan in planned})
    return f"about {_long(known)} (from the last {_counted(rests_on, 'picture')}; without loading and waiting)"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _long(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
