"""From a checkpoint to a pipeline in host memory. Knows which pipelines this program can draw with."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from diffusers import DiffusionPipeline, QwenImageControlNetModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from qwen_image_daemon.render.devices import DTYPES
from qwen_image_daemon.render.gguf_transformer import load_gguf_transformer
from qwen_image_daemon.render.models import MODELS
from qwen_image_daemon.render.nunchaku_transformer import load_nunchaku_transformer
from qwen_image_daemon.render.quantised_files import is_nunchakus, quantised_in
from qwen_image_daemon.render.quantised_loading import load_quantised_text_encoder, load_quantised_transformer
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.render.wholeness import refuse_absent
from qwen_image_daemon.settings import ControlNetSettings, ModelSettings, Precision

Checkpoint = ModelSettings | ControlNetSettings


def pipeline_class(model: ModelSettings) -> str:
    """Give the class that the checkpoint names, at the cost of reading (or fetching) one small file.

    Raises ModelUnavailable where there is no checkpoint or another kind of it, and what diffusers raises.
    """
    refuse_absent(model.folder, model.source)
    index: dict[str, Any] = DiffusionPipeline.load_config(_place(model), revision=model.revision)
    found = index.get("_class_name")
    drawable = MODELS[model.family].index_classes
    if found not in drawable:
        fitting = [family for family, facts in MODELS.items() if found in facts.index_classes]
        raise ModelUnavailable(
            f"{model.source} is a checkpoint for {found}, which this program cannot draw with"
            f"{f' as a model of the family {model.family}' if fitting else ''}.",
            f"Set the model's family to {' or '.join(fitting)}."
            if fitting
            else f"Use a checkpoint for {' or '.join(drawable)}.",
        )
    if MODELS[model.family].needs_torchvision and find_spec("torchvision") is None:
        raise ModelUnavailable(
            f"{model.source} looks at pictures, and needs torchvision, which is not installed.",
            "Install it in the daemon's environment: pip install 'qwen-image-daemon[vision]'.",
        )
    return str(found)


def load_pipeline(
    model: ModelSettings, precision: Precision, at_hand: Mapping[str, Any], *, trust_remote_code: bool
) -> Any:
    """Load the checkpoint in the precision. Its files are mapped, not read, as far as they are in it already.

    `at_hand` are components that need not be loaded. Raises ModelUnavailable, and whatever the libraries raise.
    """
    _be_quiet()
    components = dict(at_hand)
    quantised = {} if model.folder is None else quantised_in(model.folder)
    if "text_encoder" not in components:
        load_encoder = _quantised_text_encoder if "text_encoder" in quantised else _text_encoder
        components["text_encoder"] = load_encoder(model, precision)
    if model.transformer_file is not None:
        components["transformer"] = _transformer_in(model.transformer_file, model, precision)
    elif "transformer" in quantised:
        components["transformer"] = load_quantised_transformer(Path(_place(model)), DTYPES[precision])
    pipeline = DiffusionPipeline.from_pretrained(
        _place(model),
        **components,
        revision=model.revision,
        dtype=DTYPES[precision],
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    if not MODELS[model.family].needs_head:
        # It takes memory, and the embeddings are the same without it.
        pipeline.text_encoder.lm_head = nn.Identity()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_controlnet(controlnet: ControlNetSettings, precision: Precision) -> Any:
    """Load a ControlNet that is there in the precision. Raises whatever the libraries raise."""
    _be_quiet()
    return QwenImageControlNetModel.from_pretrained(
        _place(controlnet),
        revision=controlnet.revision,
        dtype=DTYPES[precision],
        use_safetensors=True,
    )


def _transformer_in(file: Path, model: ModelSettings, precision: Precision) -> Any:
    if is_nunchakus(file):
        return load_nunchaku_transformer(file, Path(_place(model)), DTYPES[precision])
    return load_gguf_transformer(file, _place(model), model.revision, DTYPES[precision])


def _text_encoder(model: ModelSettings, precision: Precision) -> Any:
    """Load the text encoder on its own, for the report: transformers fills missing weights with random ones."""
    kind = getattr(transformers, MODELS[model.family].text_encoder)
    encoder, report = kind.from_pretrained(
        _place(model),
        subfolder="text_encoder",
        revision=model.revision or "main",
        dtype=DTYPES[precision],
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelUnavailable(
            f"{model.source} has no weights for {len(missing)} tensors of its text_encoder, {missing[0]} first.",
            "Fetch the checkpoint again; the file and its config.json do not belong together.",
        )
    return encoder


def _quantised_text_encoder(model: ModelSettings, precision: Precision) -> Any:
    kind = MODELS[model.family].text_encoder
    return load_quantised_text_encoder(kind, Path(_place(model)), DTYPES[precision])


def _be_quiet() -> None:
    # The journal is no terminal.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _place(checkpoint: Checkpoint) -> str:
    """Give what the libraries take: a path or a hub name."""
    return checkpoint.source if checkpoint.folder is None else str(checkpoint.folder)
