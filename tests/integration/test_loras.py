"""LoRAs change the picture by their weight, are told where they do not fit, and leave no trace."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qwen_image_daemon.jobs.models import LoraUse
from qwen_image_daemon.lora_folder import LoraFolder
from qwen_image_daemon.render.renderer import RequestRefused
from tiny_models import PLAIN, TinyModel, loaded

LAYER = "transformer_blocks.0.attn.to_q"
MODULATION = "transformer_blocks.1.img_mod.1"
RANK = 4


def weights(
    layer: str = LAYER, *, seed: int = 0, outputs: int = 32, prefix: str = "transformer."
) -> dict[str, torch.Tensor]:
    """Give a strong LoRA for one layer of the tiny transformer."""
    noise = torch.Generator().manual_seed(seed)
    return {
        f"{prefix}{layer}.lora_A.weight": torch.randn(RANK, 32, generator=noise),
        f"{prefix}{layer}.lora_B.weight": torch.randn(outputs, RANK, generator=noise),
    }


def uses(**named: float) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(name=name, weight=weight) for name, weight in named.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module")
def model(tiny_family: Callable[[str], Path], folder: Path) -> Iterator[TinyModel]:
    with loaded("qwen-image", tiny_family("qwen-image"), loras=LoraFolder(folder, {})) as entered:
        yield entered


@pytest.fixture(scope="module")
def bare(model: TinyModel) -> bytes:
    """Give the picture without any."""
    return model.bytes_of(PLAIN)


@pytest.fixture
def keep(folder: Path) -> Iterator[Callable[[str, Mapping[str, torch.Tensor]], None]]:
    """Give what puts a LoRA into the folder until the test is over."""
    kept: list[Path] = []

    def save(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        kept.append(folder / f"{name}.safetensors")
        save_file(dict(tensors), kept[-1])

    yield save
    for path in kept:
        path.unlink(missing_ok=True)


Keep = Callable[[str, Mapping[str, torch.Tensor]], None]


def test_a_lora_changes_the_picture_by_its_weight_and_is_gone_afterwards(
    model: TinyModel, bare: bytes, keep: Keep
) -> None:
    keep("one", weights())
    pictures = [model.bytes_of(replace(PLAIN, loras=uses(one=weight))) for weight in (1.0, 0.5, -1.0)]
    assert len({bare, *pictures}) == 4
    assert model.bytes_of(PLAIN) == bare
    assert model.bytes_of(replace(PLAIN, loras=uses(one=1.0))) == pictures[0]
    assert model.bytes_of(PLAIN) == bare
    assert not [name for name, _ in model.pipeline.transformer.named_modules() if "lora" in name]


def test_several_loras_lie_upon_each_other(model: TinyModel, bare: bytes, keep: Keep) -> None:
    keep("one", weights())
    keep("two", weights(MODULATION, seed=1, outputs=192))
    alone = [model.bytes_of(replace(PLAIN, loras=uses(**{name: 1.0}))) for name in ("one", "two")]
    both = model.bytes_of(replace(PLAIN, loras=uses(one=1.0, two=1.0)))
    assert len({bare, both, *alone}) == 4
    assert model.bytes_of(replace(PLAIN, loras=uses(one=1.0))) == alone[0]


def test_a_lora_that_the_next_job_uses_too_is_not_loaded_again(model: TinyModel, keep: Keep) -> None:
    keep("one", weights())
    model.draw(replace(PLAIN, loras=uses(one=1.0)))
    layer = model.pipeline.transformer.get_submodule(LAYER)
    model.renderer.clean_up()
    model.draw(replace(PLAIN, loras=uses(one=0.3), seed=9))
    assert model.pipeline.transformer.get_submodule(LAYER) is layer
    model.draw(PLAIN)
    assert model.pipeline.transformer.get_submodule(LAYER) is not layer


def test_a_file_that_was_replaced_is_read_anew(model: TinyModel, keep: Keep) -> None:
    keep("one", weights())
    first = model.bytes_of(replace(PLAIN, loras=uses(one=1.0)))
    keep("one", {**weights(seed=5), **weights(MODULATION, outputs=192)})
    assert model.bytes_of(replace(PLAIN, loras=uses(one=1.0))) != first


@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_"])
def test_loras_of_other_programs_are_understood(model: TinyModel, keep: Keep, prefix: str) -> None:
    keep("one", weights())
    expected = model.bytes_of(replace(PLAIN, loras=uses(one=1.0)))
    layer = LAYER.replace(".", "_") if prefix == "lora_unet_" else LAYER
    foreign = {
        key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): tensor
        for key, tensor in weights(layer, prefix=prefix).items()
    }
    foreign[f"{prefix}{layer}.alpha"] = torch.tensor(float(RANK))
    keep("foreign", foreign)
    assert model.bytes_of(replace(PLAIN, loras=uses(foreign=1.0))) == expected


def test_a_bare_prefix_that_diffusers_would_pass_over_is_refused(model: TinyModel, keep: Keep) -> None:
    """Loaded by diffusers it raises nothing and does nothing."""
    keep("bare", weights(prefix=""))
    with pytest.raises(RequestRefused, match=r"no layer that this model has: transformer_blocks\.0"):
        model.draw(replace(PLAIN, loras=uses(bare=1.0), strict=False))


def test_keys_that_match_nothing_are_refused_or_told(model: TinyModel, keep: Keep) -> None:
    keep("one", weights())
    expected = model.bytes_of(replace(PLAIN, loras=uses(one=1.0)))
    keep("partly", {**weights(), **weights("transformer_blocks.7.attn.to_q")})
    request = replace(PLAIN, loras=uses(partly=1.0))
    with pytest.raises(RequestRefused, match='2 of the 4 tensors of the LoRA "partly" match nothing'):
        model.draw(request)
    rendering = model.draw(replace(request, strict=False))
    assert rendering.image.tobytes() == expected
    [note] = rendering.adjustments
    assert note.startswith('2 of the 4 tensors of the LoRA "partly" match nothing')


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (weights(outputs=48), "made for another model"),
        ({"transformer.x.lora_A.weight": torch.ones(2, 2)}, "matches nothing"),
        ({"unet.down.weight": torch.ones(2, 2)}, "unet.down.weight is no part of a LoRA"),
        ({**weights(), f"transformer.{LAYER}.lora_A.weight": torch.full((RANK, 32), torch.nan)}, "NaN"),
    ],
    ids=["shape", "layer", "checkpoint", "nan"],
)
def test_a_lora_that_does_not_fit_is_refused_before_anything_is_touched(
    model: TinyModel, bare: bytes, keep: Keep, tensors: dict[str, torch.Tensor], complaint: str
) -> None:
    keep("unfit", tensors)
    with pytest.raises(RequestRefused, match=complaint) as refused:
        model.draw(replace(PLAIN, loras=uses(unfit=1.0), strict=False))
    assert refused.value.fix
    assert model.bytes_of(PLAIN) == bare


def test_what_is_no_safetensors_file_is_refused(model: TinyModel, folder: Path) -> None:
    junk = folder / "junk.safetensors"
    for content in (b"", b"junk" * 100, (2**40).to_bytes(8, "little") + b"{}"):
        junk.write_bytes(content)
        with pytest.raises(RequestRefused, match='The LoRA "junk" cannot be used'):
            model.draw(replace(PLAIN, loras=uses(junk=1.0)))
    junk.unlink()
    with pytest.raises(RequestRefused, match='no LoRA "junk" any more'):
        model.draw(replace(PLAIN, loras=uses(junk=1.0)))


def test_a_fault_while_loras_change_leaves_a_model_without_any(model: TinyModel, bare: bytes, keep: Keep) -> None:
    keep("one", weights())
    keep("two", weights(MODULATION, seed=1, outputs=192))
    model.draw(replace(PLAIN, loras=uses(one=1.0)))

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with (
        model.pipeline.transformer.get_submodule(LAYER).register_forward_pre_hook(fail),
        pytest.raises(Exception, match="ZeroDivisionError"),
    ):
        model.draw(replace(PLAIN, loras=uses(one=2.0)))
    assert model.bytes_of(PLAIN) == bare
    assert model.bytes_of(replace(PLAIN, loras=uses(two=1.0))) != bare
    assert model.bytes_of(PLAIN) == bare
