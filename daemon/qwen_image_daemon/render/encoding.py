"""A finished picture as the bytes of a file, with the recipe to draw it again inside."""

import io
import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from qwen_image_daemon.jobs.resolution import EffectiveParameters
from qwen_image_daemon.render.sources import on_white

DEFAULT_JPEG_QUALITY = 95
_IMAGE_DESCRIPTION = 0x010E
PNG_KEY = "qwen-image-daemon"
MAX_EXIF_RECIPE = 65_000
"""Characters of ASCII that fit into the one EXIF segment of a JPEG."""
_WORDS = frozenset(("prompt", "original_prompt", "negative_prompt"))


def encode(image: Image.Image, parameters: EffectiveParameters, seed: int, *, png_compression: int) -> bytes:
    """Write the picture in the job's format. The same picture, parameters and seed give the same bytes."""
    told = parameters.model_dump(
        mode="json", exclude={"output", "num_images"}, exclude_none=True, exclude_defaults=True
    )
    recipe = json.dumps(told | {"seed": seed})
    file = io.BytesIO()
    match parameters.output.format:
        case "png":
            notes = PngInfo()
            notes.add_itxt(PNG_KEY, recipe)
            image.save(file, "PNG", compress_level=png_compression, pnginfo=notes)
        case "webp":
            # Method 0 takes a third of the time of PNG; lossless files stay lossless at any method.
            image.save(file, "WEBP", lossless=True, method=0, exif=_exif(recipe))
        case "jpeg":
            quality = parameters.output.quality or DEFAULT_JPEG_QUALITY
            if len(recipe) > MAX_EXIF_RECIPE:
                # A JPEG takes 64 KiB of EXIF; result.json holds the words.
                elsewhere = dict.fromkeys(told.keys() & _WORDS, "(too long for JPEG: see result.json)")
                recipe = json.dumps(told | {"seed": seed} | elsewhere)
            # A JPEG has no transparency.
            on_white(image).save(file, "JPEG", quality=quality, subsampling=0, exif=_exif(recipe))
    return file.getvalue()


def _exif(recipe: str) -> Image.Exif:
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = recipe
    return exif
