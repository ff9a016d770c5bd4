"""When a render process has had its time, by a clock and a memory that the test sets."""

from dataclasses import dataclass

from qwen_image_daemon.render.host_memory import own_bytes, resident_bytes
from qwen_image_daemon.render.renewal import Lifetime
from qwen_image_daemon.settings import RenderSettings


@dataclass
class Box:
    now: float = 0.0
    used: int = 1_000

    def lifetime(self, unload_after_seconds: float | None = None) -> Lifetime:
        settings = RenderSettings(unload_after_seconds=unload_after_seconds, renew_growth_bytes=500)
        return Lifetime(settings, clock=lambda: self.now, memory=lambda: self.used)


def test_a_model_that_nobody_needs_for_long_is_let_go_of() -> None:
    box = Box()
    lifetime = box.lifetime(unload_after_seconds=60)
    box.now = 50
    lifetime.worked("qwen-image")
    box.now = 109
    assert lifetime.over_when_idle() is None
    box.now = 110
    assert lifetime.over_when_idle() == "its model was not needed for 60 s (render.unload_after_seconds)"


def test_without_a_limit_it_stays_for_ever() -> None:
    box = Box(now=0)
    lifetime = box.lifetime()
    box.now = 1e9
    assert lifetime.over_when_idle() is None


def test_a_process_that_grew_from_job_to_job_is_replaced() -> None:
    box = Box()
    lifetime = box.lifetime()
    lifetime.worked("qwen-image")
    box.used = 1_500
    lifetime.worked("qwen-image")
    assert lifetime.over_between_jobs() is None
    box.used = 1_501
    lifetime.worked("qwen-image")
    assert "has grown" in str(lifetime.over_between_jobs())


def test_a_larger_model_is_no_growth() -> None:
    box = Box()
    lifetime = box.lifetime()
    lifetime.worked("demo")
    box.used = 9_000
    lifetime.worked("qwen-image")
    assert lifetime.over_between_jobs() is None


def test_own_memory_is_a_part_of_what_is_resident() -> None:
    assert 0 < own_bytes() < resident_bytes()
