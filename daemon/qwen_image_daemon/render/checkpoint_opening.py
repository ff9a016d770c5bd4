"""Bringing up a checkpoint: looked at, loaded in the first precision that works, tried with a picture."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import structlog
import torch

from qwen_image_daemon.jobs.families import FAMILIES
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.arranging import ArrangedModel
from qwen_image_daemon.render.between_operations import BetweenOperations
from qwen_image_daemon.render.caller_progress import CallerProgress
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
from qwen_image_daemon.render.memory import BYTES, Memory
from qwen_image_daemon.render.memory_report import free_memory
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.nunchaku_transformer import refuse_another_transformer
from qwen_image_daemon.render.packed_layers import formats_in, parameters_of
from qwen_image_daemon.render.peaks import PeakMeter
from qwen_image_daemon.render.plans import PLAN_OF
from qwen_image_daemon.render.provision import Provided, provided_controlnet, provided_model
from qwen_image_daemon.render.quantised_files import (
    UNPACKABLE,
    is_nunchakus,
    quantised_in,
    refuse_quantised_component,
    refuse_unusable,
    refuse_unusable_folder,
)
from qwen_image_daemon.render.quantisers import makers_at_hand, refuse_lacking, refuse_lacking_makers
from qwen_image_daemon.render.reading_ahead import reading_ahead
from qwen_image_daemon.render.remembered import Remembered
from qwen_image_daemon.render.renderer import (
    BadPicture,
    Loading,
    MixedPrecisions,
    ModelInfo,
    ModelUnavailable,
    OutOfMemory,
    RenderError,
    RequestRefused,
    UnexpectedFailure,
)
from qwen_image_daemon.render.startup_checks import refuse_incomplete
from qwen_image_daemon.render.task_pipelines import TaskPipelines
from qwen_image_daemon.render.telling import Telling
from qwen_image_daemon.render.translation import loading_failure, translated
from qwen_image_daemon.render.trial_pictures import trial_request
from qwen_image_daemon.render.vae_ladder import VaeLadder
from qwen_image_daemon.render.versions import versions_of
from qwen_image_daemon.render.warm_pipeline import WarmPipeline
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings, Precision, RenderSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that has drawn its trial picture."""

    loaded: ArrangedModel
    info: ModelInfo
    lossy_by: tuple[str, ...]
    """What the checkpoint itself lost, if anything."""
    shareable: Mapping[str, Part]
    """What the next model may have in common with this one, by component."""


class CheckpointOpening:
    """Opens a checkpoint in the first precision that the machine and the checkpoint bear.

    What other models keep on the device for `owner` to make way counts as free.
    """

    def __init__(  # noqa: PLR0913, PLR0917  all that it depends on
        self,
        model: ModelSettings,
        settings: RenderSettings,
        accessories: Accessories,
        lasting: Lasting,
        owner: object,
        heap: Heap,
    ) -> None:
        self._model = model
        self._settings = settings
        self._accessories = accessories
        self._lasting = lasting
        self._owner = owner
        self._heap = heap
        self._family = FAMILIES[model.family]
        self._telling = Telling(lasting.tell)
        self._remembered = Remembered.in_folder(lasting.state, settings.placement_retry_seconds)
        self._local = model
        """The model as a folder on this machine, once it is there."""

    def opened(self) -> Opened:
        """Load the model and draw a trial picture. Raises ModelUnavailable, OutOfMemory or DeviceLost."""
        started = time.perf_counter()
        device = choose_device(self._settings.device)
        placement = self._settings.placement
        refuse_lacking_makers(self._settings.quantisers)
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
        return Opened(loaded, info, self._lost_by(loaded.warm.component), parts_of(self._model, precision))

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
                memory = replace(memory, device=memory.device + self._lasting.parking.bytes_beside(self._owner))
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
            self._lasting.let_go_of_others,
            is_the_hosts(device),
            self._lasting.parking,
            owner=self._owner,
        )
        warm = self._warm(pipeline, precision, ladder, room)
        return ArrangedModel(warm, ladder, PeakMeter(device), device, room)

    def _provided(self) -> Provided:
        """Bring the checkpoint onto this machine, and look whether it is as it should be."""
        provided = provided_model(self._model, self._lasting.state, self._telling)
        file = self._model.transformer_file
        refuse_unusable_folder(provided.folder, self._model.source, file)
        if file is not None and is_nunchakus(file):
            refuse_another_transformer(file, provided.folder, self._model.source)
        if "transformer" in quantised_in(provided.folder):
            self._refuse_quantising_again(f"the transformer of {self._model.source}")
        return provided

    def _claimed(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        """Give the components that the model before this one left, and free the others."""
        if self._lasting.handed_over is None:
            return {}
        found = self._lasting.handed_over.claim(parts_of(self._model, precision))
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

    def _lost_by(self, component_of: Callable[[str], Any]) -> tuple[str, ...]:
        """Say what of the checkpoint is in fewer bits, and where it comes from."""
        file, source = self._model.transformer, self._model.source
        gguf = formats_of(component_of("transformer"))
        lost = [f"transformer from {file} ({', '.join(gguf)})"] if gguf else []
        for component in UNPACKABLE:
            found = formats_in(component_of(component))
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

            telling = Telling(self._lasting.tell)

            def opened() -> Any:
                provided = provided_controlnet(settings, self._lasting.state, telling)
                refuse_quantised_component(provided.folder, settings.source)
                return load_controlnet(_at(settings, provided.folder), precision)

            def failure(fault: Exception) -> RenderError:
                return loading_failure(fault, settings.source)

            try:
                return translated(opened, failure, telling.is_callers_own)
            except ModelUnavailable as error:
                # The model itself is there: only the jobs with this ControlNet fail.
                raise UnexpectedFailure(f"The ControlNet {name} cannot be used: {error}", error.fix) from None

        makers = makers_at_hand(self._settings.quantisers)
        pipelines = TaskPipelines(pipeline, self._model.family, controlnet, makers)
        return WarmPipeline(
            pipelines,
            Loras(pipeline.transformer, type(pipeline), self._accessories.loras),
            PromptEncoder(pipeline, self._family),
            VaeLadder(pipeline, pipelines.placement, ladder, room),
            self._settings,
        )


Checkpoint = TypeVar("Checkpoint", ModelSettings, ControlNetSettings)


def _at(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Give the settings of the checkpoint as if they named the folder."""
    return checkpoint.model_copy(update={"source": str(folder), "revision": None})


def _notes(passed_over: dict[Precision, str]) -> tuple[str, ...]:
    return tuple(f"{precision} was passed over: {reason}" for precision, reason in passed_over.items())
