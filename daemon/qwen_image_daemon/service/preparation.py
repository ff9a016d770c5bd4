"""What must be true before the daemon begins, with a sentence for each thing that is not."""

from itertools import permutations
from pathlib import Path

from qwen_image_daemon.settings import Folders, ModelSettings, Settings


class Unready(Exception):
    """The daemon cannot begin. `str()` says why, and what to do."""


def check_ready(settings: Settings, *, dry_run: bool) -> None:
    """Raise Unready where folders or models are set in a way that cannot work."""
    _check_apart(settings.folders)
    if not dry_run:
        _check_source(settings.default_model, settings.models[settings.default_model])


def _check_apart(folders: Folders) -> None:
    places = {
        "inbox": folders.inbox.resolve(),
        "spool": folders.spool.resolve(),
        "outbox": folders.outbox.resolve(),
        "program": Path(__file__).resolve().parent.parent,
    }
    for (inner, inside), (outer, outside) in permutations(places.items(), 2):
        if inside.is_relative_to(outside):
            raise Unready(
                f"The {inner} folder {inside} lies in the {outer} folder {outside}. Give each a place of its own."
            )


def _check_source(name: str, model: ModelSettings) -> None:
    """Find a misspelt folder at once, instead of when the first job needs it."""
    if model.folder is not None and not (model.folder / "model_index.json").is_file():
        raise Unready(
            f"Model {name}: {model.folder} holds no model_index.json, so it is no diffusers checkpoint folder. "
            f"Correct source in [models.{name}], or name another model with --model."
        )
