"""Every arrangement draws the same picture, and every one is whole again after whatever failed in it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from arranged import (
    GUIDED,
    Shortage,
    drawn,
    ignore,
    insert,
    opened,
    pipeline_of,
    plan_of,
    rendered,
    steps_of,
)
from qwen_image_daemon.jobs.families import FamilyName
from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.caller_progress import CallerProgress
from qwen_image_daemon.render.diffusers_renderer import DiffusersRenderer
from qwen_image_daemon.render.plans import PLAN_OF, PLANS
from qwen_image_daemon.render.quantisers import formats_at_hand, makers_at_hand
from qwen_image_daemon.render.renderer import (
    Arrangement,
    Control,
    Misplaced,
    OutOfMemory,
    Progress,
    RenderRequest,
    UnexpectedFailure,
)
from qwen_image_daemon.settings import ControlNetSettings, PlanName, RenderSettings
from tiny_models import Card, TinyModel, loaded, read_small_references

EXACT: list[PlanName] = [plan.name for plan in PLANS if plan.exactness == "exact"]
LOSSY: list[PlanName] = [plan.name for plan in PLANS if plan.exactness == "lossy"]
ALL: list[PlanName] = [plan.name for plan in PLANS]


def some(plans: Sequence[PlanName], *often: PlanName) -> list[Any]:
    """Try these often, and the others, whose mechanisms are the same, with `make slow`."""
    return [
        pytest.param(plan, marks=[_needs_its_library(plan), *([] if plan in often else [pytest.mark.slow])])
        for plan in plans
    ]


def is_at_hand(plan: PlanName) -> bool:
    return PLAN_OF[plan].kept in {"as loaded", *formats_at_hand()}


def _needs_its_library(plan: PlanName) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_at_hand(plan), reason="its library is not installed (make slow)")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Let weights that come onto the device come onto this card instead. The CPU computes with them."""
    card = Card()
    insert(card, monkeypatch)
    return card


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Path) -> bytes:
    """Give the picture as a fresh model draws it that is all in one place, on such a card.

    Not on the CPU alone: there mapped weights are aligned otherwise than copies, and round otherwise.
    """
    with pytest.MonkeyPatch.context() as patch:
        insert(Card(), patch)
        with opened(tiny_checkpoint) as renderer:
            return drawn(renderer)


@pytest.mark.parametrize("plan", some(EXACT, "encoder-streamed-table", "leaves"))
def test_an_exact_arrangement_draws_the_same_bytes_picture_after_picture(
    plan: PlanName, tiny_checkpoint: Path, expected: bytes, card: Card
) -> None:
    with opened(tiny_checkpoint, plan) as renderer:
        first = rendered(renderer)

        assert first.image.tobytes() == expected
        assert first.arrangement is not None
        assert first.arrangement == Arrangement(plan=plan, exactness="exact")
        assert drawn(renderer, replace(GUIDED, seed=8, num_inference_steps=3)) != expected
        assert drawn(renderer) == expected
    assert card.used == 0


@pytest.mark.parametrize("plan", some(LOSSY, "int8", "float8-table", "uint4", "nf4-table"))
def test_weights_in_fewer_bits_give_a_like_picture_and_are_called_lossy(
    plan: PlanName, tiny_checkpoint: Path, expected: bytes, card: Card
) -> None:
    with opened(tiny_checkpoint, plan) as renderer:
        rendering = rendered(renderer)

        assert rendering.arrangement is not None
        assert rendering.arrangement.exactness == "lossy"
        assert rendering.arrangement.levers == (PLAN_OF[plan].told(makers_at_hand()),)
        difference = [abs(one - other) for one, other in zip(rendering.image.tobytes(), expected, strict=True)]
        assert 0 < sum(difference) / len(difference) < 24
    assert card.used == 0


FAULTS = {"text_encoder": 1, "transformer, first": 1, "transformer, middle": 2, "transformer, last": 4, "vae": 1}
"""Where it fails, and in which call: guided, each of two steps calls the transformer twice."""


@pytest.mark.parametrize("plan", some(ALL, "by-turns-table", "float8-table", "blocks-table"))
def test_after_a_fault_anywhere_the_next_picture_is_that_of_a_fresh_model(
    plan: PlanName, tiny_checkpoint: Path, expected: bytes, card: Card
) -> None:
    with opened(tiny_checkpoint, plan) as renderer:
        undisturbed = drawn(renderer)
        at_rest = card.used
        assert undisturbed == expected or plan not in EXACT

        for fault in FAULTS:
            with failing(renderer, fault), pytest.raises(UnexpectedFailure, match="injected"):
                # A prompt of its own, so that the text encoder is needed.
                drawn(renderer, replace(GUIDED, prompt=f"{fault} breaks"))

            assert card.used == at_rest, fault
            assert drawn(renderer) == undisturbed, fault


def failing(renderer: DiffusersRenderer, fault: str) -> "Fault":
    component = fault.partition(",")[0]
    pipeline = pipeline_of(renderer)
    inner = {
        "text_encoder": lambda: pipeline.text_encoder.model.language_model.layers[1].mlp,
        "transformer": lambda: pipeline.transformer.transformer_blocks[1].attn,
        "vae": lambda: pipeline.vae.decoder.mid_block,
    }[component]()
    return Fault(inner, FAULTS[fault])


class Fault:
    """Makes a module raise in its `at`-th forward."""

    def __init__(self, module: torch.nn.Module, at: int) -> None:
        self._module = module
        self._left = at

    def __enter__(self) -> None:
        self._hook = self._module.register_forward_pre_hook(self._count)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _count(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            raise ZeroDivisionError("injected")


# --- the ladder -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("card")
def test_memory_that_came_back_is_used_at_once(tiny_checkpoint: Path, expected: bytes) -> None:
    """The first rung: give back what nothing uses, and try the same again."""
    with opened(tiny_checkpoint) as renderer, Shortage(renderer, times=1):
        rendering = rendered(renderer)

    assert rendering.image.tobytes() == expected
    assert plan_of(rendering) == "resident"
    (step,) = steps_of(rendering)
    assert step.startswith("again: Memory ran out on the device: ")


@pytest.mark.usefixtures("card")
def test_each_step_down_is_told(tiny_checkpoint: Path) -> None:
    with opened(tiny_checkpoint) as renderer, Shortage(renderer, times=3):
        rendering = rendered(renderer)

    assert plan_of(rendering) == "encoder-streamed"
    assert [step.partition(":")[0] for step in steps_of(rendering)] == [
        "again",
        # Asked, not assumed: another transformer may have it.
        "QwenImageTransformer2DModel cannot compute attention in slices",
        "as resident-table instead of resident",
        "as encoder-streamed instead of resident-table",
    ]


@pytest.mark.usefixtures("card")
def test_where_nothing_helps_the_job_fails_and_the_next_one_is_drawn_as_ever(
    tiny_checkpoint: Path, expected: bytes
) -> None:
    with opened(tiny_checkpoint) as renderer:
        with Shortage(renderer, times=1_000), pytest.raises(OutOfMemory):
            drawn(renderer)

        rendering = rendered(renderer)

    assert rendering.image.tobytes() == expected
    assert plan_of(rendering) == "resident"
    assert steps_of(rendering) == ()


@pytest.mark.usefixtures("card")
def test_the_cpu_is_the_last_resort_where_it_is_allowed(tiny_checkpoint: Path) -> None:
    with opened(tiny_checkpoint, "leaves", cpu_fallback=True) as renderer, Shortage(renderer, times=2):
        rendering = rendered(renderer)

    assert rendering.arrangement is not None
    assert (rendering.arrangement.plan, rendering.arrangement.exactness) == ("cpu", "float-drift")
    assert rendering.arrangement.levers == ("drawn on the CPU",)
    assert steps_of(rendering)[-1].startswith("drawn on the CPU, which takes about ")


@pytest.mark.usefixtures("card")
def test_while_the_cpu_draws_as_the_last_resort_its_time_is_told_and_beyond_the_limit_it_does_not(
    tiny_checkpoint: Path,
) -> None:
    told: list[Progress] = []
    with opened(tiny_checkpoint, "leaves", cpu_fallback=True) as renderer, Shortage(renderer, times=2):
        renderer.render(GUIDED, told.append)
    assert told[-1].note is not None
    assert told[-1].expected_seconds is not None

    limit = 1e-6
    with opened(tiny_checkpoint, "leaves", cpu_fallback=True, cpu_fallback_max_seconds=limit) as renderer:
        with Shortage(renderer, times=2), pytest.raises(OutOfMemory) as failure:
            drawn(renderer)
        assert "render.cpu_fallback_max_seconds" in str(failure.value)
        assert "as the last resort would take about" in str(failure.value)
        assert plan_of(rendered(renderer)) == "leaves"


@pytest.mark.usefixtures("card")
def test_where_the_hosts_memory_runs_out_the_next_arrangement_reads_from_disk(
    tiny_checkpoint: Path, expected: bytes
) -> None:
    fault = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 bytes")
    with opened(tiny_checkpoint, "encoder-streamed") as renderer, Shortage(renderer, 2, fault):
        rendering = rendered(renderer)

    assert rendering.image.tobytes() == expected
    assert plan_of(rendering) == "encoder-disk"
    step = "as encoder-disk instead of encoder-streamed: Memory ran out on the host: "
    assert steps_of(rendering)[-1].startswith(step)


@pytest.mark.usefixtures("card")
def test_attention_is_sliced_first_where_the_transformer_can_and_whole_again_for_the_next_picture(
    tiny_checkpoint: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        "diffusers.QwenImageTransformer2DModel.set_attention_slice",
        lambda _, size: asked.append(size),
        raising=False,
    )
    with opened(tiny_checkpoint) as renderer:
        with Shortage(renderer, times=2):
            rendering = rendered(renderer)
        assert rendering.arrangement is not None
        assert (plan_of(rendering), rendering.arrangement.exactness) == ("resident", "float-drift")
        assert rendering.arrangement.levers == ("attention was computed in slices",)
        assert asked == ["auto", None]
        assert drawn(renderer) == expected


@pytest.mark.usefixtures("card")
def test_what_worked_is_remembered_for_such_pictures_only_and_over_a_restart(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with opened(tiny_checkpoint, state=tmp_path) as renderer, Shortage(renderer, times=2):
        assert plan_of(rendered(renderer)) == "resident-table"

    with opened(tiny_checkpoint, state=tmp_path) as renderer:
        again = rendered(renderer)
        assert plan_of(again) == "resident-table"
        assert steps_of(again) == ()
        assert plan_of(rendered(renderer, replace(GUIDED, width=96))) == "resident"


@pytest.mark.slow
@pytest.mark.usefixtures("card")
def test_after_a_while_the_better_arrangement_is_tried_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with opened(tiny_checkpoint, state=tmp_path, placement_retry_seconds=1e-6) as renderer:
        with Shortage(renderer, times=2):
            assert plan_of(rendered(renderer)) == "resident-table"

        assert plan_of(rendered(renderer)) == "resident"


# --- everything in its place ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", some(["resident", "by-turns", "blocks-table"], "blocks-table"))
@pytest.mark.usefixtures("card")
def test_a_weight_that_went_astray_is_put_back_before_the_next_picture(
    plan: PlanName, tiny_checkpoint: Path, expected: bytes
) -> None:
    with opened(tiny_checkpoint, plan) as renderer:
        block = pipeline_of(renderer).transformer.transformer_blocks[0]
        block.attn.to_q.weight.data = torch.zeros_like(block.attn.to_q.weight)

        assert drawn(renderer) == expected


@pytest.mark.usefixtures("card")
def test_mixed_devices_in_the_middle_of_a_picture_are_repaired_once(
    tiny_checkpoint: Path, expected: bytes
) -> None:
    fault = RuntimeError("Expected all tensors to be on the same device, but found at least two devices")
    with opened(tiny_checkpoint) as renderer:
        with Shortage(renderer, times=1, fault=fault):
            rendering = rendered(renderer)
        assert rendering.image.tobytes() == expected
        assert [step.partition(":")[0] for step in steps_of(rendering)] == ["arranged anew"]

        with Shortage(renderer, times=2, fault=fault), pytest.raises(Misplaced):
            drawn(renderer)
        assert drawn(renderer) == expected


# --- every family, LoRAs, ControlNets --------------------------------------------------------------------------

CPU = torch.device("cpu")
PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
REQUESTS: dict[FamilyName, RenderRequest] = {
    "qwen-image": replace(GUIDED, task="controlnet", control=Control(PICTURE, "edges")),
    "qwen-image-edit-plus": replace(GUIDED, task="edit", references=(PICTURE, PICTURE.rotate(90))),
    "qwen-image-2.1": GUIDED,
}


@pytest.fixture
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    read_small_references(monkeypatch, 64, 64)


def arranged_and_drawn(model: TinyModel, plan: PlanName, request: RenderRequest, staying: int = 0) -> bytes:
    loaded_model = model.renderer._entered.loaded
    loaded_model.warm.arrange(PLAN_OF[plan], CPU, staying)
    return loaded_model.warm.draw(request, CallerProgress(ignore)).image.tobytes()


@pytest.mark.usefixtures("card", "_small_references")
@pytest.mark.parametrize(
    "family",
    ["qwen-image", pytest.param("qwen-image-edit-plus", marks=pytest.mark.slow), "qwen-image-2.1"],
)
def test_every_family_draws_the_same_in_every_kind_of_arrangement(
    family: FamilyName, tiny_family: Callable[[str], Path]
) -> None:
    request = REQUESTS[family]
    controlnets = {"edges": ControlNetSettings(source=str(tiny_family("controlnet-union")))}
    with loaded(family, tiny_family(family), controlnets=controlnets) as model:
        plain = arranged_and_drawn(model, "resident", request)
        tables = family != "qwen-image-2.1"
        for plan in EXACT:
            if tables or not PLAN_OF[plan].table:
                assert arranged_and_drawn(model, plan, request) == plain, plan


def test_a_controlnet_goes_from_the_device_with_everything_else(
    tiny_family: Callable[[str], Path], card: Card
) -> None:
    controlnets = {"edges": ControlNetSettings(source=str(tiny_family("controlnet-union")))}
    settings = RenderSettings(device="cpu", precisions=("float32",), placement="resident")
    with loaded("qwen-image", tiny_family("qwen-image"), controlnets=controlnets, settings=settings) as model:
        plain = model.bytes_of(GUIDED)
        without = card.used
        controlled = model.bytes_of(REQUESTS["qwen-image"])
        assert card.used > without

        loaded_model = model.renderer._entered.loaded
        loaded_model.warm.forget_arrangement()

        assert card.used == 0
        assert model.bytes_of(REQUESTS["qwen-image"]) == controlled
        assert model.bytes_of(GUIDED) == plain


@pytest.mark.usefixtures("card")
def test_blocks_that_stay_between_streamed_ones_change_nothing(tiny_checkpoint: Path, expected: bytes) -> None:
    with loaded("demo", tiny_checkpoint) as model:
        assert arranged_and_drawn(model, "blocks", GUIDED, staying=1) == expected
        assert arranged_and_drawn(model, "blocks-table", GUIDED, staying=1) == expected


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    "plans",
    [
        ["resident", "resident-table", "int8", "float8-table", "nf4-table", "blocks"],
        pytest.param(ALL, marks=pytest.mark.slow),
    ],
    ids=["each mechanism", "all"],
)
def test_loras_count_in_every_arrangement_and_leave_no_trace(
    plans: list[PlanName], tiny_family: Callable[[str], Path], tmp_path: Path
) -> None:
    random = torch.Generator().manual_seed(3)
    weights: dict[str, torch.Tensor] = {}
    for layer, outputs in (("0.attn.to_q", 32), ("1.img_mod.1", 192)):
        weights[f"transformer.transformer_blocks.{layer}.lora_A.weight"] = torch.randn(2, 32, generator=random)
        weights[f"transformer.transformer_blocks.{layer}.lora_B.weight"] = torch.randn(
            outputs, 2, generator=random
        )
    save_file(weights, tmp_path / "strong.safetensors")
    exact: set[tuple[bytes, bytes]] = set()
    with_lora = replace(GUIDED, loras=(LoraUse(name="strong", weight=0.5),))

    with loaded("qwen-image", tiny_family("qwen-image"), loras=LoraFolder(tmp_path, {})) as model:
        for plan in filter(is_at_hand, plans):
            bare = arranged_and_drawn(model, plan, GUIDED)
            changed, after = model_drawn(model, with_lora), model_drawn(model, GUIDED)
            assert bare == after != changed, plan
            if plan in EXACT:
                exact.add((bare, changed))
    assert len(exact) == 1


def model_drawn(model: TinyModel, request: RenderRequest) -> bytes:
    loaded_model = model.renderer._entered.loaded
    return loaded_model.warm.draw(request, CallerProgress(ignore)).image.tobytes()
