"""Which arrangement is chosen for which machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.component_sizes import KNOWN_SIZES, ComponentSizes
from qwen_image_daemon.render.memory import GIB, Memory, Work, allowed, blocks_that_stay, choose, claim, lacking
from qwen_image_daemon.render.parking import transformers_beside
from qwen_image_daemon.render.plans import PLAN_OF, PLANS
from qwen_image_daemon.render.quantisers import QUANTISERS, Format
from qwen_image_daemon.render.remembered import WorkedBefore
from qwen_image_daemon.settings import PlanName, Quality

QWEN_IMAGE = KNOWN_SIZES["qwen-image"]
SQUARE = Work(pixels=1328 * 1328)
CARDS = {
    # What nvidia-smi reports as the whole memory, in MiB.
    "RTX 4060 8 GB": 8_188,
    "RTX 3060 12 GB": 12_288,
    "RTX 4080": 16_376,
    "RTX 4090": 24_564,
    "RTX 5090": 32_607,
    "A100 40 GB": 40_960,
    "L40S": 46_068,
    "H100 80 GB": 81_559,
    "A100 80 GB": 81_920,
    "H200": 143_771,
}


TORCH_ALONE: frozenset[Format] = frozenset({"float8"})
EVERYTHING: frozenset[Format] = frozenset(QUANTISERS)
"""Installed."""


def chosen(
    card: str,
    quality: Quality = "lossless",
    host: int = 64,
    work: Work = SQUARE,
    formats: frozenset[Format] = EVERYTHING,
) -> PlanName | None:
    memory = Memory(CARDS[card] * 2**20 if card in CARDS else None, host * GIB)
    plan = choose(QWEN_IMAGE, work, "bfloat16", memory, quality, formats).plan
    return None if plan is None else plan.name


@pytest.mark.parametrize(
    ("card", "lossless", "torch_alone", "everything"),
    [
        ("no card", "cpu", "cpu", "cpu"),
        ("RTX 4060 8 GB", "blocks-table", "blocks-table", "blocks-table"),
        ("RTX 3060 12 GB", "blocks-table", "blocks-table", "uint4-table"),
        ("RTX 4080", "blocks-table", "blocks-table", "uint6-table"),
        ("RTX 4090", "blocks-table", "float8", "int8"),
        ("RTX 5090", "encoder-streamed-table", "encoder-streamed-table", "encoder-streamed-table"),
        ("A100 40 GB", "encoder-streamed-table", "encoder-streamed-table", "encoder-streamed-table"),
        ("L40S", "resident-table", "resident-table", "resident-table"),
        ("H100 80 GB", "resident", "resident", "resident"),
        ("A100 80 GB", "resident", "resident", "resident"),
        ("H200", "resident", "resident", "resident"),
    ],
)
def test_each_card_gets_the_best_plan_that_fits_into_it(
    card: str, lossless: PlanName, torch_alone: PlanName, everything: PlanName
) -> None:
    assert chosen(card) == lossless
    assert chosen(card, "allow-quantized", formats=TORCH_ALONE) == torch_alone
    assert chosen(card, "allow-quantized") == everything


def test_fewer_bits_are_taken_where_they_are_made() -> None:
    without_sdnq = EVERYTHING - {"uint6", "uint4"}
    assert chosen("RTX 3060 12 GB", "allow-quantized", formats=without_sdnq) == "nf4-table"
    assert chosen("RTX 4080", "allow-quantized", formats=without_sdnq) == "nf4"
    assert chosen("RTX 4080", "allow-quantized", formats=TORCH_ALONE | {"uint4"}) == "uint4"


def test_four_bits_need_little_host_memory() -> None:
    assert chosen("RTX 4080", "allow-quantized", host=24) == "uint4"
    assert chosen("RTX 4080", "allow-quantized", host=24, formats=TORCH_ALONE) == "disk-table"


@pytest.mark.parametrize(
    ("plan", "weights_gib", "work_gib"),
    [
        # 38.05 + 15.45 - 1.02 for the head + 0.24; the table has 0.21 instead of the modulation's 12.66.
        ("resident", 52.7, 4.0),
        ("resident-table", 40.3, 4.0),
        ("encoder-streamed", 38.3, 4.0),
        ("encoder-streamed-table", 25.8, 4.0),
        ("by-turns", 38.3, 2.2),
        ("int8", 19.3, 4.0),
        ("uint6", 14.8, 4.0),
        ("uint6-table", 10.2, 4.0),
        ("float8", 19.3, 4.0),
        ("uint4", 11.0, 4.0),
        ("uint4-table", 7.6, 4.0),
        ("nf4", 10.1, 4.0),
        ("nf4-table", 7.1, 4.0),
        ("blocks", 2.1, 2.2),
    ],
)
def test_a_plan_claims_what_the_weights_and_the_picture_take(
    plan: PlanName, weights_gib: float, work_gib: float
) -> None:
    needs = claim(PLAN_OF[plan], QWEN_IMAGE, SQUARE, "bfloat16")

    assert needs.weights / GIB == pytest.approx(weights_gib, abs=0.06)
    assert needs.work / GIB == pytest.approx(work_gib, abs=0.06)


def test_streaming_needs_the_weights_in_host_memory_or_reads_them_from_disk() -> None:
    assert chosen("RTX 4080", host=32) == "disk-table"
    assert chosen("RTX 5090", host=16) == "encoder-disk-table"
    assert chosen("RTX 4080", host=1) is None

    choice = choose(QWEN_IMAGE, SQUARE, "bfloat16", Memory(16 * GIB, 1 * GIB), "lossless")
    assert "2.0 GiB of host memory, and 1.0 GiB are free" in choice.reason


def test_the_reason_names_the_better_plan_and_what_it_lacks() -> None:
    choice = choose(QWEN_IMAGE, SQUARE, "bfloat16", Memory(45 * GIB, 64 * GIB), "lossless")

    assert choice.reason == "resident would need 56.7 GiB of device memory, and 45.0 GiB are free"


@pytest.mark.parametrize(
    ("device", "plan", "others"),
    [(80, "resident", 0), (94, "resident", 0), (95, "resident", 1), (141, "resident", 2), (141, "int8", 0)],
)
def test_a_transformer_of_a_model_that_stands_by_stays_where_both_fit(
    device: int, plan: PlanName, others: int
) -> None:
    memory = Memory(device * GIB, 128 * GIB)
    needs = claim(PLAN_OF[plan], QWEN_IMAGE, SQUARE, "bfloat16")

    room, each = transformers_beside(PLAN_OF[plan], needs, QWEN_IMAGE, "bfloat16", memory)

    assert room == others
    assert each / GIB == pytest.approx(38.05, abs=0.01)


def test_a_larger_picture_can_need_another_plan() -> None:
    assert chosen("L40S", work=Work(pixels=2048 * 2048)) == "encoder-streamed-table"


@pytest.mark.parametrize(("card", "staying"), [("RTX 3060 12 GB", 17), ("RTX 4080", 27), ("RTX 4090", 46)])
def test_as_many_blocks_stay_as_there_is_room_for(card: str, staying: int) -> None:
    memory = Memory(CARDS[card] * 2**20, 64 * GIB)

    assert blocks_that_stay(PLAN_OF["blocks-table"], QWEN_IMAGE, SQUARE, "bfloat16", memory) == staying


def test_blocks_stay_only_where_the_others_are_streamed() -> None:
    memory = Memory(200 * GIB, 64 * GIB)

    staying = {plan.name: blocks_that_stay(plan, QWEN_IMAGE, SQUARE, "bfloat16", memory) for plan in PLANS}

    assert {name for name, count in staying.items() if count} == {"blocks-table", "blocks", "disk-table", "disk"}
    assert staying["blocks"] == 59


@pytest.mark.parametrize("name", [plan.name for plan in PLANS if not plan.on_cpu])
def test_a_machine_that_has_just_what_a_plan_claims_gets_that_plan(name: PlanName) -> None:
    """Of the device and of the host: so every plan is the best one for some machine."""
    plan = PLAN_OF[name]
    # By turns with the modulation's weights is never the best where they could be tabulated.
    sizes = KNOWN_SIZES["qwen-image-2.1" if name == "by-turns" else "qwen-image"]
    needs = claim(plan, sizes, SQUARE, "bfloat16")
    quality: Quality = "allow-quantized" if plan.exactness == "lossy" else "lossless"

    choice = choose(sizes, SQUARE, "bfloat16", Memory(needs.device, needs.host), quality, frozenset({plan.kept}))

    assert choice.plan == plan


def test_references_of_an_edit_count() -> None:
    edit = Work(pixels=1024 * 1024, reference_pixels=10 * 1024 * 1024)

    plain, more = (
        claim(PLAN_OF["blocks"], QWEN_IMAGE, work, "bfloat16") for work in (Work(pixels=1024 * 1024), edit)
    )

    assert more.device > plain.device


def test_a_model_without_modulation_layers_has_no_table_to_choose() -> None:
    bare = ComponentSizes(10**9, 0, 10**7, 90, 10**9, 0, 10**8, 10**8)

    assert not any(plan.table for plan in allowed("lossless", Memory(GIB, GIB), bare))


amounts = st.integers(min_value=0, max_value=200 * GIB)
memories = st.builds(Memory, device=amounts, host=amounts)
works = st.builds(
    Work,
    pixels=st.integers(min_value=64 * 64, max_value=2048 * 2048),
    steps=st.integers(min_value=2, max_value=100),
    reference_pixels=st.integers(min_value=0, max_value=10 * 2**20),
)
qualities = st.sampled_from(["lossless", "allow-quantized"])
installed = st.frozensets(st.sampled_from(sorted(EVERYTHING)))


@given(memory=memories, more=memories, work=works, quality=qualities, formats=installed)
def test_more_memory_never_gives_a_worse_plan(
    memory: Memory, more: Memory, work: Work, quality: Quality, formats: frozenset[Format]
) -> None:
    assert memory.device is not None
    assert more.device is not None
    larger = Memory(memory.device + more.device, memory.host + more.host)

    with_less, with_more = (
        choose(QWEN_IMAGE, work, "bfloat16", each, quality, formats).plan for each in (memory, larger)
    )

    if with_less is not None:
        assert with_more is not None
        assert PLANS.index(with_more) <= PLANS.index(with_less)


@given(memory=memories, work=works, quality=qualities, formats=installed)
def test_a_chosen_plan_fits_and_is_allowed(
    memory: Memory, work: Work, quality: Quality, formats: frozenset[Format]
) -> None:
    choice = choose(QWEN_IMAGE, work, "bfloat16", memory, quality, formats)

    if choice.plan is None:
        plans = allowed(quality, memory, QWEN_IMAGE, formats)
        needs = [claim(plan, QWEN_IMAGE, work, "bfloat16") for plan in plans]
        assert all(lacking(each, memory) for each in needs)
    else:
        assert choice.claim is not None
        assert lacking(choice.claim, memory) is None
        assert quality == "allow-quantized" or choice.plan.exactness == "exact"
        assert choice.plan.kept in {"as loaded", *formats}


@given(work=works, smaller=works)
def test_a_larger_picture_never_claims_less(work: Work, smaller: Work) -> None:
    smaller = Work(
        min(work.pixels, smaller.pixels),
        min(work.steps, smaller.steps),
        min(work.reference_pixels, smaller.reference_pixels),
    )
    for plan in PLANS:
        ours, theirs = (claim(plan, QWEN_IMAGE, each, "bfloat16") for each in (work, smaller))
        assert ours.device >= theirs.device
        assert ours.host >= theirs.host


def test_every_model_that_is_fetched_from_the_hub_has_known_sizes() -> None:
    assert set(KNOWN_SIZES) == set(FAMILIES) - {"demo"}
    assert KNOWN_SIZES["qwen-image-2.1"].total * 2 / GIB == pytest.approx(13.25 + 15.17 + 0.63, abs=0.01)


def test_what_worked_is_kept_in_mind_for_a_while_and_over_a_restart(tmp_path: Path) -> None:
    now = [1_000.0]
    file = tmp_path / "notes.json"
    WorkedBefore(file, 60, lambda: now[0]).note("large", "by-turns")
    again = WorkedBefore(file, 60, lambda: now[0])
    assert again.name("large") == "by-turns"
    assert again.name("small") is None
    now[0] += 60
    assert again.name("large") is None


@pytest.mark.parametrize("text", ["[1", "[1]", '{"large": 3}', '{"large": ["by-turns", "noon"]}'])
def test_a_file_of_notes_that_is_broken_is_no_obstacle(text: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.json"
    file.write_text(text, encoding="utf-8")
    notes = WorkedBefore(file, 60)
    assert notes.name("large") is None
    notes.note("large", "by-turns")
    assert WorkedBefore(file, 60).name("large") == "by-turns"
