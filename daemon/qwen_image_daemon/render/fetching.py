"""From a name on the hub to a folder on this machine: what a pipeline needs of it, and nothing else. No torch.

The hub's own client does it, and its cache keeps it: files that came whole are never fetched again, and a file
whose connection broke goes on where it was, as long as this process does.
"""

import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from huggingface_hub import HfApi, constants, hf_hub_download, is_offline_mode, snapshot_download
from huggingface_hub.errors import DryRunError, IncompleteSnapshotError
from huggingface_hub.utils.tqdm import tqdm as hub_bar

from qwen_image_daemon.render.renderer import Loading, ModelUnavailable
from qwen_image_daemon.render.telling import Count
from qwen_image_daemon.render.wholeness import INDEX, named_in

log = structlog.get_logger()

_FILES: Final = (
    "*.json",
    "*.txt",
    "*.jinja",
    # Only where trust_remote_code lets it run.
    "*.py",
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model-?????-of-?????.safetensors",
)
"""What a component is made of. No pickles, no variants in other precisions, no pictures of the model's page."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model of the hub that is on this machine."""

    folder: Path
    commit: str


def fetched_pipeline(
    source: str, revision: str | None, tell: Callable[[Loading], None], without_weights: Collection[str] = ()
) -> Fetched:
    """Bring the components that the model's index names onto this machine, as far as they are not there.

    Of the components `without_weights` only what describes them.
    Raises what huggingface_hub raises, ModelUnavailable where the disk has no room, and what `tell` raises.
    """
    commit = HfApi().resolve_revision(source, revision=revision)
    components = named_in(Path(hf_hub_download(source, INDEX, revision=commit)))
    wanted = [
        f"{name}/{file}"
        for name in components
        for file in _FILES
        if name not in without_weights or not file.endswith(".safetensors")
    ]
    return _fetched(source, commit, [INDEX, *wanted], tell)


def fetched_component(source: str, revision: str | None, tell: Callable[[Loading], None]) -> Fetched:
    """Bring a repository that is one component onto this machine: a ControlNet. Raises likewise."""
    return _fetched(source, HfApi().resolve_revision(source, revision=revision), list(_FILES), tell)


def _fetched(source: str, commit: Any, patterns: list[str], tell: Callable[[Loading], None]) -> Fetched:
    if is_offline_mode():
        return Fetched(_folder_at_hand(source, commit, patterns), commit.resolved)
    try:
        listing = snapshot_download(source, revision=commit, allow_patterns=patterns, dry_run=True)
    except DryRunError:
        # The hub does not answer; all of it may be here.
        return Fetched(_folder_at_hand(source, commit, patterns), commit.resolved)
    missing = [file for file in listing if file.will_download]
    size = sum(file.file_size or 0 for file in missing)
    if missing:
        _refuse_full_disk(source, size)
        log.info("model.fetching", source=source, commit=commit.resolved, files=len(missing), bytes=size)
    count = Count(Loading("fetch", 0, size), tell)
    folder = snapshot_download(source, revision=commit, allow_patterns=patterns, tqdm_class=_bar_for(count))
    # Files with one content came only once.
    count.reach(size)
    return Fetched(Path(folder), commit.resolved)


def _folder_at_hand(source: str, commit: Any, patterns: list[str]) -> Path:
    """Give the folder without asking the hub. Raises LocalEntryNotFoundError, with the files that are missing."""
    try:
        return Path(snapshot_download(source, revision=commit, allow_patterns=patterns, local_files_only=True))
    except IncompleteSnapshotError as error:
        # It names the files; that nobody was asked for them is not the news.
        raise error from None


def _refuse_full_disk(source: str, size: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    there = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise ModelUnavailable(
            f"{source} does not fit onto the disk: {size / 1e9:.2f} GB are to come, {free / 1e9:.2f} GB are free "
            f"at {there}.",
            "Make room there, or set HF_HOME to a place on a larger disk.",
        )


def _bar_for(count: Count) -> type[Any]:
    """Give what the hub's client takes for a progress bar's class. It shows nothing, and counts.

    The client makes one bar for what comes over the network, one for what is written, and one for files. Over
    plain HTTP the first two say the same; content that was here already only passes through the second.
    """
    # Each file is fetched by a thread of its own, and all of them share the bars.
    lock = threading.Lock()

    class CountingBar(hub_bar):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more | {"disable": True})  # type: ignore[no-untyped-call]  # it has no types
            self._counts_bytes = more.get("unit") == "B"
            self._sum = 0

        def update(self, n: float | None = 1) -> None:
            if not self._counts_bytes:
                return
            with lock:
                self._sum += int(n or 0)
                done = self._sum
            count.reach(done)

    return CountingBar
