"""When a render process has had its time, by a clock and a memory that the test sets."""

from dataclasses import dataclass

from qwen_image_daemon.render.host_memory import own_bytes, resident_bytes
from qwen_image_daemon.render.renderer import CleanUp, MemoryInfo
from qwen_image_daemon.render.renewal import Lifetime
from qwen_image_daemon.settings import RenderSettings
from qwen_image_daemon.spool.reports import MemoryFloor


@dataclass
class Box:
    now: float = 0.0
    used: int = 1_000
    on_device: int | None = None
    standing_by: int = 0

    def lifetime(self, unload_after_seconds: float | None = None) -> Lifetime:
        settings = RenderSettings(unload_after_seconds=unload_after_seconds, renew_growth_bytes=500)
        return Lifetime(settings, clock=lambda: self.now, memory=lambda: self.used)

    def work(
        self, lifetime: Lifetime, jobs: int, model: str = "qwen-image", arrangement: str = "resident"
    ) -> MemoryFloor:
        """End so many jobs, each with the memory as it is."""
        memory = MemoryInfo(
            device="cpu" if self.on_device is None else "cuda:0",
            allocated_bytes=self.on_device or 0,
            reserved_bytes=self.on_device or 0,
            free_bytes=0,
            total_bytes=0,
            process_rss_bytes=self.used,
            standing_by_bytes=self.standing_by,
        )
        cleaned = CleanUp(
            done=(), reason="tested", seconds=0.0, found=memory, left=memory, arrangement=arrangement
        )
        for _ in range(jobs):
            lifetime.worked()
            floor = lifetime.left_in_use(model, cleaned, frozenset({model}))
        return floor


def test_a_model_that_nobody_needs_for_long_is_let_go_of() -> None:
    box = Box()
    lifetime = box.lifetime(unload_after_seconds=60)
    box.now = 50
    lifetime.worked()
    box.now = 109
    assert lifetime.over_when_idle() is None
    box.now = 110
    assert lifetime.over_when_idle() == "its model was not needed for 60 s (render.unload_after_seconds)"


def test_without_a_limit_it_stays_for_ever() -> None:
    box = Box(now=0)
    lifetime = box.lifetime()
    box.now = 1e9
    assert lifetime.over_when_idle() is None


def test_a_process_of_which_five_jobs_in_a_row_left_more_in_use_is_replaced() -> None:
    box = Box()
    lifetime = box.lifetime()
    box.work(lifetime, 5)
    box.used = 1_501
    box.work(lifetime, 4)
    assert lifetime.over_between_jobs() is None
    box.work(lifetime, 1)
    assert "has grown" in str(lifetime.over_between_jobs())


def test_growth_up_to_the_bound_is_borne() -> None:
    box = Box()
    lifetime = box.lifetime()
    box.work(lifetime, 5)
    box.used = 1_500
    box.work(lifetime, 50)
    assert lifetime.over_between_jobs() is None


def test_what_one_job_gives_back_was_no_leak_of_those_before_it() -> None:
    box = Box()
    lifetime = box.lifetime()
    for _ in range(20):
        box.used = 9_000
        box.work(lifetime, 4)
        box.used = 1_200
        box.work(lifetime, 1)
        assert lifetime.over_between_jobs() is None


def test_a_larger_model_is_no_growth_and_neither_is_another_arrangement() -> None:
    box = Box()
    lifetime = box.lifetime()
    box.work(lifetime, 5, "demo")
    box.used = 9_000
    box.work(lifetime, 5)
    assert lifetime.over_between_jobs() is None
    box.used = 90_000
    box.work(lifetime, 5, arrangement="blocks")
    assert lifetime.over_between_jobs() is None


def test_a_leak_is_found_although_models_change() -> None:
    box = Box()
    lifetime = box.lifetime()
    for _ in range(11):
        box.work(lifetime, 1, "demo")
        box.work(lifetime, 1)
        box.used += 100
    assert "has grown" in str(lifetime.over_between_jobs())


def test_what_is_left_on_the_device_counts_as_well() -> None:
    box = Box(on_device=10_000)
    lifetime = box.lifetime()
    box.work(lifetime, 5)
    box.on_device = 10_501
    floor = box.work(lifetime, 5)
    assert (floor.device_first_bytes, floor.device_bytes, floor.jobs) == (10_000, 10_501, 10)
    assert (floor.host_first_bytes, floor.host_bytes) == (1_000, 1_000)
    assert "has grown" in str(lifetime.over_between_jobs())


def test_what_models_that_stand_by_keep_on_the_device_is_no_growth() -> None:
    box = Box(on_device=10_000)
    lifetime = box.lifetime()
    box.work(lifetime, 5)
    box.on_device, box.standing_by = 40_000, 30_000
    assert box.work(lifetime, 5).device_bytes == 10_000
    assert lifetime.over_between_jobs() is None


def test_where_the_device_is_the_host_it_is_not_counted_twice() -> None:
    floor = Box().work(Box().lifetime(), 1)
    assert (floor.device_first_bytes, floor.device_bytes) == (None, None)


def test_own_memory_is_a_part_of_what_is_resident() -> None:
    assert 0 < own_bytes() < resident_bytes()
