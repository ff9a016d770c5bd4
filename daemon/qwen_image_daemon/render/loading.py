"""From a checkpoint to a pipeline in host memory. Knows which pipelines this program can draw with."""

from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging as transformers_logging

from qwen_image_daemon.render.checksums import refuse_altered
from qwen_image_daemon.render.devices import DTYPES
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.settings import ModelSettings, Precision

DRAWABLE = ("QwenImagePipeline",)


def pipeline_class(model: ModelSettings) -> str:
    """Give the class that the checkpoint names, at the cost of reading (or fetching) one small file.

    Raises ModelUnavailable where there is no checkpoint or another kind of it, and what diffusers raises.
    """
    if model.folder is not None and not model.folder.is_dir():
        raise ModelUnavailable(
            f"There is no checkpoint folder {model.folder}.", "Set the model's source to where it is."
        )
    if model.folder is not None:
        refuse_altered(model.folder)
    index: dict[str, Any] = DiffusionPipeline.load_config(_place(model), revision=model.revision)
    found = index.get("_class_name")
    if found not in DRAWABLE:
        raise ModelUnavailable(
            f"{model.source} is a checkpoint for {found}, which this program cannot draw with.",
            f"Use a checkpoint for {' or '.join(DRAWABLE)}.",
        )
    return str(found)


def load_pipeline(model: ModelSettings, precision: Precision, *, trust_remote_code: bool) -> Any:
    """Load the checkpoint in the precision. Its files are mapped, not read, as far as they are in it already.

    Raises ModelUnavailable, and whatever the libraries raise.
    """
    # The journal is no terminal.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = DiffusionPipeline.from_pretrained(
        _place(model),
        text_encoder=_text_encoder(model, precision),
        revision=model.revision,
        dtype=DTYPES[precision],
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text_encoder(model: ModelSettings, precision: Precision) -> Any:
    """Load the text encoder on its own, for the report: transformers fills missing weights with random ones."""
    encoder, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
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


def _place(model: ModelSettings) -> str:
    """Give what the libraries take: a path or a hub name."""
    return model.source if model.folder is None else str(model.folder)
