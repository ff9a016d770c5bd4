"""All pipelines of one model. They share every component; none of them is loaded twice."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from qwen_image_daemon.jobs.families import FAMILIES, FamilyName
from qwen_image_daemon.render.models import MODELS, Way
from qwen_image_daemon.render.placement import WeightPlacement
from qwen_image_daemon.render.quantisers import Makers


class TaskPipelines:
    """Gives the pipeline of each way to draw, made from the components of the one that was loaded.

    Not by from_pipe: that casts the shared modules to float32 in place. `controlnet` gives a loaded ControlNet by
    its name in the settings; the last one is kept. `makers` make the bits of weights that are kept in fewer.
    """

    def __init__(self, loaded: Any, family: FamilyName, controlnet: Callable[[str], Any], makers: Makers) -> None:
        self.loaded = loaded
        self.placement = WeightPlacement(loaded.transformer, loaded.text_encoder, loaded.vae, makers)
        self.scheduler: Any = loaded.scheduler
        """The checkpoint's own. Pictures are drawn with copies."""
        self.family = FAMILIES[family]
        self._facts = MODELS[family]
        self._controlnet = controlnet
        self._kept_controlnet: tuple[str, Any] | None = None

    def pipeline(self, way: Way, controlnet: str | None, scheduler: Any) -> Any:
        """Give the pipeline for one picture, with a scheduler of its own. Costs less than a millisecond."""
        made: Any = getattr(diffusers, self._facts.pipelines[way].name)
        parts = {**self.loaded.components, "scheduler": scheduler}
        if controlnet is not None:
            parts["controlnet"] = self._loaded_controlnet(controlnet)
        if made is type(self.loaded):
            # 2.1 has a setting that is no component.
            parts |= {name: self.loaded.config[name] for name in ("sample_sigmas",) if name in self.loaded.config}
        pipeline = made(**parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def forget_controlnet(self) -> None:
        """Drop the ControlNet that was drawn with last. It is loaded again when it is needed."""
        if self._kept_controlnet is not None:
            self._kept_controlnet = None
            self.placement.let_go("controlnet")

    @property
    def device(self) -> torch.device:
        """Where the pipelines compute."""
        device: torch.device = self.loaded._execution_device  # noqa: SLF001  see pyproject
        return device

    @property
    def fixed_steps(self) -> int | None:
        """The number of steps that the checkpoint prescribes, if any."""
        sigmas = self.loaded.config.get("sample_sigmas")
        return None if sigmas is None else len(sigmas)

    def _loaded_controlnet(self, name: str) -> Any:
        if self._kept_controlnet is None or self._kept_controlnet[0] != name:
            # Before the next one comes: both may be too much.
            self._kept_controlnet = None
            self.placement.let_go("controlnet")
            # What is made in inference mode could not be arranged otherwise afterwards.
            with torch.inference_mode(mode=False):
                self._kept_controlnet = (name, self.placement.take_in("controlnet", self._controlnet(name)))
        return self._kept_controlnet[1]
