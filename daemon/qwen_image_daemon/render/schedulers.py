"""Schedulers by name, each made anew from the checkpoint's own for one picture. Nothing is left to restore."""

import inspect
from math import log
from typing import Any, assert_never

from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler, UniPCMultistepScheduler

from qwen_image_daemon.jobs.models import SchedulerName, SchedulerUse
from qwen_image_daemon.render.models import Pipeline
from qwen_image_daemon.render.renderer import RequestRefused

_SHIFTS = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
"""What the pipelines read from a scheduler's configuration, to shift the noise levels by the picture's size; where
it is missing, they take other numbers than the checkpoint's without a word."""
_LIGHTNING_SHIFT = log(3)
"""https://github.com/ModelTC/Qwen-Image-Lightning: the levels that its LoRAs were distilled on."""


def refuse_scheduler(use: SchedulerUse | None, pipeline: Pipeline) -> None:
    """Raise RequestRefused where the pipeline cannot draw with the scheduler, or not as it is asked for."""
    if use is None:
        return
    if use.name == "unipc" and pipeline.scales_noise:
        _refuse("unipc cannot mix noise into a picture, which this task needs.", pipeline)
    if use.name == "unipc" and use.sigmas is not None:
        # It would run such levels from low noise to high: UniPCMultistepScheduler.set_timesteps turns them round.
        raise RequestRefused(
            f"unipc cannot space its noise levels in the manner {use.sigmas}.", "Leave sigmas out, or use euler."
        )
    if use.name == "lightning" and pipeline.name == "QwenImageLayeredPipeline":
        _refuse("lightning sets levels that this task's pipeline replaces by its own.", pipeline)
    if use.name != "unipc" and use.solver_order is not None:
        raise RequestRefused(f"{use.name} has no solver_order.", "Leave it out, or use unipc.")
    if use.name == "lightning" and use.model_fields_set - {"name"}:
        raise RequestRefused("lightning is a fixed schedule.", "Use euler with settings of your own.")


def _refuse(what: str, pipeline: Pipeline) -> None:
    fitting: list[SchedulerName] = ["euler", "lcm"]
    if pipeline.name != "QwenImageLayeredPipeline":
        fitting.insert(1, "lightning")
    raise RequestRefused(what, f"Use {', '.join(fitting)}, or leave it out.")


def scheduler_for(base: Any, use: SchedulerUse | None) -> Any:
    """Give a scheduler of one's own for one picture: like `base`, but for what is asked."""
    if use is None:
        return type(base).from_config(base.config)
    match use.name:
        case "euler":
            return _made(FlowMatchEulerDiscreteScheduler, base, _settings(use, "shift"))
        case "lightning":
            fixed = {"base_shift": _LIGHTNING_SHIFT, "max_shift": _LIGHTNING_SHIFT, "shift_terminal": None}
            return _made(FlowMatchEulerDiscreteScheduler, base, {**fixed, "use_dynamic_shifting": True})
        case "lcm":
            return _made(FlowMatchLCMScheduler, base, _settings(use, "shift"))
        case "unipc":
            order = {} if use.solver_order is None else {"solver_order": use.solver_order}
            flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
            return _made(UniPCMultistepScheduler, base, {**flow, **_settings(use, "flow_shift"), **order})
        case _:
            assert_never(use.name)


def _settings(use: SchedulerUse, shift_name: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if use.shift is not None:
        settings |= {shift_name: use.shift, "use_dynamic_shifting": False}
    if use.shift_terminal is not None:
        settings["shift_terminal"] = use.shift_terminal
    if use.sigmas is not None:
        settings |= {f"use_{kind}_sigmas": kind == use.sigmas for kind in ("karras", "exponential")}
    return settings


def _made(kind: Any, base: Any, settings: dict[str, Any]) -> Any:
    """Make a scheduler of a kind with what it knows of the base's configuration, and with the settings."""
    known = inspect.signature(kind.__init__).parameters
    config = {**{name: value for name, value in base.config.items() if name in known}, **settings}
    scheduler = kind(**config)
    kept = {name: base.config[name] for name in _SHIFTS if name not in config and name in base.config}
    # from_config would keep them too, and complain about them in the log each time.
    scheduler.register_to_config(**kept)
    return scheduler
