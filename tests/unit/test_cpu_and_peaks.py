"""What is measured on this host: its pace, the peak of its memory, and which of its memory is that of files."""

import mmap
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.cpu_rate import measured_rate
from qwen_image_daemon.render.mapped_files import are_mapped
from qwen_image_daemon.render.peaks import PeakMeter
from qwen_image_daemon.render.renderer import Control, RenderRequest
from qwen_image_daemon.settings import ControlNetSettings

MIB = 2**20


def test_the_pace_of_a_host_is_that_of_a_computer() -> None:
    assert 1e8 < measured_rate(torch.float32) < 1e15


def test_the_peak_is_that_of_what_was_done_since_the_beginning() -> None:
    meter = PeakMeter(torch.device("cpu"))
    meter.begin()
    before = meter.peak_bytes()
    if before is None:
        pytest.skip("this system does not tell the peak of a process")
    large = torch.ones(200 * MIB, dtype=torch.uint8)
    during = meter.peak_bytes()
    del large
    meter.begin()
    after = meter.peak_bytes()

    assert during is not None
    assert after is not None
    assert during - before > 100 * MIB
    assert during - after > 100 * MIB
    # The report covers both. The kernel counts pages on each core, and sums up now and then.
    assert meter.reported(after) == pytest.approx(during, abs=8 * MIB)


def test_memory_of_files_is_told_from_memory_of_the_process(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(mmap.PAGESIZE * 4))
    mapped = torch.from_file(str(file), shared=False, size=mmap.PAGESIZE * 4, dtype=torch.uint8)
    made = torch.zeros(mmap.PAGESIZE * 4, dtype=torch.uint8)

    assert are_mapped([(mapped.data_ptr(), mapped.nbytes)])
    assert not are_mapped([(made.data_ptr(), made.nbytes)])
    assert not are_mapped([(mapped.data_ptr(), mapped.nbytes), (made.data_ptr(), made.nbytes)])


def test_what_draws_along_is_counted_from_its_files(tmp_path: Path) -> None:
    loras, controlnet = tmp_path / "loras", tmp_path / "edges"
    for folder in (loras, controlnet):
        folder.mkdir()
    save_file({"a": torch.zeros(30, 10)}, loras / "strong.safetensors")
    save_file({"b": torch.zeros(7)}, controlnet / "weights.safetensors")
    settings = {"edges": ControlNetSettings(source=str(controlnet)), "gone": ControlNetSettings(source="/nowhere")}
    accessories = Accessories(LoraFolder(loras, {}), settings)

    picture = Image.new("RGB", (16, 16))
    strong = (LoraUse(name="strong", weight=1.0),)
    lost = (LoraUse(name="lost", weight=1.0),)

    def counted(control: Control | None, uses: tuple[LoraUse, ...]) -> int:
        request = RenderRequest("controlnet", "a boat", None, 1.0, 4, 16, 16, 7, control=control, loras=uses)
        return accessories.parameters_beside(request)

    assert counted(None, ()) == 0
    assert counted(None, strong) == 300
    assert counted(Control(picture, "edges"), strong) == 307
    # They are refused with their reasons when they are loaded.
    assert counted(Control(picture, "gone"), lost) == 0
