"""The renderer that draws with a Qwen-Image checkpoint through diffusers."""

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import structlog
import torch

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.arranging import ArrangedModel
from qwen_image_daemon.render.cleaning import Cleaning
from qwen_image_daemon.render.component_sizes import sizes_of, sizes_of_folder
from qwen_image_daemon.render.devices import choose_device, give_back, lacking
from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.handed_over import Lasting, Part, parts_of
from qwen_image_daemon.render.host_memory import Heap
from qwen_image_daemon.render.ladder import Ladder, ModelFootprint, WorkedBefore
from qwen_image_daemon.render.loading import load_controlnet, load_pipeline, pipeline_class
from qwen_image_daemon.render.loras import Loras
from qwen_image_daemon.render.memory import Memory
from qwen_image_daemon.render.memory_report import free_memory
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.renderer import (
    BadPicture,
    CleanUp,
    ModelInfo,
    ModelUnavailable,
    OutOfMemory,
    Progress,
    RenderError,
    Rendering,
    RenderRequest,
    RequestRefused,
    UnexpectedFailure,
)
from qwen_image_daemon.render.startup_checks import refuse_incomplete
from qwen_image_daemon.render.task_pipelines import TaskPipelines
from qwen_image_daemon.render.translation import loading_failure, rendering_failure, translated
from qwen_image_daemon.render.trial_pictures import trial_request
from qwen_image_daemon.render.versions import versions_of
from qwen_image_daemon.render.warm_pipeline import CallerProgress, WarmPipeline
from qwen_image_daemon.settings import ModelSettings, Precision, RenderSettings

log = structlog.get_logger()

PLANS_THAT_WORKED = "plans-that-worked.json"


class DiffusersRenderer:
    """One checkpoint on one device, loaded in the first precision that the machine and the checkpoint bear."""

    def __init__(
        self,
        model: ModelSettings,
        settings: RenderSettings,
        accessories: Accessories,
        lasting: Lasting | None = None,
    ) -> None:
        """`lasting` has what the model before this one left behind, and takes what this one leaves."""
        self._model = model
        self._settings = settings
        self._accessories = accessories
        lasting = lasting or Lasting()
        self._handed_over = lasting.handed_over
        self._family = FAMILIES[model.family]
        notes = lasting.state and lasting.state / PLANS_THAT_WORKED
        self._worked = WorkedBefore(notes, settings.placement_retry_seconds)
        self._loaded: tuple[ArrangedModel, ModelInfo] | None = None
        self._parts: dict[str, Part] = {}
        """What the next model may have in common with this one, by component."""
        self._heap = Heap()
        self._used = False
        """Whether anything was drawn since the last clean-up."""
        self._stands_by = False

    def __enter__(self) -> Self:
        """Load the model and draw a trial picture. Raises ModelUnavailable, OutOfMemory or DeviceLost."""
        started = time.perf_counter()
        device = choose_device(self._settings.device)
        found = translated(lambda: pipeline_class(self._model), self._loading_failure)
        if self._model.folder is not None:
            # Names a file that is missing or cut short, which the libraries do not.
            sizes_of_folder(self._model.folder)
        loaded, precision, notes = self._first_that_works(device)
        info = ModelInfo(
            family=self._model.family,
            licence=MODELS[self._model.family].licence,
            pipeline=found,
            source=self._model.source,
            revision=self._model.revision,
            device=str(device),
            precision=precision,
            notes=notes,
            versions=versions_of("torch", "diffusers", "transformers", "pillow"),
            load_seconds=time.perf_counter() - started,
        )
        self._loaded = loaded, info
        self._parts = parts_of(self._model, precision)
        gc.collect()
        self._heap.trim()
        # What is here now stays: later collections need not walk through it again (350 ms each).
        gc.freeze()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Let go of the model and of the memory it held, but for what the next one may have in common with it."""
        loaded, _ = self._entered
        device = loaded.device
        if self._handed_over is not None:
            self._handed_over.take_back(self)
        if not self._stands_by:
            # What is handed over is whole and in host memory, however this model was arranged.
            loaded.warm.forget_arrangement()
            if self._handed_over is not None:
                self._handed_over.leave(self._shareable(loaded))
        # Otherwise it is so already, its parts may be at work in another model, and the memory is needed.
        self._loaded = None
        del loaded
        gc.unfreeze()
        give_back(device)
        self._heap.trim()

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded."""
        _, info = self._entered
        return info

    def render(self, request: RenderRequest, progress: Callable[[Progress], None]) -> Rendering:
        """Draw one picture; see Renderer.render. Where memory runs out, the next arrangement is tried."""
        loaded, _ = self._entered
        self._used = True
        self._stands_by = False
        return loaded.draw(request, CallerProgress(progress), rendering_failure)

    def stand_by(self) -> None:
        """Leave the device, with all that lies on it, and lend out what another model may have in common."""
        loaded, _ = self._entered
        loaded.warm.forget_arrangement()
        loaded.warm.forget_guests()
        self._stands_by = True
        if self._handed_over is not None:
            self._handed_over.lend(self, self._shareable(loaded))
        give_back(loaded.device)

    def clean_up(self) -> CleanUp:
        """Clear memory as `render.cleanup` says. Raises DeviceLost where the accelerator is gone."""
        loaded, _ = self._entered
        used, self._used = self._used, False

        def cleaned() -> CleanUp:
            cleaning = Cleaning(loaded.device, self._heap, loaded.warm.forget_sizes)
            match self._settings.cleanup:
                case "always":
                    return cleaning.everything()
                case "adaptive":
                    return cleaning.what_pays() if used else cleaning.nothing_new()
                case "never":
                    return cleaning.nothing()

        plan, _ = loaded.warm.arranged
        arrangement = None if plan is None else plan.name
        return translated(cleaned, rendering_failure).model_copy(update={"arrangement": arrangement})

    def _shareable(self, loaded: ArrangedModel) -> dict[Part, Any]:
        return {part: loaded.warm.component(name) for name, part in self._parts.items()}

    @property
    def _entered(self) -> tuple[ArrangedModel, ModelInfo]:
        if self._loaded is None:
            raise RuntimeError("The renderer is used outside of its with block.")
        return self._loaded

    def _loading_failure(self, fault: Exception) -> RenderError:
        return loading_failure(fault, self._model.source)

    def _first_that_works(self, device: torch.device) -> tuple[ArrangedModel, Precision, tuple[str, ...]]:
        """Try the settings' precisions in turn. The notes say which were passed over, and why."""
        passed_over: dict[Precision, str] = {}
        for precision in self._settings.precisions:
            reason = lacking(device, precision)
            if reason is None:
                try:
                    return self._opened(device, precision), precision, _notes(passed_over)
                except OutOfMemory:
                    # A later precision is not expected to be smaller.
                    give_back(device)
                    raise
                except (ModelUnavailable, BadPicture, UnexpectedFailure) as failure:
                    reason = str(failure)
                give_back(device)
            passed_over[precision] = reason
            log.warning("precision.passed_over", precision=precision, reason=reason)
        # A broken checkpoint fails in every precision alike: then once is enough.
        reasons = set(passed_over.values())
        told = reasons.pop() if len(reasons) == 1 else " ".join(_notes(passed_over))
        raise ModelUnavailable(
            f"{self._model.source} cannot be used in {' or '.join(passed_over)}: {told}",
            "Fetch the checkpoint again where it may be broken; otherwise set render.precisions or render.device.",
        )

    def _opened(self, device: torch.device, precision: Precision) -> ArrangedModel:
        """Load in one precision and look at a trial picture. Raises RenderErrors."""

        def opened() -> ArrangedModel:
            trust = self._settings.trust_remote_code
            at_hand = self._claimed(device, precision)
            # Once the model before it is gone, and before anything of this one is there.
            memory = free_memory(device)
            pipeline = load_pipeline(self._model, precision, at_hand, trust_remote_code=trust)
            refuse_incomplete(pipeline, self._model.source)
            ladder = self._ladder(pipeline, precision, memory)
            return ArrangedModel(self._warm(pipeline, precision), ladder, device, self._heap)

        loaded = translated(opened, self._loading_failure)
        loaded.draw(trial_request(self._family), CallerProgress(lambda _: None), self._loading_failure)
        return loaded

    def _claimed(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        """Give the components that the model before this one left, and free the others."""
        if self._handed_over is None:
            return {}
        found = self._handed_over.claim(parts_of(self._model, precision))
        if found:
            log.info("parts.handed_over", parts=sorted(found))
        give_back(device)
        return found

    def _ladder(self, pipeline: Any, precision: Precision, memory: Memory) -> Ladder:
        parts = (pipeline.transformer, pipeline.text_encoder, pipeline.vae)
        sizes = sizes_of(*({name: tensor.numel() for name, tensor in part.named_parameters()} for part in parts))
        # A head that is still there is needed: the layered model describes pictures.
        sizes = replace(sizes, text_encoder=sizes.text_encoder + sizes.text_encoder_head)
        usual = self._family.sizes["1:1"]
        model = ModelFootprint(self._model.source, sizes, precision, usual.width * usual.height)
        return Ladder(model, memory, self._settings, self._worked)

    def _warm(self, pipeline: Any, precision: Precision) -> WarmPipeline:
        def controlnet(name: str) -> Any:
            settings = self._accessories.controlnets.get(name)
            if settings is None:
                raise RequestRefused(
                    f"There is no ControlNet {name} in the settings.", "Name one of those there are."
                )
            try:
                return translated(
                    lambda: load_controlnet(settings, precision),
                    lambda fault: loading_failure(fault, settings.source),
                )
            except ModelUnavailable as error:
                # The model itself is there: only the jobs with this ControlNet fail.
                raise UnexpectedFailure(f"The ControlNet {name} cannot be used: {error}", error.fix) from None

        return WarmPipeline(
            TaskPipelines(pipeline, self._model.family, controlnet),
            Loras(pipeline.transformer, type(pipeline), self._accessories.loras),
            PromptEncoder(pipeline, self._family),
            self._family,
            self._settings,
        )


def _notes(passed_over: dict[Precision, str]) -> tuple[str, ...]:
    return tuple(f"{precision} was passed over: {reason}" for precision, reason in passed_over.items())
