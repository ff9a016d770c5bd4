"""The three loops by name, with everything that each needs, for a process or a thread of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, assert_never

from qwen_image_daemon.inbox.intake import Intake
from qwen_image_daemon.inbox.loop import take_in
from qwen_image_daemon.loop_control import LoopControl
from qwen_image_daemon.outbox.loop import Outlet, give_out
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.handed_over import HandedOver, Lasting
from qwen_image_daemon.render.loop import render_jobs
from qwen_image_daemon.render.opening import open_renderer
from qwen_image_daemon.render.parking import Parking
from qwen_image_daemon.render.renderer import Loading, Renderer
from qwen_image_daemon.render.warm_models import OpenModel
from qwen_image_daemon.settings import Settings
from qwen_image_daemon.spool.spool import Spool

LoopName = Literal["take-in", "render", "give-out"]


@dataclass(frozen=True, slots=True)
class Options:
    """How this run differs from the settings."""

    once: bool = False
    """Drain what is there, then end."""
    inline: bool = False
    """Loops are threads of one process."""
    dry_run: bool = False
    """Draw flat colours instead of loading a model."""
    started_before: bool = False
    """The loop ran before, since the daemon was started: what is to be done at the daemon's start was done."""


def run_loop(name: LoopName, settings: Settings, options: Options, control: LoopControl) -> None:
    """Run one loop to its end. Raises GaveUp, or whatever means that its process must be replaced."""
    folders = settings.folders
    spool = Spool(folders.spool)
    match name:
        case "take-in":
            take_in(Intake(folders.inbox, spool, settings.catalogue, settings.inbox, settings.spool), control)
        case "render":
            render = settings.render
            if options.started_before:
                # It idled, and the card is to be free; or it died, maybe of the very warm-up.
                render = render.model_copy(update={"warm_up": ()})
            render_jobs(spool, render, settings.outbox, _opener(settings, options, spool.state), control)
        case "give-out":
            give_out(Outlet(spool, folders.outbox, settings.outbox, settings.spool), control)
        case _:
            assert_never(name)


def _opener(settings: Settings, options: Options, state: Path) -> OpenModel:
    accessories, lasting = Accessories.of(settings), Lasting(state, HandedOver(), parking=Parking())

    def open_model(name: str, tell: Callable[[Loading], None], let_go_of_others: Callable[[], bool]) -> Renderer:
        given = replace(lasting, tell=tell, let_go_of_others=let_go_of_others)
        return open_renderer(settings.models[name], settings.render, accessories, given, dry_run=options.dry_run)

    return open_model
