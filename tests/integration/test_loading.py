"""What a broken, foreign or unfit checkpoint is told apart by, and how precisions are passed over."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.devices import choose_device, lacking
from qwen_image_daemon.render.handed_over import Lasting
from qwen_image_daemon.render.opening import open_renderer
from qwen_image_daemon.render.renderer import Loading, ModelInfo, ModelUnavailable, RenderStopped
from qwen_image_daemon.settings import ModelSettings, Precision, RenderSettings

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
PRELUDE = """
import sys
from qwen_image_daemon.render.accessories import Accessories
from qwen_image_daemon.render.opening import open_renderer
from qwen_image_daemon.settings import ModelSettings, RenderSettings
"""
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Give a copy of the tiny checkpoint that may be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def loaded(source: Path | str, *precisions: Precision) -> ModelInfo:
    """Load, leave, and give what the renderer said about itself."""
    settings = RenderSettings(device="cpu", precisions=precisions or ("float32",))
    model = ModelSettings(family="demo", source=str(source))
    with open_renderer(model, settings, Accessories(), dry_run=False) as renderer:
        return renderer.info


def refusal(source: Path | str, *precisions: Precision) -> str:
    with pytest.raises(ModelUnavailable) as refused:
        loaded(source, *precisions)
    assert refused.value.fix
    return str(refused.value)


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def edit_weights(file: Path, key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    weights = load_file(file)
    weights[key] = change(weights[key]).contiguous()
    save_file(weights, file, metadata={"format": "pt"})


def test_a_whole_checkpoint_loads_and_says_what_it_is(tiny_checkpoint: Path) -> None:
    info = loaded(tiny_checkpoint)

    assert (info.pipeline, info.device, info.precision) == ("QwenImagePipeline", "cpu", "float32")
    assert info.notes == ()
    assert set(info.versions) == {"qwen-image-daemon", "torch", "diffusers", "transformers", "pillow"}
    assert info.load_seconds > 0


def told_of(tell: Callable[[Loading], None], source: Path) -> None:
    """Load, and let the function hear how far it is."""
    settings = RenderSettings(device="cpu", precisions=("float32",))
    model = ModelSettings(family="demo", source=str(source))
    with open_renderer(model, settings, Accessories(), Lasting(tell=tell), dry_run=False):
        pass


def test_loading_tells_the_bytes_in_memory_out_of_all_and_then_that_it_arranges(tiny_checkpoint: Path) -> None:
    told: list[Loading] = []

    told_of(told.append, tiny_checkpoint)

    size = sum(file.stat().st_size for file in tiny_checkpoint.rglob("*.safetensors"))
    read = [loading for loading in told if loading.stage == "read"]
    assert read[0] == Loading("read", 0, size)
    assert {loading.total_bytes for loading in read} == {size}
    assert read[-1].done_bytes == size
    assert {loading.stage for loading in told[len(read) :]} == {"arrange"}


@pytest.mark.parametrize("stage", ["read", "arrange"])
def test_a_stop_is_obeyed_in_every_stage(tiny_checkpoint: Path, stage: str) -> None:
    def stop(loading: Loading) -> None:
        if loading.stage == stage and loading.done_bytes == loading.total_bytes:
            raise RenderStopped

    with pytest.raises(RenderStopped):
        told_of(stop, tiny_checkpoint)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing") == f"There is no checkpoint folder {tmp_path / 'nothing'}."


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    complaint = refusal(tmp_path)

    assert str(tmp_path) in complaint
    assert "model_index.json" in complaint


def test_an_index_that_is_no_json_is_told(checkpoint: Path) -> None:
    (checkpoint / "model_index.json").write_text("{", encoding="utf-8")

    assert "not a valid JSON file" in refusal(checkpoint)


def test_another_kind_of_checkpoint_is_refused_with_what_it_is_and_what_works(checkpoint: Path) -> None:
    edit_json(checkpoint / "model_index.json", lambda index: index.update(_class_name="StableDiffusionPipeline"))

    with pytest.raises(ModelUnavailable, match="checkpoint for StableDiffusionPipeline") as refused:
        loaded(checkpoint)
    assert "QwenImagePipeline" in refused.value.fix


@pytest.mark.parametrize("file", [TRANSFORMER, VAE, "text_encoder/model.safetensors"])
def test_a_file_that_is_cut_short_makes_the_checkpoint_unavailable(checkpoint: Path, file: str) -> None:
    content = (checkpoint / file).read_bytes()
    (checkpoint / file).write_bytes(content[: len(content) // 2])

    assert str(checkpoint) in refusal(checkpoint)


@pytest.mark.parametrize("file", [TRANSFORMER, VAE, "text_encoder/model.safetensors"])
def test_a_file_that_is_missing_makes_the_checkpoint_unavailable(checkpoint: Path, file: str) -> None:
    (checkpoint / file).unlink()

    assert str(checkpoint) in refusal(checkpoint)


def test_pickled_weights_are_never_read(checkpoint: Path) -> None:
    """A pickle runs code when it is read."""
    weights = load_file(checkpoint / TRANSFORMER)
    (checkpoint / TRANSFORMER).unlink()
    torch.save(weights, checkpoint / "transformer" / "diffusion_pytorch_model.bin")

    assert "safetensors" in refusal(checkpoint)


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_a_config_with_more_layers_than_the_file_holds_is_told_with_the_first_one(
    checkpoint: Path, component: str
) -> None:
    """Loading fills them with noise or leaves them empty, without an error."""

    def one_more(config: dict[str, Any]) -> None:
        if component == "transformer":
            config["num_layers"] = 3
        else:
            config["text_config"] |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}

    edit_json(checkpoint / component / "config.json", one_more)

    complaint = refusal(checkpoint)
    assert f"of its {component}" in complaint
    assert ".2." in complaint


def test_a_lost_vocabulary_is_told(checkpoint: Path) -> None:
    """Without a tokenizer's files transformers makes one up that knows next to nothing."""
    for file in (checkpoint / "tokenizer").iterdir():
        file.unlink()

    assert "token" in refusal(checkpoint)


def test_ruined_weights_are_found_by_the_trial_picture(checkpoint: Path) -> None:
    edit_weights(checkpoint / TRANSFORMER, "proj_out.weight", lambda weight: weight * torch.nan)

    assert "NaN" in refusal(checkpoint)


def test_a_checkpoint_that_draws_flat_colour_is_found_by_the_trial_picture(checkpoint: Path) -> None:
    edit_weights(checkpoint / VAE, "decoder.conv_out.weight", torch.zeros_like)

    assert "one flat colour" in refusal(checkpoint)


def overflow_in_float16(checkpoint: Path) -> None:
    """Scale a weight beyond float16's 65504; the norm behind it takes the factor out again in float32."""
    edit_weights(checkpoint / VAE, "decoder.conv_in.weight", lambda weight: weight * 1e7)


def test_a_precision_that_draws_nothing_is_passed_over_and_the_record_says_so(checkpoint: Path) -> None:
    overflow_in_float16(checkpoint)

    info = loaded(checkpoint, "float16", "float32")

    assert info.precision == "float32"
    (note,) = info.notes
    assert note.startswith("float16 was passed over: ")
    assert "NaN" in note


def test_where_no_precision_works_all_reasons_are_given(checkpoint: Path) -> None:
    overflow_in_float16(checkpoint)
    edit_weights(checkpoint / VAE, "decoder.conv_out.weight", torch.zeros_like)

    complaint = refusal(checkpoint, "float16", "float32")

    assert complaint.startswith(f"{checkpoint} cannot be used in float16 or float32: ")
    assert re.search(r"float16 was passed over: .*NaN.* float32 was passed over: .*one flat colour", complaint)


def test_a_reason_that_all_precisions_share_is_given_once(checkpoint: Path) -> None:
    (checkpoint / VAE).unlink()

    assert refusal(checkpoint, "float16", "float32").count("could not be loaded") == 1


def test_bfloat16_is_used_exactly_where_the_hardware_has_it(tiny_checkpoint: Path) -> None:
    reason = lacking(torch.device("cpu"), "bfloat16")

    info = loaded(tiny_checkpoint, "bfloat16", "float32")

    if reason is None:
        assert (info.precision, info.notes) == ("bfloat16", ())
    else:
        assert (info.precision, info.notes) == ("float32", (f"bfloat16 was passed over: {reason}",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there_is_told(tiny_checkpoint: Path) -> None:
    model = ModelSettings(family="demo", source=str(tiny_checkpoint))

    with (
        pytest.raises(ModelUnavailable, match="No CUDA device"),
        open_renderer(model, RenderSettings(device="cuda:1"), Accessories(), dry_run=False),
    ):
        pass


def test_the_automatic_device_is_one_that_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"

    assert choose_device("auto").type == expected


def answer_of(program: str) -> str:
    """Run the program in a fresh interpreter and give what it prints."""
    run = subprocess.run([sys.executable, "-c", PRELUDE + program], check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_opening_a_dry_run_imports_no_model_library() -> None:
    program = """
with open_renderer(ModelSettings(source="anything"), RenderSettings(), Accessories(), dry_run=True) as renderer:
    renderer.clean_up()
print({"torch", "diffusers", "transformers", "accelerate"} & set(sys.modules))
"""
    assert answer_of(program) == "set()"


def test_code_from_a_checkpoint_is_switched_off_in_diffusers_itself() -> None:
    program = """
open_renderer(ModelSettings(source="anything"), RenderSettings(), Accessories(), dry_run=False)
from diffusers.utils.constants import DIFFUSERS_DISABLE_REMOTE_CODE
print(DIFFUSERS_DISABLE_REMOTE_CODE)
"""
    assert answer_of(program) == "True"
