"""The demo model is trained with the mathematics that the pipeline runs, in the number format of the hardware."""

import pytest
import torch
from transformers import Qwen2Tokenizer

from demo_model.evaluation import practice_scene, questions
from demo_model.fast_forward import VelocityModel, encode_text
from demo_model.precision import product_dtype
from demo_model.transformer_training import (
    deepened,
    draw_sigmas,
    flow_loss,
    new_text_encoder,
    new_transformer,
    shift_of,
)
from demo_model.world import in_evaluation, in_training
from qwen_image_daemon.settings import EMBEDDED, ModelSettings


def scrambled(model: torch.nn.Module) -> torch.nn.Module:
    """Give every weight a size: blocks that begin as the identity would agree whatever they do."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.08)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return Qwen2Tokenizer.from_pretrained(ModelSettings(family="demo", source=EMBEDDED).folder / "tokenizer")


def test_the_training_pass_gives_the_velocity_of_the_model_class() -> None:
    transformer = new_transformer(8)
    scrambled(transformer)
    latents, embeddings = torch.randn(2, 4 * 6, 32), torch.randn(2, 7, 128)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    sigma = torch.tensor([0.9, 0.3])
    with torch.no_grad():
        fast, _ = VelocityModel(transformer, 3, torch.float32)(latents, sigma, embeddings, mask, (4, 6))
        [wanted] = transformer(
            hidden_states=latents,
            timestep=sigma,
            encoder_hidden_states=embeddings,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, 4, 6)]] * 2,
            return_dict=False,
        )
    assert wanted.std() > 0.01
    torch.testing.assert_close(fast, wanted, rtol=1e-3, atol=1e-4)


def test_a_deeper_transformer_begins_as_the_one_it_is_made_of() -> None:
    shallow = new_transformer(8, layers=2)
    scrambled(shallow)
    deeper = deepened(shallow, 3)
    given = {
        "hidden_states": torch.randn(1, 4 * 6, 32),
        "timestep": torch.tensor([0.9]),
        "encoder_hidden_states": torch.randn(1, 7, 128),
        "encoder_hidden_states_mask": torch.ones(1, 7, dtype=torch.bool),
        "img_shapes": [[(1, 4, 6)]],
        "return_dict": False,
    }
    with torch.no_grad():
        [before], [after] = shallow(**given), deeper(**given)
    assert len(deeper.transformer_blocks) == 3
    assert before.std() > 0.01
    torch.testing.assert_close(after, before)
    with pytest.raises(ValueError, match="give 3 or more"):
        deepened(deeper, 2)


def test_the_training_pass_gives_the_embeddings_of_the_text_encoder(tokenizer: Qwen2Tokenizer) -> None:
    text_encoder = new_text_encoder(tokenizer)
    scrambled(text_encoder)
    prefix, tokens = torch.arange(5, 39), torch.arange(100, 116).reshape(2, 8)
    with torch.no_grad():
        fast = encode_text(text_encoder, prefix, tokens, torch.float32)
        whole = torch.cat((prefix.expand(2, -1), tokens), 1)
        states = text_encoder(input_ids=whole, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(fast, states[:, prefix.numel() :], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_products_are_in_bfloat16_only_where_the_processor_multiplies_in_it(
    capabilities: dict[str, bool], wanted: torch.dtype
) -> None:
    assert product_dtype(torch.device("cpu"), capabilities) == wanted


def test_a_picture_with_little_outline_counts_more_and_every_token_of_a_picture_the_same() -> None:
    wanted = torch.zeros(2, 16, 4)
    small, large = torch.zeros(16), torch.ones(16)
    small[:4] = 1
    outlines = torch.stack((small, large))
    wrong_small, wrong_large, beside = (torch.zeros(2, 16, 4) for _ in range(3))
    wrong_small[0, 0] = wrong_large[1, 0] = 1
    beside[0, 15] = 1
    loss = {
        name: flow_loss(velocity, wanted, outlines, 0.5).item()
        for name, velocity in {"small": wrong_small, "large": wrong_large, "beside": beside}.items()
    }
    assert loss["small"] == pytest.approx(2 * loss["large"])
    assert loss["beside"] == pytest.approx(loss["small"])


def test_noise_levels_are_shifted_as_in_the_pipeline() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_sigmas(4000, 64, generator)
    assert drawn.min() > 0
    assert drawn.max() < 1
    stretch = torch.tensor(shift_of(64)).exp()
    assert drawn.median() == pytest.approx((stretch / (1 + stretch)).item(), abs=0.02)


def test_choices_are_made_on_prompts_that_are_not_held_out() -> None:
    practice = questions("single", 40, 0, practice_scene)
    assert all(in_training(asked.scene) for asked in practice)
    assert all(in_evaluation(asked.scene) for asked in questions("single", 40, 0))
