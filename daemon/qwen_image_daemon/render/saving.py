"""Writing finished pictures beside the next render, so that the accelerator never waits for a disk."""

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from types import MappingProxyType
from typing import Self

from qwen_image_daemon.jobs.models import Output, OutputFormat
from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.encoding import encode
from qwen_image_daemon.render.renderer import Rendering
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import FileRecord, ImageRecord

SUFFIXES: Mapping[OutputFormat, str] = MappingProxyType({"png": "png", "webp": "webp", "jpeg": "jpg"})
_MOST_PENDING = 4
"""Pictures that may wait for the disk; beyond that the render waits too, for memory is no queue."""


class Saver:
    """One thread that does what it is given, in order. What fails is told at the next call or at `wait`.

    An OSError is the surroundings' fault, and raised whoever calls. Any other exception is raised only to its own
    job; once that job calls no more, it is left in `failures`.
    """

    def __init__(self, png_compression: int) -> None:
        self._png_compression = png_compression
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._pending: list[tuple[Entry, Future[None]]] = []
        self.failures: dict[str, tuple[Entry, BaseException]] = {}
        """Jobs whose work failed by a fault of their own, by id."""
        # Log lines of the thread carry what this one's carry; the log of one job is not among it.
        self._context = copy_context()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.shutdown()

    def do(self, entry: Entry, work: Callable[[], None]) -> None:
        """Queue `work` for a job. Raises an earlier OSError, and what earlier work of this job raised."""
        self._pending.append((entry, self._thread.submit(self._context.run, work)))
        self._settle(_MOST_PENDING)
        _, failure = self.failures.pop(entry.id, (entry, None))
        if failure is not None:
            raise failure

    def save(self, entry: Entry, index: int, rendering: Rendering, parameters: EffectiveParameters) -> None:
        """Queue picture `index` of a job to be written. Raises as `do` does."""
        self.do(entry, partial(save_image, entry, index, rendering, parameters, self._png_compression))

    def wait(self) -> None:
        """Wait until all is done. Raises an earlier OSError."""
        self._settle(0)

    def forget(self) -> None:
        """Wait until all is done, whatever it raised: for when its jobs are put back anyway."""
        wait(future for _, future in self._pending)
        self._pending.clear()
        self.failures.clear()

    def _settle(self, left: int) -> None:
        while self._pending and (len(self._pending) > left or self._pending[0][1].done()):
            entry, future = self._pending.pop(0)
            failure = future.exception()
            if isinstance(failure, OSError):
                raise failure
            if failure is not None:
                # The first one tells most.
                self.failures.setdefault(entry.id, (entry, failure))


def save_image(
    entry: Entry, index: int, rendering: Rendering, parameters: EffectiveParameters, png_compression: int
) -> None:
    """Put picture `index` of a job on the disk with its record. Raises OSError."""
    started = time.monotonic()
    seed = parameters.seed + index
    suffix = SUFFIXES[parameters.output.format]
    content = encode(rendering.image, parameters, seed, png_compression=png_compression)
    layers = _encoded_layers(index, rendering, parameters, seed, png_compression)
    record = ImageRecord(
        file=_record(entry.image_path(index, suffix).name, content),
        seed=seed,
        steps=rendering.steps,
        layers=tuple(_record(name, layer) for name, layer in layers.items()),
        caption=rendering.caption,
        adjustments=rendering.adjustments,
        arrangement=rendering.arrangement,
        seconds=rendering.seconds,
        save_seconds=round(time.monotonic() - started, 4),
    )
    entry.keep_image(index, suffix, content, record, layers)


def _encoded_layers(
    index: int, rendering: Rendering, parameters: EffectiveParameters, seed: int, png_compression: int
) -> dict[str, bytes]:
    """Give the files of a picture's layers. A JPEG has no transparency: then they are PNGs."""
    if parameters.output.format == "jpeg":
        parameters = parameters.model_copy(update={"output": Output()})
    suffix = SUFFIXES[parameters.output.format]
    return {
        f"{index:04d}-layer-{number}.{suffix}": encode(layer, parameters, seed, png_compression=png_compression)
        for number, layer in enumerate(rendering.layers, start=1)
    }


def _record(name: str, content: bytes) -> FileRecord:
    return FileRecord(path=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
