"""What happened, as events with their numbers: JSON lines, words on a terminal, and a file for each job."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from qwen_image_daemon.jobs.quoting import escaped
from qwen_image_daemon.settings import LogSettings

_job_log: ContextVar[TextIO | None] = ContextVar("job_log", default=None)

_json = structlog.processors.JSONRenderer(ensure_ascii=True, default=str)


def _to_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    # The renderer may give bytes with other serialisers; with json.dumps it gives str.
    return str(_json(logger, method, event))


def log_to_stderr() -> None:
    """Write events of a command whose stdout is its answer, for people."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def configure_logs(settings: LogSettings, *, loop: str) -> None:
    """Write events of this process to stdout. `loop` names the part of the daemon that speaks."""
    on_terminal = settings.format == "console" or (settings.format == "auto" and sys.stdout.isatty())
    # ASCII escapes: file names with line ends and lone surrogates do arrive.
    last: Processor = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()) if on_terminal else _to_json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _copy_to_job_log,
            *([_harmless] if on_terminal else []),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(loop=loop)
    # Third parties speak through logging: their warnings belong with ours, on stderr where nothing parses them.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    # It complains of events that come while it is being stopped, which is no news.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)


def _harmless(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:  # noqa: ARG001  structlog's form
    """Write control characters and lone surrogates out: terminals obey the first, stdout fails at the second."""
    return {key: _lines_escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _lines_escaped(text: str) -> str:
    # Tracebacks keep their lines; the console renderer quotes line ends in all other values.
    return "\n".join(escaped(line) for line in text.split("\n"))


@contextmanager
def job_log(path: Path, job_id: str) -> Iterator[None]:
    """Write the events of this block also into a job's own log. The open file follows the job's folder."""
    with path.open("a", encoding="ascii") as file, structlog.contextvars.bound_contextvars(id=job_id):
        token = _job_log.set(file)
        try:
            yield
        finally:
            _job_log.reset(token)


def _copy_to_job_log(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    file = _job_log.get()
    if file is not None:
        file.write(f"{_to_json(logger, method, dict(event))}\n")
        file.flush()
    return event
