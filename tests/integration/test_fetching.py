"""Models of the hub, fetched by the hub's own client from a hub on this machine."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from structlog.testing import capture_logs

from fake_hub import COMMIT, FakeHub, serving
from qwen_image_daemon.render.provision import provided_model
from qwen_image_daemon.render.renderer import Loading, ModelUnavailable, RenderError, RenderStopped
from qwen_image_daemon.render.translation import loading_failure, translated
from qwen_image_daemon.settings import ModelSettings

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with serving(FakeHub(_checkpoint(tmp_path / "upstream"))) as hub:
        yield hub


def _checkpoint(folder: Path) -> Path:
    """Make what has a checkpoint's files, and some that nobody needs."""
    index = {"_class_name": "QwenImagePipeline", "controlnet": [None, None]}
    weights = _safetensors({"a": bytes(40_000), "b": bytes(20_000)})
    files: dict[str, bytes] = {
        "README.md": b"see the pictures",
        "vae/model.fp16.safetensors": weights,
        "vae/diffusion_pytorch_model.bin": b"a pickle",
        "unused/model.safetensors": weights,
    }
    for name in ("transformer", "text_encoder", "vae"):
        file = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        files[f"{name}/config.json"] = b"{}"
        files[f"{name}/{file}.safetensors"] = _safetensors({name: bytes(60_000)})
        index[name] = ["diffusers", "Some"]
    files["scheduler/scheduler_config.json"] = b"{}"
    files["tokenizer/tokenizer.json"] = b"{}"
    index |= {"scheduler": ["diffusers", "Some"], "tokenizer": ["transformers", "Some"]}
    files["model_index.json"] = json.dumps(index).encode()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _safetensors(tensors: dict[str, bytes]) -> bytes:
    header, end = {}, 0
    for name, content in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(content)], "data_offsets": [end, end + len(content)]}
        end += len(content)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


@dataclass
class Machine:
    """A machine with a cache of its own, which may be offline."""

    hub: FakeHub
    events: list[Any] = field(default_factory=list)
    told: list[Loading] = field(default_factory=list)
    commit: str | None = None

    def provide(self, **model: Any) -> Path:
        """Make a model ready, and give its folder."""
        self.told.clear()
        settings = ModelSettings(**{"family": "demo", "source": self.hub.name, "revision": COMMIT} | model)
        with capture_logs() as self.events:
            found = provided_model(settings, None, self.told.append)
        self.commit = found.commit
        return found.folder

    def refusal(self, **model: Any) -> RenderError:
        """Give what is told of a model that cannot be made ready."""
        with pytest.raises(RenderError) as refused:
            translated(lambda: self.provide(**model), lambda fault: loading_failure(fault, "the model"))
        return refused.value


@pytest.fixture
def machine(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Set what the client reads from its environment when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    files = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # What was read of a chunk of the usual 10 MB is lost with its connection.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    return Machine(hub)


@pytest.fixture
def disconnect(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Do what HF_HUB_OFFLINE=1 does."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_pipeline_needs_is_fetched_once_and_nothing_else(machine: Machine, hub: FakeHub) -> None:
    """No pickles, no variants, no parts that the index does not name; and its progress is told in bytes."""
    folder = machine.provide()

    needed = files_below(folder)
    size = sum((hub.folder / name).stat().st_size for name in needed - {"model_index.json"})
    unneeded = {
        "README.md",
        "vae/model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
        "unused/model.safetensors",
    }
    assert needed == set(hub.files()) - unneeded
    assert machine.commit == COMMIT
    assert {(step.stage, step.total_bytes) for step in machine.told} == {("fetch", size)}
    done = [step.done_bytes for step in machine.told]
    assert done[0] == 0
    assert max(done) == size

    hub.sent.clear()
    assert machine.provide() == folder
    assert hub.sent == []
    assert [step.total_bytes for step in machine.told] == [0]


def test_a_file_whose_connection_broke_goes_on_where_it_was(machine: Machine, hub: FakeHub) -> None:
    hub.breaks_in[WEIGHTS] = 1

    folder = machine.provide()

    size = (hub.folder / WEIGHTS).stat().st_size
    first, second = [first for name, first in hub.sent if name == WEIGHTS]
    assert (first, second) == (0, size // 2 // 4096 * 4096)
    assert (folder / WEIGHTS).read_bytes() == (hub.folder / WEIGHTS).read_bytes()
    assert max(step.done_bytes for step in machine.told) == machine.told[0].total_bytes


def test_after_a_break_only_what_is_missing_is_fetched(machine: Machine, hub: FakeHub) -> None:
    missing = machine.provide() / WEIGHTS
    missing.resolve().unlink()
    missing.unlink()
    hub.sent.clear()

    machine.provide()

    assert [name for name, _ in hub.sent] == [WEIGHTS]
    assert {step.total_bytes for step in machine.told} == {(hub.folder / WEIGHTS).stat().st_size}


def test_a_stop_ends_the_fetching_and_leaves_no_half_file(machine: Machine, hub: FakeHub, tmp_path: Path) -> None:
    def stop(loading: Loading) -> None:
        if loading.done_bytes:
            raise RenderStopped

    settings = ModelSettings(family="demo", source=hub.name, revision=COMMIT)
    with pytest.raises(RenderStopped):
        provided_model(settings, None, stop)
    assert list((tmp_path / "cache").rglob("*.incomplete")) == []

    machine.provide()


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    machine: Machine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000))

    told = machine.refusal()

    assert str(told).startswith("owner/name does not fit onto the disk: 0.00 GB are to come")
    assert "HF_HOME" in told.fix
    assert [name for name, _ in hub.sent] == ["model_index.json"]


def test_offline_what_is_here_is_used_and_nobody_is_asked(
    machine: Machine, hub: FakeHub, disconnect: Callable[[], None]
) -> None:
    folder = machine.provide(revision=None)
    hub.sent.clear()
    disconnect()

    assert machine.provide(revision=None) == folder
    assert machine.commit == COMMIT
    assert hub.sent == []


def test_offline_what_is_missing_is_named_with_the_switch_that_forbids_to_ask(
    machine: Machine, disconnect: Callable[[], None]
) -> None:
    (machine.provide() / WEIGHTS).unlink()
    disconnect()

    part, nothing = machine.refusal(), machine.refusal(source="owner/other")

    assert str(part).startswith("Only a part of the checkpoint is on this machine")
    assert WEIGHTS in str(part)
    assert "HF_HUB_OFFLINE" in part.fix
    assert str(nothing).startswith("The checkpoint is not on this machine")
    assert "HF_HUB_OFFLINE" in nothing.fix


def test_a_hub_that_is_away_does_not_keep_from_what_is_here(machine: Machine, hub: FakeHub) -> None:
    folder = machine.provide()
    hub.refuses_with = "ServerIsDown"

    assert machine.provide() == folder


def test_what_the_hub_refuses_is_told_with_its_cure(machine: Machine, hub: FakeHub) -> None:
    hub.gated = "owner/gated"

    told = {
        "The hub has no such model": machine.refusal(source="owner/absent"),
        "The hub gives this model only to those": machine.refusal(source="owner/gated"),
        "The hub has no such revision": machine.refusal(revision="v9"),
        "The source is no name of a model on the hub": machine.refusal(source="owner/na me"),
    }

    for beginning, error in told.items():
        assert str(error).startswith(beginning)
        assert type(error) is ModelUnavailable


def test_a_file_that_the_hub_lacks_is_named(machine: Machine, hub: FakeHub) -> None:
    (hub.folder / WEIGHTS).unlink()

    told = str(machine.refusal())
    assert told.startswith("owner/name is not whole. ")
    assert "transformer could not be loaded: no safetensors file is in it" in told


def test_a_revision_that_may_move_is_warned_of_with_the_line_that_pins_it(machine: Machine) -> None:
    machine.provide(revision="main")
    [warning] = [event for event in machine.events if event["event"] == "model.unpinned"]
    assert warning["log_level"] == "warning"
    assert f'revision = "{COMMIT}"' in warning["fix"]

    machine.provide()
    assert "model.unpinned" not in {event["event"] for event in machine.events}


def test_a_list_of_hashes_holds_for_what_the_hub_sent_too(machine: Machine, hub: FakeHub, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in hub.files().items()}
    needed = files_below(machine.provide())
    listed.write_text("".join(f"{hashes[name]}  {name}\n" for name in needed), encoding="utf-8")

    folder = machine.provide(checksums=listed)
    assert {step.stage for step in machine.told} == {"fetch", "verify"}

    (folder / WEIGHTS).resolve().write_bytes((folder / WEIGHTS).read_bytes()[:-1] + b"x")
    told = machine.refusal(checksums=listed)
    assert f"{folder / WEIGHTS} was altered or is broken" in str(told)
