"""Which arrangement comes next where memory runs out, and what is learned from the pictures that were drawn."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.render.component_sizes import KNOWN_SIZES, ComponentSizes
from qwen_image_daemon.render.effort import operations, spelled
from qwen_image_daemon.render.ladder import Ladder, ModelFootprint, Rung, work_of
from qwen_image_daemon.render.memory import GIB, Memory, Work
from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.render.remembered import Experience, Learned, Remembered
from qwen_image_daemon.render.renderer import (
    HostOutOfMemory,
    OutOfMemory,
    Rendering,
    RenderRequest,
    StageSeconds,
)
from qwen_image_daemon.render.vae_rungs import VaeTask
from qwen_image_daemon.settings import PlanName, Quality, RenderSettings

QWEN_IMAGE = KNOWN_SIZES["qwen-image"]
USUAL = Size(1328, 1328)
SQUARE = RenderRequest(
    task="text-to-image",
    prompt="a lighthouse at dusk",
    negative_prompt=" ",
    true_cfg_scale=4.0,
    num_inference_steps=50,
    width=1328,
    height=1328,
    seed=7,
)
FULL = OutOfMemory("Memory ran out on the device.", "Fix.")
HOST_FULL = HostOutOfMemory("Memory ran out on the host.", "Fix.")
LARGE_HOST = 512


def ladder(
    device_gib: float | None,
    host_gib: float = LARGE_HOST,
    state: Path | None = None,
    model: ModelFootprint | None = None,
    **settings: object,
) -> Ladder:
    memory = Memory(None if device_gib is None else int(device_gib * GIB), int(host_gib * GIB))
    return Ladder(
        model or footprint(), memory, RenderSettings.model_validate(settings), Remembered.in_folder(state, 3600)
    )


def footprint(
    guests: int = 0, sizes: ComponentSizes = QWEN_IMAGE, unsliced: str | None = "none"
) -> ModelFootprint:
    return ModelFootprint("Qwen/Qwen-Image", sizes, "bfloat16", USUAL, 3072, lambda _: guests, unsliced)


def way_down(rungs: Ladder, error: OutOfMemory) -> list[PlanName]:
    """Give the arrangements in the order in which they come where one after the other fails."""
    rung: Rung | None = rungs.first(SQUARE)
    names: list[PlanName] = []
    while rung is not None:
        names.append(rung.plan.name)
        rung = rungs.below(rung, SQUARE, error)
    return names


def test_on_the_device_each_step_takes_less_of_it_and_the_cpu_comes_last_where_it_is_allowed() -> None:
    down: list[PlanName] = ["resident", "resident-table", "encoder-streamed", "encoder-streamed-table"]
    # By turns with the whole transformer takes more than the last of these.
    down += ["by-turns-table", "blocks-table", "blocks", "leaves"]

    assert way_down(ladder(80), FULL) == down
    assert way_down(ladder(80, cpu_fallback=True), FULL) == [*down, "cpu"]


def test_on_the_host_each_step_claims_less_of_it_down_to_the_files_themselves() -> None:
    assert way_down(ladder(40), HOST_FULL) == ["encoder-streamed-table", "encoder-disk-table"]
    assert way_down(ladder(16), HOST_FULL) == ["blocks-table", "disk-table"]


def test_blocks_that_stay_go_before_the_arrangement_does_but_only_for_the_device() -> None:
    rungs = ladder(16)
    first = rungs.first(SQUARE)
    below = rungs.below(first, SQUARE, FULL)

    assert first.staying > 0
    assert below is not None
    assert (below.plan, below.staying) == (first.plan, 0)


def test_attention_is_sliced_before_anything_is_arranged_otherwise_where_the_model_can() -> None:
    rungs = ladder(80, model=footprint(unsliced=None))
    sliced = rungs.below(rungs.first(SQUARE), SQUARE, FULL)
    assert sliced is not None
    assert (sliced.plan.name, sliced.attention) == ("resident", "sliced")
    next_one = rungs.below(sliced, SQUARE, FULL)
    assert next_one is not None
    assert (next_one.plan.name, next_one.attention) == ("resident-table", "sliced")


def test_where_the_host_is_small_what_is_streamed_is_read_from_the_files() -> None:
    assert ladder(40, host_gib=16).first(SQUARE).plan.name == "encoder-disk-table"
    by_blocks = ladder(16, host_gib=16).first(SQUARE)
    assert by_blocks.plan.name == "disk-table"
    # On 16 GiB half of the blocks stay, and need not be read for each step.
    assert by_blocks.staying > 20


def test_files_in_another_precision_cannot_be_streamed_from_and_the_host_keeps_their_copies() -> None:
    copied = footprint(sizes=replace(QWEN_IMAGE, mapped=False))

    rung = ladder(16, host_gib=16, model=copied).first(SQUARE)

    assert rung.plan.name == "leaves"
    assert "52.7 GiB" in rung.reason or "54.7 GiB" in rung.reason


def test_a_controlnet_and_loras_take_their_place_on_the_device() -> None:
    assert ladder(59).first(SQUARE).plan.name == "resident"
    assert ladder(59, model=footprint(guests=4 * GIB)).first(SQUARE).plan.name == "resident-table"


def test_layers_are_counted_as_often_as_they_are_decoded() -> None:
    layered = replace(SQUARE, task="layered", layers=4, source=Image.new("RGBA", (8, 8)), width=1024, height=1024)

    assert work_of(layered).pictures == 4


# --- what is learned ------------------------------------------------------------------------------------------


def drawn(seconds: float = 20.0) -> Rendering:
    picture = Image.new("RGB", (1, 1))
    return Rendering(picture, StageSeconds(encode=1.0, denoise=seconds, decode=2.0), steps=50)


def test_a_peak_that_was_measured_counts_instead_of_the_estimate_over_a_restart(tmp_path: Path) -> None:
    before = ladder(54, state=tmp_path)
    assert before.first(SQUARE).plan.name == "resident-table"
    resident = Rung(PLAN_OF["resident"], 0, "")
    before.learn(resident, SQUARE, drawn(), int(52.8 * GIB))

    after = ladder(54, state=tmp_path)

    first = after.first(SQUARE)
    assert first.plan.name == "resident"
    assert "it took 53.8 GiB for such a picture" in first.reason
    # Smaller pictures are arranged as the usual ones are; others are other kinds.
    assert after.first(replace(SQUARE, width=512, height=512)).plan.name == "resident"
    assert after.first(replace(SQUARE, negative_prompt=None)).plan.name == "resident-table"
    assert after.first(replace(SQUARE, width=1664, height=1664)).plan.name == "resident-table"


def test_a_peak_larger_than_the_estimate_counts_too_and_the_largest_is_kept() -> None:
    rungs = ladder(60)
    resident = Rung(PLAN_OF["resident"], 0, "")
    for peak in (int(59.5 * GIB), int(50 * GIB)):
        rungs.learn(resident, SQUARE, drawn(), peak)

    first = rungs.first(SQUARE)

    assert first.plan.name == "resident-table"
    assert "resident would need 60.5 GiB of device memory as measured, and 60.0 GiB are free" in first.reason


def test_blocks_that_stayed_are_no_part_of_what_a_plan_takes() -> None:
    rungs = ladder(16)
    first = rungs.first(SQUARE)
    rungs.learn(first, SQUARE, drawn(), int(14.9 * GIB))

    again = rungs.first(SQUARE)

    assert again.plan == first.plan
    assert abs(again.staying - first.staying) <= 2


def test_the_pace_of_such_pictures_is_known_by_their_steps() -> None:
    rungs = ladder(80)
    plan = PLAN_OF["resident"]
    assert rungs.seconds_known(plan, SQUARE, 50) is None
    rungs.learn(Rung(plan, 0, ""), SQUARE, drawn(seconds=20.0), None)

    assert rungs.seconds_known(plan, SQUARE, 50) == pytest.approx(23.0)
    assert rungs.seconds_known(plan, SQUARE, 25) == pytest.approx(13.0)


def test_only_so_many_kinds_are_kept_in_mind_and_the_latest_ones(tmp_path: Path) -> None:
    learned = Learned(tmp_path / "learned.json")
    for number in range(250):
        learned.note(f"kind {number}", "resident", Experience(number, 1.0, 1.0))

    again = Learned(tmp_path / "learned.json")

    assert again.of("kind 249") == {"resident": Experience(249, 1.0, 1.0)}
    assert again.of("kind 50")
    assert not again.of("kind 49")


@pytest.mark.parametrize(
    "text", ["[1", "[1]", '{"kind": 3}', '{"kind": {"resident": [1]}}', '{"kind": {"gone": [1, 2, 3]}}']
)
def test_a_broken_file_of_what_was_learned_costs_nothing(text: str, tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    file.write_text(text, encoding="utf-8")
    learned = Learned(file)
    assert not learned.of("kind")
    learned.note("kind", "resident", Experience(None, 1.0, 1.0))
    assert Learned(file).of("kind") == {"resident": Experience(None, 1.0, 1.0)}


# --- decoding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pictures", "quality", "expected"),
    [
        (1, "lossless", ["whole", "alone", "cpu"]),
        (4, "lossless", ["whole", "alone", "sliced", "cpu"]),
        (1, "allow-quantized", ["whole", "alone", "tiles-512", "tiles-256", "tiles-128", "cpu"]),
    ],
)
def test_the_ways_to_decode_are_those_that_are_allowed_and_do_something(
    pictures: int, quality: Quality, expected: Sequence[str]
) -> None:
    task = VaeTask("decoded", USUAL, pictures, quality, has_device=True, has_company=True)

    assert [rung.name for rung in task.rungs()] == expected


def test_a_picture_no_larger_than_a_tile_is_not_cut_and_where_there_is_no_device_the_cpu_is_no_way_out() -> None:
    task = VaeTask("decoded", Size(256, 128), 1, "allow-quantized", has_device=False, has_company=False)

    assert [rung.name for rung in task.rungs()] == ["whole", "tiles-128"]


# --- the CPU as the last resort -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "tflop"),
    [
        (Work(1328 * 1328), 130.2),
        (Work(1664 * 928), 110.3),
        (Work(1024 * 1024), 69.3),
        (Work(1024 * 1024, reference_pixels=1024 * 1024), 195),
        (Work(1024 * 1024, reference_pixels=3 * 1024 * 1024), 447),
    ],
)
def test_the_work_of_a_forward_is_what_was_counted(work: Work, tflop: float) -> None:
    one, two = (operations(QWEN_IMAGE, 3072, work, passes) for passes in (1, 2))

    assert (two - one) / 1e12 == pytest.approx(tflop, rel=0.1)


def test_guidance_doubles_the_work() -> None:
    guided, plain = (
        ladder(80).operations(request, 50) for request in (SQUARE, replace(SQUARE, negative_prompt=None))
    )

    assert guided / plain == pytest.approx(2, rel=0.01)
    # Known from a measured rate of two cores: 38 hours in float32.
    assert guided / 0.096e12 / 3600 == pytest.approx(38, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "7 seconds"), (240, "4 minutes"), (32_400, "9 hours"), (200_000, "2.3 days")]
)
def test_durations_are_written_as_a_person_says_them(seconds: float, text: str) -> None:
    assert spelled(seconds) == text


def test_the_cpu_is_the_last_resort_only_where_there_is_a_device() -> None:
    assert ladder(80, cpu_fallback=True).is_last_resort(PLAN_OF["cpu"], SQUARE)
    assert not ladder(None).is_last_resort(PLAN_OF["cpu"], SQUARE)
    assert not ladder(80).is_last_resort(PLAN_OF["leaves"], SQUARE)


def test_what_worked_before_is_not_done_where_the_settings_no_longer_allow_it(tmp_path: Path) -> None:
    allowing = ladder(80, state=tmp_path, cpu_fallback=True)
    allowing.worked(PLAN_OF["cpu"], SQUARE)

    assert ladder(80, state=tmp_path, cpu_fallback=True).first(SQUARE).plan.name == "cpu"
    assert ladder(80, state=tmp_path).first(SQUARE).plan.name == "resident"
