"""Does a model draw all that its family promises, exactly as asked? Tried on the loaded model itself. No torch."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict

from qwen_image_daemon.jobs.families import ASPECT_RATIOS, FAMILIES, Family, FamilyName, Size
from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.jobs.resolution import MASKED_EDIT_RESOLUTION, SINGLE_SPACE
from qwen_image_daemon.jobs.source_sizes import layered_size, nearest_sizes
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.renderer import (
    Control,
    MemoryInfo,
    ModelInfo,
    Progress,
    Renderer,
    RenderError,
    Rendering,
    RenderRequest,
)
from qwen_image_daemon.settings import ControlNetSettings

_PROMPT: Final = "a red circle on a white background"
_OTHER_WISH: Final = "red"
_STRENGTHS: Final = (0.2, 0.6, 1.0)
_GUIDED: Final = 4.0


class _Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CheckResult(_Reported):
    """What one trial came to."""

    name: str
    passed: bool
    told: str = ""
    """What is wrong; or what else is to be said."""
    seconds: float | None = None
    """Wall time of the picture."""
    steps: int | None = None
    passes: int | None = None
    """How often the transformer was called."""
    seconds_per_step: float | None = None


class SelfTestReport(_Reported):
    """What a model does, and how fast."""

    model: str
    passed: bool
    told: str = ""
    """Why nothing could be tried."""
    info: ModelInfo | None = None
    checks: tuple[CheckResult, ...] = ()
    memory: MemoryInfo | None = None
    """At the end, with the most that was held."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One request, and whether its picture is to be equal to that of an earlier trial, or different from it."""

    name: str
    request: RenderRequest
    differs_from: str | None = None
    equals: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tried: a model by its name in the settings, with what jobs may add to it."""

    model: str
    family: FamilyName
    accessories: Accessories
    side: int | None = None
    """Pictures have about so many pixels squared, where the recommended sizes would take too long; where a picture
    decides the size, it does."""


def self_test(
    subject: Subject, open_renderer: Callable[[], Renderer], tell: Callable[[CheckResult], None]
) -> SelfTestReport:
    """Load the model, and draw one picture for everything that its family can do.

    `tell` hears each result at once. What loading and drawing raise is in the report.
    """
    name = subject.model
    try:
        with open_renderer() as renderer:
            testing = _Testing(renderer, tell)
            for trial in trials(FAMILIES[subject.family], subject.accessories, subject.side):
                testing.attempt(trial)
            checks = tuple(testing.results)
            return SelfTestReport(
                model=name,
                passed=all(check.passed for check in checks),
                info=renderer.info,
                checks=checks,
                memory=renderer.clean_up().left,
            )
    except RenderError as error:
        return SelfTestReport(model=name, passed=False, told=f"{error} {error.fix}")


class _Testing:
    def __init__(self, renderer: Renderer, tell: Callable[[CheckResult], None]) -> None:
        self._renderer = renderer
        self._tell = tell
        self._pictures: dict[str, bytes] = {}
        self.results: list[CheckResult] = []

    def attempt(self, trial: Trial) -> None:
        """Draw, and judge what came out."""
        started = time.perf_counter()
        try:
            rendering = self._renderer.render(trial.request, _unheard)
        except RenderError as error:
            self._note(CheckResult(name=trial.name, passed=False, told=f"{error} {error.fix}"))
            return
        told = " ".join(self._faults(trial, rendering))
        self._note(
            CheckResult(
                name=trial.name,
                passed=not told,
                told=told,
                seconds=round(time.perf_counter() - started, 3),
                steps=rendering.steps,
                passes=rendering.passes,
                seconds_per_step=round(rendering.seconds.denoise / rendering.steps, 4),
            )
        )

    def _note(self, result: CheckResult) -> None:
        self.results.append(result)
        self._tell(result)

    def _faults(self, trial: Trial, rendering: Rendering) -> Iterator[str]:
        request, picture = trial.request, rendering.image.tobytes()
        self._pictures[trial.name] = picture
        if rendering.image.size != (request.width, request.height):
            width, height = rendering.image.size
            yield f"It is {width}×{height} instead of {request.width}×{request.height}."
        expected = rendering.steps * (1 if request.negative_prompt is None else 2)
        if rendering.passes not in {0, expected}:
            yield f"The model was called {rendering.passes} times instead of {expected}."
        if len(rendering.layers) != (request.layers or 0):
            yield f"There are {len(rendering.layers)} layers instead of {request.layers}."
        if trial.differs_from is not None and self._pictures.get(trial.differs_from) == picture:
            yield f"It is the same picture as that of {trial.differs_from}."
        if trial.equals is not None and self._pictures.get(trial.equals, picture) != picture:
            yield f"It is another picture than that of {trial.equals}."
        yield from rendering.adjustments


def trials(family: Family, accessories: Accessories, side: int | None) -> Iterator[Trial]:
    """Give everything that a family is to be tried with, the basic picture first."""
    sizes = {ratio: _size(family, family.sizes[ratio], side) for ratio in ASPECT_RATIOS}
    draft = _draft(family, sizes["1:1"])
    basic = "edit" if "edit" in family.tasks else "layered" if "layered" in family.tasks else "text-to-image"
    if "text-to-image" in family.tasks:
        basic = "text-to-image"
    yield Trial(basic, draft)
    yield Trial("the same again", draft, equals=basic)
    yield Trial("another seed", replace(draft, seed=draft.seed + 1), differs_from=basic)
    yield from _of_guidance(draft, basic)
    if draft.task != "layered":
        for ratio, size in sizes.items():
            yield Trial(f"aspect ratio {ratio}", replace(draft, width=size.width, height=size.height))
    for name, preset in family.presets.items():
        yield Trial(
            f"preset {name}",
            _guided(draft, preset.true_cfg_scale, preset.num_inference_steps),
        )
    yield from _of_tasks(family, draft, accessories)
    yield from _of_loras(family, draft, basic, accessories)


def _of_guidance(draft: RenderRequest, basic: str) -> Iterator[Trial]:
    guided = _guided(draft, _GUIDED, draft.num_inference_steps)
    yield Trial("guidance on", guided)
    yield Trial("guidance off", _guided(draft, 1.0, draft.num_inference_steps), differs_from="guidance on")
    yield Trial("negative prompt", replace(guided, negative_prompt=_OTHER_WISH), differs_from="guidance on")
    yield Trial("afterwards as before", draft, equals=basic)


def _of_tasks(family: Family, draft: RenderRequest, accessories: Accessories) -> Iterator[Trial]:
    size = Size(draft.width, draft.height)
    source, mask = _source(size), _mask(size)
    if "image-to-image" in family.tasks:
        for strength in _STRENGTHS:
            redrawn = replace(draft, task="image-to-image", source=source, strength=strength)
            yield Trial(f"image-to-image, strength {strength}", redrawn, differs_from="text-to-image")
    if "inpaint" in family.tasks:
        yield Trial("inpaint", replace(draft, task="inpaint", source=source, mask=mask, strength=1.0))
    if "edit" in family.tasks and draft.task != "edit":
        yield Trial("edit", replace(draft, task="edit", references=(source,)))
    if family.max_references > 1:
        several = replace(draft, task="edit", references=(source, source.rotate(90)))
        yield Trial("edit, two pictures", several, differs_from="edit")
    if family.edits_with_mask:
        whole = layered_size(size, MASKED_EDIT_RESOLUTION)
        masked = replace(draft, references=(source,), mask=mask, strength=1.0)
        yield Trial("edit with a mask", replace(masked, width=whole.width, height=whole.height))
    if "layered" in family.tasks:
        yield Trial("layered without a prompt", replace(draft, prompt=""))
        yield Trial("layered, one layer", replace(draft, layers=1))
    for name, controlnet in accessories.controlnets.items():
        if controlnet.family == family.name:
            yield _of_controlnet(name, controlnet, draft, source, mask)


def _of_controlnet(
    name: str, controlnet: ControlNetSettings, draft: RenderRequest, source: Image.Image, mask: Image.Image
) -> Trial:
    request = replace(draft, task="controlnet", control=Control(source, name))
    if controlnet.kind == "inpaint":
        request = replace(request, mask=mask)
    return Trial(f"controlnet {name}", request, differs_from="text-to-image")


def _of_loras(family: Family, draft: RenderRequest, basic: str, accessories: Accessories) -> Iterator[Trial]:
    for name, lora in accessories.loras().items():
        if lora.family in {None, family.name}:
            yield Trial(f"LoRA {name}", replace(draft, loras=(LoraUse(name=name),)), differs_from=basic)
            yield Trial(f"without the LoRA {name} again", draft, equals=basic)


def _draft(family: Family, size: Size) -> RenderRequest:
    """Give the cheapest picture of the family, of the first task that it has."""
    preset = family.presets["draft"]
    plain = RenderRequest(
        task="text-to-image",
        prompt=_PROMPT,
        negative_prompt=None,
        true_cfg_scale=1.0,
        num_inference_steps=preset.num_inference_steps,
        width=size.width,
        height=size.height,
        seed=1,
    )
    plain = _guided(plain, preset.true_cfg_scale, preset.num_inference_steps)
    if "text-to-image" in family.tasks:
        return plain
    if "edit" in family.tasks:
        return replace(plain, task="edit", references=(_source(size),))
    source = _source(size)
    layers = layered_size(size, 640)
    return replace(
        plain,
        task="layered",
        source=source.convert("RGBA"),
        layers=2,
        resolution=640,
        width=layers.width,
        height=layers.height,
    )


def _guided(request: RenderRequest, scale: float, steps: int) -> RenderRequest:
    negative = SINGLE_SPACE if scale > 1.0 else None
    return replace(request, true_cfg_scale=scale, negative_prompt=negative, num_inference_steps=steps)


def _size(family: Family, recommended: Size, side: int | None) -> Size:
    if side is None:
        return recommended
    scale = side / sqrt(recommended.width * recommended.height)
    width, height = (max(1, round(edge * scale)) for edge in (recommended.width, recommended.height))
    return nearest_sizes(Size(width, height), family)[0]


def _source(size: Size) -> Image.Image:
    """Give a picture with something in it."""
    picture = Image.new("RGB", (size.width, size.height), "white")
    ImageDraw.Draw(picture).ellipse(
        (size.width // 4, size.height // 4, size.width // 2, size.height // 2), fill="red"
    )
    return picture


def _mask(size: Size) -> Image.Image:
    mask = Image.new("L", (size.width, size.height), 0)
    mask.paste(255, (0, 0, size.width // 2, size.height))
    return mask


def _unheard(_: Progress) -> None:
    pass
