"""Is a source picture one that we can and want to decode? Asked before the job is accepted."""

import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from qwen_image_daemon.jobs.families import Size
from qwen_image_daemon.settings import InboxSettings

FORMATS = ("PNG", "JPEG", "WEBP")
WHITE_FROM = 128
"""Masks are cut into black and white here, as diffusers' VaeImageProcessor does; transparency likewise."""


class UnfitPicture(Exception):
    """A picture that cannot be used. `str()` is the fault, `fix` the cure."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


def check_size(size_bytes: int, settings: InboxSettings) -> None:
    """Refuse a file that is too large to be copied. Raises UnfitPicture."""
    if size_bytes > settings.max_image_bytes:
        raise UnfitPicture(
            f"the picture has {size_bytes:,} bytes; the limit is {settings.max_image_bytes:,}.",
            "Save it smaller, or raise max_image_bytes in the daemon's settings.",
        )


def upright_size(path: Path, settings: InboxSettings) -> Size:
    """Decode a picture wholly, and give its size after EXIF rotation. Raises UnfitPicture."""
    try:
        with warnings.catch_warnings(action="error"), Image.open(path, formats=FORMATS) as picture:
            _check_pixels(Size(*picture.size), settings)
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            return Size(*upright.size)
    except UnidentifiedImageError:
        raise UnfitPicture(
            "the file is no PNG, JPEG or WEBP picture.",
            "Save it as PNG, JPEG or WEBP; the suffix alone does not help.",
        ) from None
    except UnfitPicture:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        # Raised while the header is read. Whatever the settings allow, Pillow's own limit holds.
        raise UnfitPicture(
            f"the picture has more than {Image.MAX_IMAGE_PIXELS:,} pixels.", "Scale it down."
        ) from None
    except Exception as error:  # noqa: BLE001  decoders raise whatever a broken file leads them to: struct.error, TypeError
        raise UnfitPicture(
            f"the picture cannot be decoded: {error}.", "Export it again, or copy it anew."
        ) from None


def fault_of_mask(path: Path) -> tuple[str, str] | None:
    """Give fault and cure of a mask that leaves nothing to redraw. The picture was decoded before."""
    with Image.open(path, formats=FORMATS) as mask:
        # convert() clips 16-bit values to 8 bits.
        grey = mask.point(lambda value: value / 256, "L") if mask.mode.startswith("I;16") else mask.convert("L")
        is_black = not any(grey.histogram()[WHITE_FROM:])
    if is_black:
        return "the mask is black all over: nothing would be redrawn.", "Paint white what is to be redrawn."
    return None


def fault_of_transparency(path: Path) -> tuple[str, str] | None:
    """Give fault and cure of a source whose own transparency is to be the mask. The picture was decoded before."""
    with Image.open(path, formats=FORMATS) as picture:
        is_opaque = not any(picture.convert("RGBA").getchannel("A").histogram()[:WHITE_FROM])
    if is_opaque:
        return (
            "the job names no mask, and nothing in the picture is transparent.",
            "Name a mask, or erase from the picture what is to be redrawn.",
        )
    return None


def _check_pixels(size: Size, settings: InboxSettings) -> None:
    # Before decoding: a 160 KiB file can hold 169 megapixels.
    if size.width * size.height > settings.max_image_pixels:
        raise UnfitPicture(
            f"the picture has {size} pixels; the limit is {settings.max_image_pixels:,}.",
            "Scale it down, or raise max_image_pixels in the daemon's settings.",
        )
