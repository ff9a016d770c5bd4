"""Many pictures on one page, each with its prompt."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL = 148
PICTURE = 128
LINES = 3
LINE = 12
COLUMNS = 6


def contact_sheet(pictures: Sequence[tuple[Path, str]]) -> Image.Image:
    """Lay pictures (path, caption) out in rows of six, each scaled into a square of 128 pixels."""
    rows = -(-len(pictures) // COLUMNS)
    height = CELL + LINES * LINE
    page = Image.new("RGB", (COLUMNS * CELL, max(1, rows) * height), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(10)
    for number, (path, caption) in enumerate(pictures):
        left, top = number % COLUMNS * CELL, number // COLUMNS * height
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
        spare = (CELL - picture.width) // 2, (CELL - picture.height) // 2
        page.paste(picture, (left + spare[0], top + spare[1]))
        for line, text in enumerate(textwrap.wrap(caption, 26)[:LINES]):
            pen.text((left + 8, top + CELL - 8 + line * LINE), text, fill="#444", font=font)
    return page
