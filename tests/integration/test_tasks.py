"""Every task of every family is drawn as asked, to the bit as the makers' pipelines draw it; each trap is shut."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    QwenImageControlNetInpaintPipeline,
    QwenImageControlNetModel,
    QwenImageControlNetPipeline,
    QwenImageInpaintPipeline,
)
from PIL import Image

from qwen_image_daemon.render.renderer import BadPicture, Control, RenderRequest, RequestRefused, UnexpectedFailure
from qwen_image_daemon.settings import ControlNetSettings
from tiny_models import PLAIN, SIDE, TinyModel, half_mask, loaded, picture

GUIDED = replace(PLAIN, negative_prompt=" ", true_cfg_scale=4.0)
INPAINT = replace(PLAIN, task="inpaint", source=picture(), mask=half_mask(), strength=1.0)
CONTROLLED = replace(PLAIN, task="controlnet", control=Control(picture("blue"), "edges"))
FILLED = replace(PLAIN, task="controlnet", control=Control(picture("blue"), "fill"), mask=half_mask())
EDIT = replace(PLAIN, task="edit", references=(picture(size=(96, 64)),))
LAYERED = replace(
    PLAIN,
    task="layered",
    prompt="a gradient",
    source=picture(size=(80, 80)).convert("RGBA"),
    layers=2,
    resolution=640,
    width=640,
    height=640,
)

Families = Callable[[str], Path]


@pytest.fixture(scope="module")
def qwen_image(tiny_family: Families) -> Iterator[TinyModel]:
    controlnets = {
        "edges": ControlNetSettings(source=str(tiny_family("controlnet-union"))),
        "fill": ControlNetSettings(source=str(tiny_family("controlnet-inpaint")), kind="inpaint"),
        "gone": ControlNetSettings(source="/nowhere"),
    }
    with loaded("qwen-image", tiny_family("qwen-image"), controlnets=controlnets) as model:
        yield model


@pytest.fixture(scope="module")
def edit(tiny_family: Families) -> Iterator[TinyModel]:
    with loaded("qwen-image-edit", tiny_family("qwen-image-edit")) as model:
        yield model


@pytest.fixture(scope="module")
def edit_plus(tiny_family: Families) -> Iterator[TinyModel]:
    with loaded("qwen-image-edit-plus", tiny_family("qwen-image-edit-plus")) as model:
        yield model


@pytest.fixture(scope="module")
def layered(tiny_family: Families) -> Iterator[TinyModel]:
    with loaded("qwen-image-layered", tiny_family("qwen-image-layered")) as model:
        yield model


@pytest.fixture(scope="module")
def second(tiny_family: Families) -> Iterator[TinyModel]:
    with loaded("qwen-image-2.1", tiny_family("qwen-image-2.1")) as model:
        yield model


def plainly(pipeline: Any, request: RenderRequest, **arguments: Any) -> Any:
    """Draw as anybody does who calls the makers' pipeline."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        true_cfg_scale=request.true_cfg_scale,
        num_inference_steps=request.num_inference_steps,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        **arguments,
    ).images[0]


SIZE = {"width": SIDE, "height": SIDE}


# --- Qwen-Image -----------------------------------------------------------------------------------------------


def test_inpainting_is_the_makers_to_the_bit(qwen_image: TinyModel) -> None:
    expected = plainly(
        QwenImageInpaintPipeline(**qwen_image.pipeline.components),
        INPAINT,
        image=INPAINT.source,
        mask_image=INPAINT.mask,
        strength=1.0,
        **SIZE,
    )
    assert qwen_image.bytes_of(INPAINT) == expected.tobytes()


def test_inpainting_depends_on_the_source_only_where_it_is_kept(qwen_image: TinyModel) -> None:
    """The left half is redrawn: what was there does not count at full strength; what stays on the right does."""
    assert INPAINT.source is not None
    left, right = INPAINT.source.copy(), INPAINT.source.copy()
    left.paste("blue", (0, 0, SIDE // 2, SIDE))
    right.paste("blue", (SIDE // 2, 0, SIDE, SIDE))
    drawn, other = qwen_image.bytes_of(INPAINT), qwen_image.bytes_of(replace(INPAINT, source=right))
    assert drawn != other


@pytest.mark.parametrize(
    ("request_", "made"),
    [(CONTROLLED, QwenImageControlNetPipeline), (FILLED, QwenImageControlNetInpaintPipeline)],
    ids=["union", "inpaint"],
)
def test_a_controlnet_is_the_makers_to_the_bit(
    qwen_image: TinyModel, tiny_family: Families, request_: RenderRequest, made: Any
) -> None:
    kind = "union" if request_.mask is None else "inpaint"
    net = QwenImageControlNetModel.from_pretrained(tiny_family(f"controlnet-{kind}"))
    assert request_.control is not None
    masked = {} if request_.mask is None else {"control_mask": request_.mask}
    # The inpaint ControlNet's pipeline takes no generator for a part of its noise.
    torch.manual_seed(request_.seed)
    expected = plainly(
        made(**qwen_image.pipeline.components, controlnet=net),
        request_,
        control_image=request_.control.image,
        **masked,
        **SIZE,
    )
    assert qwen_image.bytes_of(request_) == expected.tobytes()


@pytest.mark.parametrize("request_", [CONTROLLED, FILLED], ids=["union", "inpaint"])
def test_a_controlnets_picture_and_scale_count_and_the_same_request_gives_the_same_bytes(
    qwen_image: TinyModel, request_: RenderRequest
) -> None:
    assert request_.control is not None
    first = qwen_image.bytes_of(request_)
    torch.manual_seed(99)
    assert qwen_image.bytes_of(request_) == first
    for other in (
        replace(request_.control, image=picture("white")),
        replace(request_.control, scale=0.3),
        replace(request_.control, end=0.5),
    ):
        assert qwen_image.bytes_of(replace(request_, control=other)) != first


def test_drawing_leaves_the_libraries_own_randomness_as_it_was(qwen_image: TinyModel) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    qwen_image.draw(FILLED)
    assert torch.rand(3).equal(expected)


def test_a_controlnet_that_would_never_count_is_refused(qwen_image: TinyModel) -> None:
    assert CONTROLLED.control is not None
    with pytest.raises(RequestRefused, match=r"No step of 2 lies wholly between 0\.6 and 0\.9"):
        qwen_image.draw(replace(CONTROLLED, control=replace(CONTROLLED.control, start=0.6, end=0.9)))


def test_a_controlnet_that_is_not_in_the_settings_is_refused(qwen_image: TinyModel) -> None:
    assert CONTROLLED.control is not None
    with pytest.raises(RequestRefused, match="no ControlNet poses"):
        qwen_image.draw(replace(CONTROLLED, control=replace(CONTROLLED.control, controlnet="poses")))


def test_a_controlnet_that_is_not_there_fails_its_jobs_alone(qwen_image: TinyModel) -> None:
    assert CONTROLLED.control is not None
    with pytest.raises(UnexpectedFailure, match=r"ControlNet gone cannot be used: There is no checkpoint folder"):
        qwen_image.draw(replace(CONTROLLED, control=replace(CONTROLLED.control, controlnet="gone")))
    assert qwen_image.draw(CONTROLLED).image.size == (SIDE, SIDE)


def test_tasks_of_one_model_leave_no_trace_on_each_other(qwen_image: TinyModel) -> None:
    before = qwen_image.bytes_of(GUIDED)
    modules = {id(module) for module in qwen_image.pipeline.components.values()}
    for request in (INPAINT, CONTROLLED, FILLED):
        qwen_image.draw(request)
    assert qwen_image.bytes_of(GUIDED) == before
    assert {id(module) for module in qwen_image.pipeline.components.values()} == modules
    assert qwen_image.pipeline.transformer.dtype == torch.float32


@pytest.mark.parametrize(
    ("unfit", "complaint"),
    [
        (replace(INPAINT, mask=None), "Inpainting needs a source and a mask and a strength"),
        (replace(INPAINT, mask=Image.new("L", (SIDE, SIDE), 127)), "black all over"),
        (replace(INPAINT, mask=half_mask((32, 32))), "The mask is L of 32×32 pixels"),
        (replace(CONTROLLED, control=None), "A ControlNet needs a control"),
        (EDIT, "cannot do edit"),
        (replace(PLAIN, control=CONTROLLED.control), "takes no control"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_go_together_is_refused(qwen_image: TinyModel, unfit: RenderRequest, complaint: str) -> None:
    with pytest.raises(RequestRefused, match=complaint) as refused:
        qwen_image.draw(unfit)
    assert refused.value.fix


def test_a_prompt_that_is_too_long_is_cut_only_where_that_is_wanted(qwen_image: TinyModel) -> None:
    long = "\N{GREEK SMALL LETTER OMEGA}" * 600
    with pytest.raises(RequestRefused, match=r"1200 tokens long; the model reads 1017.*"):
        qwen_image.draw(replace(PLAIN, prompt=long))
    rendering = qwen_image.draw(replace(PLAIN, prompt=long, strict=False))
    assert rendering.adjustments == ("the prompt of 1200 tokens was cut after 1017",)


def test_a_style_that_makes_a_prompt_too_long_is_named(qwen_image: TinyModel) -> None:
    bare = "\N{GREEK SMALL LETTER OMEGA}" * 500
    styled = replace(PLAIN, prompt=f"{bare}{bare[:20]}", prompt_as_written=bare)
    with pytest.raises(RequestRefused, match=r"1040 tokens long.*Without the words of its style it would fit\."):
        qwen_image.draw(styled)
    [note] = qwen_image.draw(replace(styled, strict=False)).adjustments
    assert note == "the prompt of 1040 tokens was cut after 1017; without the words of its style it would fit"


# --- the gate -------------------------------------------------------------------------------------------------


def test_a_black_picture_is_drawn_once_more_and_then_told(qwen_image: TinyModel) -> None:
    drawn: list[None] = []

    def blacken(_: Any, __: Any, output: Any) -> Any:
        drawn.append(None)
        return torch.full_like(output, -1.0)

    with (
        qwen_image.pipeline.vae.decoder.register_forward_hook(blacken),
        pytest.raises(BadPicture, match="black all over"),
    ):
        qwen_image.draw(PLAIN)
    assert len(drawn) == 2
    assert qwen_image.draw(PLAIN).adjustments == ()


def test_a_picture_that_comes_out_at_the_second_try_is_given_and_told(qwen_image: TinyModel) -> None:
    expected, tries = qwen_image.bytes_of(PLAIN), []

    def spoil_the_first(_: Any, __: Any, output: Any) -> Any:
        tries.append(output.dtype)
        return output * 0 if len(tries) == 1 else output

    with qwen_image.pipeline.vae.decoder.register_forward_hook(spoil_the_first):
        rendering = qwen_image.draw(PLAIN)
    assert rendering.image.tobytes() == expected
    [note] = rendering.adjustments
    assert "a second time" in note


# --- Edit -----------------------------------------------------------------------------------------------------


def test_an_edit_is_the_makers_to_the_bit_and_of_the_size_asked_for(edit: TinyModel) -> None:
    guided = replace(EDIT, negative_prompt="fog", true_cfg_scale=3.0)
    expected = plainly(edit.pipeline, guided, image=guided.references[0], **SIZE)
    rendering = edit.draw(guided)
    assert rendering.image.tobytes() == expected.tobytes()
    assert rendering.image.size == (SIDE, SIDE)


def test_an_edit_that_changes_nothing_is_told(edit: TinyModel) -> None:
    def give_back(_: Any, __: Any, output: Any) -> Any:
        levels = np.asarray(EDIT.references[0].resize((SIDE, SIDE)), dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(levels).permute(2, 0, 1)[None, :, None].to(output)

    with (
        edit.pipeline.vae.decoder.register_forward_hook(give_back),
        pytest.raises(BadPicture, match="changed nothing"),
    ):
        edit.draw(EDIT)


def test_a_masked_edit_is_drawn_at_its_pictures_shape_or_refused(edit: TinyModel) -> None:
    """The pipeline ignores width and height."""
    masked = replace(EDIT, mask=half_mask((96, 64)), strength=0.5)
    with pytest.raises(RequestRefused, match=r"here 1248×832, not 64×64") as refused:
        edit.draw(masked)
    assert "1248×832" in refused.value.fix
    rendering = edit.draw(replace(masked, strict=False))
    assert rendering.image.size == (SIDE, SIDE)
    assert rendering.adjustments == ("the picture was drawn at 1248×832 and scaled to 64×64",)
    assert rendering.steps == 1


@pytest.mark.parametrize(
    ("unfit", "complaint"),
    [
        (replace(EDIT, references=EDIT.references * 2), "reads 1 picture at most, not 2"),
        (replace(EDIT, references=()), "An edit needs a references"),
        (replace(EDIT, references=(picture().convert("RGBA"),)), "The reference is RGBA"),
        (replace(EDIT, prompt="\N{GREEK SMALL LETTER OMEGA}" * 600, strict=False), "1200 tokens long"),
    ],
    ids=["several", "none", "transparent", "long, which the pipeline would not cut"],
)
def test_an_edit_that_the_model_cannot_do_is_refused(
    edit: TinyModel, unfit: RenderRequest, complaint: str
) -> None:
    with pytest.raises(RequestRefused, match=complaint):
        edit.draw(unfit)


def test_several_references_are_read_in_their_order(edit_plus: TinyModel) -> None:
    """To the bit as the makers' pipeline, which takes the last one's shape where no size is asked for."""
    one, other = picture("orange", (64, 64)), picture("blue", (96, 64))
    request = replace(EDIT, references=(one, other))
    expected = plainly(edit_plus.pipeline, request, image=[one, other], **SIZE)
    rendering = edit_plus.draw(request)
    assert rendering.image.tobytes() == expected.tobytes()
    assert rendering.image.size == (SIDE, SIDE)


# --- Layered --------------------------------------------------------------------------------------------------


def test_layers_are_the_makers_to_the_bit_and_lie_upon_each_other(layered: TinyModel) -> None:
    expected = plainly(layered.pipeline, LAYERED, image=LAYERED.source, layers=2, resolution=640)
    rendering = layered.draw(LAYERED)
    assert [layer.tobytes() for layer in rendering.layers] == [layer.tobytes() for layer in expected]
    assert {(layer.mode, layer.size) for layer in rendering.layers} == {("RGBA", (640, 640))}
    lower, upper = rendering.layers
    assert rendering.image.tobytes() == Image.alpha_composite(lower, upper).tobytes()
    assert rendering.caption is None


def test_a_layered_job_without_prompt_is_described_once_by_the_model(layered: TinyModel) -> None:
    described: list[None] = []
    request = replace(LAYERED, prompt="", layers=1)
    hook = layered.pipeline.text_encoder.model.visual.register_forward_hook(lambda *_: described.append(None))
    with hook:
        first = layered.draw(request)
        seen = len(described)
        second = layered.draw(replace(request, seed=8))
    assert first.caption
    assert second.caption == first.caption
    assert (seen, len(described)) == (1, 1)
    assert first.image.tobytes() != second.image.tobytes()


def test_layers_of_another_size_than_the_pictures_are_refused(layered: TinyModel) -> None:
    with pytest.raises(RequestRefused, match=r"here 640×640, not 64×64"):
        layered.draw(replace(LAYERED, width=SIDE, height=SIDE))
    with pytest.raises(RequestRefused, match="resolution of 512"):
        layered.draw(replace(LAYERED, resolution=512))


# --- 2.1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [PLAIN, GUIDED], ids=["plain", "guided"])
def test_the_second_generation_is_the_makers_to_the_bit(second: TinyModel, request_: RenderRequest) -> None:
    expected = plainly(second.pipeline, request_, **SIZE)
    rendering = second.draw(request_)
    assert rendering.image.tobytes() == expected.tobytes()
    assert rendering.image.mode == "RGBA"


def test_the_second_generation_edits_pictures_with_their_transparency(second: TinyModel) -> None:
    clear = picture().convert("RGBA")
    clear.putalpha(half_mask())
    request = replace(EDIT, references=(clear,))
    expected = plainly(second.pipeline, request, image=list(request.references), **SIZE)
    assert second.bytes_of(request) == expected.tobytes()


def test_a_checkpoint_that_prescribes_its_steps_is_not_asked_for_others(tiny_family: Families) -> None:
    """The pipeline ignores num_inference_steps then, without a word."""
    with loaded("qwen-image-2.1-turbo", tiny_family("qwen-image-2.1-turbo")) as turbo:
        with pytest.raises(RequestRefused, match="prescribes 4 steps, and would ignore 5"):
            turbo.draw(replace(PLAIN, num_inference_steps=5))
        rendering = turbo.draw(replace(PLAIN, num_inference_steps=5, strict=False))
        assert rendering.steps == 4
        assert rendering.adjustments == ("num_inference_steps 5 had no effect: the checkpoint prescribes 4",)
        assert turbo.draw(replace(PLAIN, num_inference_steps=4)).image.tobytes() == rendering.image.tobytes()
