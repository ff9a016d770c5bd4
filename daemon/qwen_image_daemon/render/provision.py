"""From the settings to a folder that can be loaded: all of it here, whole, and as it is listed. No torch."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from qwen_image_daemon.render.checksums import KnownHashes, verified
from qwen_image_daemon.render.fetching import Fetched, fetched_component, fetched_pipeline
from qwen_image_daemon.render.renderer import Loading
from qwen_image_daemon.render.weight_files import shards_of
from qwen_image_daemon.render.wholeness import refuse_broken, refuse_broken_component, weight_files
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings

log = structlog.get_logger()

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Provided:
    """A checkpoint on this machine."""

    folder: Path
    commit: str | None
    """The hub's commit; None for folders."""
    verified: str | None
    """What was held against listed hashes; None where no list was there."""


def provided_model(model: ModelSettings, state: Path | None, tell: Callable[[Loading], None]) -> Provided:
    """Make a model's checkpoint ready to be loaded. `state` is where hashes are remembered.

    Raises ModelUnavailable, what huggingface_hub raises, and what `tell` raises.
    """
    found = _here(model, fetched_pipeline, tell)
    refuse_broken(found.folder, model.source)
    weights = [file for files in weight_files(found.folder).values() for file in files]
    return _verified(model, found, weights, state, tell)


def provided_controlnet(
    controlnet: ControlNetSettings, state: Path | None, tell: Callable[[Loading], None]
) -> Provided:
    """Make a ControlNet ready to be loaded. Raises likewise."""
    found = _here(controlnet, fetched_component, tell)
    refuse_broken_component(found.folder, controlnet.source)
    return _verified(controlnet, found, list(shards_of(found.folder).files), state, tell)


@dataclass(frozen=True, slots=True)
class _Here:
    folder: Path
    commit: str | None


def _here(
    checkpoint: ModelSettings | ControlNetSettings,
    fetched: Callable[[str, str | None, Callable[[Loading], None]], Fetched],
    tell: Callable[[Loading], None],
) -> _Here:
    if checkpoint.folder is not None:
        return _Here(checkpoint.folder, None)
    found = fetched(checkpoint.source, checkpoint.revision, tell)
    if not _COMMIT.fullmatch(checkpoint.revision or ""):
        log.warning(
            "model.unpinned",
            source=checkpoint.source,
            revision=checkpoint.revision or "main",
            commit=found.commit,
            fix=f'the next start may load another one; to stay with this one, set revision = "{found.commit}"',
        )
    return _Here(found.folder, found.commit)


def _verified(
    checkpoint: ModelSettings | ControlNetSettings,
    found: _Here,
    weights: list[Path],
    state: Path | None,
    tell: Callable[[Loading], None],
) -> Provided:
    told = verified(found.folder, checkpoint.checksums, weights, KnownHashes(state), tell)
    return Provided(found.folder, found.commit, told)
