"""The renderer that draws with a Qwen-Image checkpoint through diffusers."""

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog
import torch

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.arranging import ArrangedModel
from qwen_image_daemon.render.between_operations import BetweenOperations
from qwen_image_daemon.render.cleaning import Cleaning
from qwen_image_daemon.render.component_sizes import sizes_of
from qwen_image_daemon.render.devices import choose_device, give_back, is_the_hosts, lacking
from qwen_image_daemon.render.embeddings import PromptEncoder
from qwen_image_daemon.render.gguf_transformer import formats_of
from qwen_image_daemon.render.handed_over import Lasting, Part, parts_of
from qwen_image_daemon.render.host_memory import Heap
from qwen_image_daemon.render.ladder import Ladder, ModelFootprint
from qwen_image_daemon.render.loading import load_controlnet, load_pipeline, pipeline_class
from qwen_image_daemon.render.loras import Loras
from qwen_image_daemon.render.making_room import Room
from qwen_image_daemon.render.mapped_files import are_mapped
from qwen_image_daemon.render.memory import BYTES, PLAN_OF, Memory
from qwen_image_daemon.render.memory_report import free_memory
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.nunchaku_transformer import refuse_another_transformer
from qwen_image_daemon.render.packed_layers import formats_in, parameters_of
from qwen_image_daemon.render.peaks import PeakMeter
from qwen_image_daemon.render.provision import Provided, provided_controlnet, provided_model
from qwen_image_daemon.render.quantised_files import (
    UNPACKABLE,
    is_nunchakus,
    quantised_in,
    refuse_quantised_component,
    refuse_unusable,
    refuse_unusable_folder,
)
from qwen_image_daemon.render.quantisers import refuse_lacking
from qwen_image_daemon.render.reading_ahead import reading_ahead
from qwen_image_daemon.render.remembered import Remembered
from qwen_image_daemon.render.renderer import (
    BadPicture,
    CleanUp,
    Loading,
    MixedPrecisions,
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
from qwen_image_daemon.render.telling import Telling
from qwen_image_daemon.render.translation import loading_failure, rendering_failure, translated
from qwen_image_daemon.render.trial_pictures import trial_request
from qwen_image_daemon.render.vae_ladder import VaeLadder
from qwen_image_daemon.render.versions import versions_of
from qwen_image_daemon.render.warm_pipeline import CallerProgress, WarmPipeline
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings, Precision, RenderSettings

log = structlog.get_logger()


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
        self._state = lasting.state
        self._tell = lasting.tell
        self._telling = Telling(lasting.tell)
        self._let_go_of_others = lasting.let_go_of_others
        self._parking = lasting.parking
        self._local = model
        """The model as a folder on this machine, once it is there."""
        self._remembered = Remembered.in_folder(lasting.state, settings.placement_retry_seconds)
        self._loaded: tuple[ArrangedModel, ModelInfo] | None = None
        self._lossy_by: tuple[str, ...] = ()
        """What the checkpoint itself lost, if anything."""
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
        placement = self._settings.placement
        if placement != "auto":
            refuse_lacking(PLAN_OF[placement].kept, f'render.placement = "{placement}"')
        file = self._model.transformer_file
        if file is not None:
            refuse_unusable(file)
            self._refuse_quantising_again(str(file))
        found = translated(lambda: pipeline_class(self._model), self._loading_failure)
        provided = translated(self._provided, self._loading_failure, self._telling.is_callers_own)
        self._local = _at(self._model, provided.folder)
        loaded, precision, notes = self._first_that_works(provided, device)
        info = ModelInfo(
            family=self._model.family,
            licence=MODELS[self._model.family].licence,
            pipeline=found,
            source=self._model.source,
            revision=self._model.revision,
            commit=provided.commit,
            verified=provided.verified,
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
        self._parking.forget(self)
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
        self._parking.forget(self)
        rendering = loaded.draw(request, CallerProgress(progress), rendering_failure)
        return _lossy(rendering, self._lossy_by)

    def stand_by(self) -> None:
        """Leave the device, but for a copy of the transformer where that may stay, and lend out what is shared."""
        loaded, _ = self._entered
        loaded.warm.forget_guests()
        self._park(loaded)
        self._stands_by = True
        if self._handed_over is not None:
            self._handed_over.lend(self, self._shareable(loaded))
        give_back(loaded.device)

    def _park(self, loaded: ArrangedModel) -> None:
        # On a device whose memory is the host's a copy would take what the host's own tensors are in.
        if not self._parking.is_open or is_the_hosts(loaded.device):
            loaded.warm.forget_arrangement()
            return
        kept = loaded.warm.park()
        if kept:
            self._parking.keep(self, kept, loaded.warm.unpark)

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

        done = translated(cleaned, rendering_failure)
        # Each picture begins the device's peak anew; the report tells that of all of them.
        told = {
            "peak_bytes": loaded.meter.reported(done.left.peak_bytes),
            "standing_by_bytes": self._kept_by_others,
        }
        plan, _ = loaded.warm.arranged
        return done.model_copy(
            update={
                "arrangement": None if plan is None else plan.name,
                "found": done.found.model_copy(update=told),
                "left": done.left.model_copy(update=told),
            }
        )

    def _shareable(self, loaded: ArrangedModel) -> dict[Part, Any]:
        return {part: loaded.warm.component(name) for name, part in self._parts.items()}

    @property
    def _kept_by_others(self) -> int:
        return self._parking.bytes_beside(self)

    @property
    def _entered(self) -> tuple[ArrangedModel, ModelInfo]:
        if self._loaded is None:
            raise RuntimeError("The renderer is used outside of its with block.")
        return self._loaded

    def _refuse_quantising_again(self, what: str) -> None:
        placement = self._settings.placement
        if placement != "auto" and PLAN_OF[placement].kept != "as loaded":
            raise ModelUnavailable(
                f'render.placement = "{placement}" would quantise {what} a second time.',
                "Choose an arrangement that qwen-image-daemon plan calls exact, or auto.",
            )

    def _loading_failure(self, fault: Exception) -> RenderError:
        return loading_failure(fault, self._model.source)

    def _first_that_works(
        self, provided: Provided, device: torch.device
    ) -> tuple[ArrangedModel, Precision, tuple[str, ...]]:
        """Try the settings' precisions in turn. The notes say which were passed over, and why."""
        passed_over: dict[Precision, str] = {}
        for precision in self._settings.precisions:
            reason = lacking(device, precision)
            if reason is None:
                try:
                    return self._opened(provided, device, precision), precision, _notes(passed_over)
                except OutOfMemory:
                    # A later precision is not expected to be smaller.
                    give_back(device)
                    raise
                except (ModelUnavailable, BadPicture, MixedPrecisions, UnexpectedFailure) as failure:
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

    def _opened(self, provided: Provided, device: torch.device, precision: Precision) -> ArrangedModel:
        """Load in one precision and look at a trial picture. Raises RenderErrors."""

        def opened() -> ArrangedModel:
            at_hand = self._claimed(device, precision)
            # Once the model before it is gone, and before anything of this one is there.
            memory = free_memory(device)
            if memory.device is not None:
                # What others keep there goes where this one needs it.
                memory = replace(memory, device=memory.device + self._kept_by_others)
            needed = {name: files for name, files in provided.weights.items() if name not in at_hand}
            with reading_ahead(needed, memory.host, self._telling) as ahead, BetweenOperations(ahead.look):
                loaded = self._arranged(device, precision, at_hand, memory)
                ahead.afterwards(Loading("arrange"))
                loaded.draw(trial_request(self._family), CallerProgress(lambda _: None), self._loading_failure)
            return loaded

        return translated(opened, self._loading_failure, self._telling.is_callers_own)

    def _arranged(
        self, device: torch.device, precision: Precision, at_hand: dict[str, Any], memory: Memory
    ) -> ArrangedModel:
        """Load what is not at hand, and be ready to bring it to the device. Raises what the libraries raise."""
        trust = self._settings.trust_remote_code
        pipeline = load_pipeline(self._local, precision, at_hand, trust_remote_code=trust)
        refuse_incomplete(pipeline, self._model.source)
        ladder = self._ladder(pipeline, precision, memory)

        def return_unused() -> None:
            give_back(device)
            self._heap.trim()

        room = Room(
            return_unused,
            self._let_go_of_others,
            is_the_hosts(device),
            self._parking,
            owner=self,
        )
        warm = self._warm(pipeline, precision, ladder, room)
        return ArrangedModel(warm, ladder, PeakMeter(device), device, room)

    def _provided(self) -> Provided:
        """Bring the checkpoint onto this machine, and look whether it is as it should be."""
        provided = provided_model(self._model, self._state, self._telling)
        refuse_unusable_folder(provided.folder, self._model.source, self._model.transformer_file)
        file = self._model.transformer_file
        if file is not None and is_nunchakus(file):
            refuse_another_transformer(file, provided.folder, self._model.source)
        if "transformer" in quantised_in(provided.folder):
            self._refuse_quantising_again(f"the transformer of {self._model.source}")
        return provided

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
        size = BYTES[precision]
        # What is packed is a buffer of its layer.
        weights = [dict(chain(part.named_parameters(), part.named_buffers())) for part in parts]
        sizes = sizes_of(*({name: -(-each.nbytes // size) for name, each in part.items()} for part in weights))
        self._lossy_by = self._lost_by(pipeline)
        sizes = replace(
            sizes,
            # A head that is still there is needed: the layered model describes pictures.
            text_encoder=sizes.text_encoder + sizes.text_encoder_head,
            is_quantised=bool(formats_of(pipeline.transformer) or formats_in(pipeline.transformer)),
            squeezed=parameters_of(pipeline.transformer) / sizes.transformer,
            mapped=are_mapped((each.data_ptr(), each.nbytes) for part in weights for each in part.values()),
        )
        transformer = pipeline.transformer
        slices = hasattr(transformer, "set_attention_slice")
        model = ModelFootprint(
            source=self._model.source,
            sizes=sizes,
            precision=precision,
            usual=self._family.sizes["1:1"],
            width=transformer.inner_dim,
            guests=lambda request: BYTES[precision] * self._accessories.parameters_beside(request),
            unsliced=None if slices else f"{type(transformer).__name__} cannot compute attention in slices",
        )
        return Ladder(model, memory, self._settings, self._remembered)

    def _lost_by(self, pipeline: Any) -> tuple[str, ...]:
        """Say what of the checkpoint is in fewer bits, and where it comes from."""
        file, source = self._model.transformer, self._model.source
        gguf = formats_of(pipeline.transformer)
        lost = [f"transformer from {file} ({', '.join(gguf)})"] if gguf else []
        for component in UNPACKABLE:
            found = formats_in(getattr(pipeline, component))
            place = file if component == "transformer" and file is not None else source
            if found:
                lost.append(f"{component} from {place} in {', '.join(found)}")
        return tuple(lost)

    def _warm(self, pipeline: Any, precision: Precision, ladder: Ladder, room: Room) -> WarmPipeline:
        def controlnet(name: str) -> Any:
            settings = self._accessories.controlnets.get(name)
            if settings is None:
                raise RequestRefused(
                    f"There is no ControlNet {name} in the settings.", "Name one of those there are."
                )

            telling = Telling(self._tell)

            def opened() -> Any:
                provided = provided_controlnet(settings, self._state, telling)
                refuse_quantised_component(provided.folder, settings.source)
                return load_controlnet(_at(settings, provided.folder), precision)

            def failure(fault: Exception) -> RenderError:
                return loading_failure(fault, settings.source)

            try:
                return translated(opened, failure, telling.is_callers_own)
            except ModelUnavailable as error:
                # The model itself is there: only the jobs with this ControlNet fail.
                raise UnexpectedFailure(f"The ControlNet {name} cannot be used: {error}", error.fix) from None

        pipelines = TaskPipelines(pipeline, self._model.family, controlnet)
        return WarmPipeline(
            pipelines,
            Loras(pipeline.transformer, type(pipeline), self._accessories.loras),
            PromptEncoder(pipeline, self._family),
            VaeLadder(pipeline, pipelines.placement, ladder, room),
            self._settings,
        )


def _lossy(rendering: Rendering, levers: Iterable[str]) -> Rendering:
    """Say that a picture is lossy by what the checkpoint lost, if anything, however it was arranged."""
    arrangement = rendering.arrangement
    if arrangement is None:
        return rendering
    for lever in levers:
        arrangement = arrangement.less_exact("lossy", lever)
    return replace(rendering, arrangement=arrangement)


Checkpoint = TypeVar("Checkpoint", ModelSettings, ControlNetSettings)


def _at(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Give the settings of the checkpoint as if they named the folder."""
    return checkpoint.model_copy(update={"source": str(folder), "revision": None})


def _notes(passed_over: dict[Precision, str]) -> tuple[str, ...]:
    return tuple(f"{precision} was passed over: {reason}" for precision, reason in passed_over.items())
