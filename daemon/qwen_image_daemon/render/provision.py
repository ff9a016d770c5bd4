"""From the settings to a folder that can be loaded: all of it here, whole, and as it is listed. No torch."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from qwen_image_daemon.render.checksums import KnownHashes, verified
from qwen_image_daemon.render.fetching import Fetched, fetched_component, fetched_pipeline
from qwen_image_daemon.render.renderer import Loading
from qwen_image_daemon.render.weight_files import shards_of
from qwen_image_daemon.render.wholeness import (
    refuse_absent,
    refuse_broken,
    refuse_broken_component,
    weight_files,
)
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings

log = structlog.get_logger()

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Provided:
    """A checkpoint on this machine."""

    folder: Path
    commit: str | None
    """The hub's commit; None for folders."""
    weights: Mapping[str, tuple[Path, ...]]
    """The files with weights, by component, wherever they are."""
    verified: str | None
    """What was held against listed hashes; None where no list was there."""


def provided_model(model: ModelSettings, state: Path | None, tell: Callable[[Loading], None]) -> Provided:
    """Make a model's checkpoint ready to be loaded. `state` is where hashes are remembered.

    Raises ModelUnavailable, what huggingface_hub raises, and what `tell` raises.
    """
    elsewhere = {} if model.transformer_file is None else {"transformer": (model.transformer_file,)}
    found = _here(model, partial(fetched_pipeline, without_weights=frozenset(elsewhere)), tell)
    refuse_broken(found.folder, model.source, frozenset(elsewhere))
    weights = weight_files(found.folder, frozenset(elsewhere))
    told = _verified(model, found, weights, state, tell)
    return Provided(found.folder, found.commit, weights | elsewhere, told)


def provided_controlnet(
    controlnet: ControlNetSettings, state: Path | None, tell: Callable[[Loading], None]
) -> Provided:
    """Make a ControlNet ready to be loaded. Raises likewise."""
    found = _here(controlnet, fetched_component, tell)
    refuse_broken_component(found.folder, controlnet.source)
    weights = {"controlnet": shards_of(found.folder).files}
    return Provided(found.folder, found.commit, weights, _verified(controlnet, found, weights, state, tell))


@dataclass(frozen=True, slots=True)
class _Here:
    folder: Path
    commit: str | None


def _here(
    checkpoint: ModelSettings | ControlNetSettings,
    fetched: Callable[[str, str | None, Callable[[Loading], None]], Fetched],
    tell: Callable[[Loading], None],
) -> _Here:
    refuse_absent(checkpoint.folder, checkpoint.source)
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
    weights: Mapping[str, tuple[Path, ...]],
    state: Path | None,
    tell: Callable[[Loading], None],
) -> str | None:
    files = [file for files in weights.values() for file in files]
    return verified(found.folder, checkpoint.checksums, files, KnownHashes(state), tell)
