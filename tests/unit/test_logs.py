"""Events as JSON lines, and each job's own among them in its folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from qwen_image_daemon.jobs.quoting import is_control
from qwen_image_daemon.logs import configure_logs, job_log
from qwen_image_daemon.settings import LogSettings


@pytest.fixture(autouse=True)
def daemon_logs() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def test_every_event_is_one_line_of_ascii_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="json"), loop="render")
    structlog.get_logger().info("drop.seen", file="new\nline \udcfc ü.toml")
    [line] = capsys.readouterr().out.splitlines()
    assert line.isascii()
    event = json.loads(line)
    assert (event["event"], event["loop"], event["level"]) == ("drop.seen", "render", "info")
    assert event["file"] == "new\nline \udcfc ü.toml"


def test_less_severe_events_than_asked_for_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="json", level="warning"), loop="render")
    log = structlog.get_logger()
    log.info("drop.seen")
    log.warning("drop.refused")
    assert "drop.seen" not in (out := capsys.readouterr().out)
    assert "drop.refused" in out


def test_a_jobs_own_log_holds_its_events_wherever_its_folder_goes(tmp_path: Path) -> None:
    configure_logs(LogSettings(format="json"), loop="render")
    log = structlog.get_logger()
    (tmp_path / "before").mkdir()
    log.info("other.event")
    with job_log(tmp_path / "before" / "job.log", "id-1"):
        log.info("job.started")
        (tmp_path / "before").rename(tmp_path / "after")
        log.info("job.succeeded")
    log.info("other.event")
    events = [json.loads(line) for line in (tmp_path / "after" / "job.log").read_text().splitlines()]
    assert [(event["event"], event["id"]) for event in events] == [
        ("job.started", "id-1"),
        ("job.succeeded", "id-1"),
    ]


def test_a_traceback_is_in_the_log(tmp_path: Path) -> None:
    configure_logs(LogSettings(format="json"), loop="render")
    with job_log(tmp_path / "job.log", "id-1"):
        try:
            raise ValueError("odd")  # noqa: TRY301
        except ValueError:
            structlog.get_logger().exception("job.broke")
    assert "ValueError: odd" in json.loads((tmp_path / "job.log").read_text())["exception"]


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\udcfc\nnew line ü"


def test_nothing_in_an_event_steers_the_terminal_that_it_is_shown_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="console"), loop="render")
    log = structlog.get_logger()
    log.info("drop.seen", file=HOSTILE, short="\x1b[2J")
    try:
        raise ValueError(HOSTILE)  # noqa: TRY301
    except ValueError:
        log.exception("job.broke")
    shown = capsys.readouterr().out
    shown.encode()
    assert not any(is_control(character) for character in shown.replace("\n", ""))
    assert "new line ü" in shown
    assert shown.splitlines()[0].count("drop.seen") == 1
    assert not any(line.startswith("new line") for line in shown.partition("job.broke")[0].splitlines())
    assert "Traceback (most recent call last):\n" in shown


def test_a_jobs_own_log_is_ascii_whatever_is_said(tmp_path: Path) -> None:
    configure_logs(LogSettings(format="console"), loop="render")
    with job_log(tmp_path / "job.log", "id-1"):
        structlog.get_logger().info("drop.seen", file=HOSTILE)
    text = (tmp_path / "job.log").read_text(encoding="ascii")
    assert text.count("\n") == 1
    assert not any(is_control(character) for character in text[:-1])
    assert json.loads(text)["file"] == HOSTILE
