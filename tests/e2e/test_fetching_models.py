"""A model of the hub, from a real daemon: fetched, told of, drawn with, and used again without the hub."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Box, eventually
from fake_hub import COMMIT, FakeHub, serving
from sharding import split_into_shards

JOB = 'prompt = "a lighthouse"\nwidth = 64\nheight = 64\nnum_inference_steps = 2\n'


@pytest.fixture
def hub(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[FakeHub]:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "upstream"))
    split_into_shards(folder / "transformer" / "diffusion_pytorch_model.safetensors", 3)
    with serving(FakeHub(folder)) as hub:
        yield hub


@pytest.fixture
def box(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    model = {"family": "demo", "source": hub.name}
    return Box(
        tmp_path / "box",
        MODELS=json.dumps({"tiny": model}),
        DEFAULT_MODEL="tiny",
        RENDER__PRECISIONS='["float32"]',
    )


def loading(box: Box) -> dict[str, Any] | None:
    """Give how far a download is while it is under way. The hub's client counts in pieces of 10 MB."""
    now = box.status().get("loading")
    return now if now and now["stage"] == "fetch" and now["done_bytes"] < now["total_bytes"] else None


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_told_of_and_used_again_offline(
    box: Box, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gate.clear()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        box.drop("first.toml", JOB)
        with box.running() as daemon:
            eventually(lambda: loading(box), "a download that is under way")
            assert "fetching tiny from the hub" in box.call("status").stdout
            heard = ""
            while "EXTEND_TIMEOUT_USEC=" not in heard or "STATUS=fetching tiny from the hub" not in heard:
                heard += systemd.recv(4096).decode() + "\n"
            hub.gate.set()
            first = box.result("first")
            assert daemon.stop() == 0
    assert first.model is not None
    assert (first.model.source, first.model.commit) == (hub.name, COMMIT)

    hub.refuses_with = "GatedRepo"
    hub.sent.clear()
    monkeypatch.delenv("NOTIFY_SOCKET")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    box.drop("second.toml", JOB)
    assert box.call("run", "--once").returncode == 0
    second = box.result("second")
    assert second.status == "succeeded"
    assert hub.sent == []


@pytest.mark.slow
def test_offline_a_model_that_is_not_here_is_told_and_its_jobs_wait(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    box.drop("job.toml", JOB)

    with box.running() as daemon:
        status = box.wait_for_state("troubled")
        told = " ".join(status["trouble"])
        assert "The checkpoint is not on this machine, and the hub was not or could not be asked" in told
        assert "HF_HUB_OFFLINE" in told
        assert daemon.stop() == 0
    assert box.status()["counts"]["queued"] == 1
