"""Is a checkpoint what its makers put out? A folder may list its files' hashes; then it is held to them."""

import hashlib
from pathlib import Path

from qwen_image_daemon.render.renderer import ModelUnavailable

CHECKSUMS = "CHECKSUMS"
"""As `sha256sum` writes it: a hash, two spaces, a path relative to the folder; one file a line."""

_SAY = "Copy the checkpoint anew; its own list of hashes tells which file is not as it was made."


def refuse_altered(folder: Path) -> None:
    """Raise ModelUnavailable where a file is not as the folder's CHECKSUMS say. Without such a list do nothing.

    Reads every listed file once: 0.02 s for the demo model's 13 MB.
    """
    listed = folder / CHECKSUMS
    if not listed.is_file():
        return
    for line in listed.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise ModelUnavailable(f"{folder / name} is missing.", _SAY) from None
        if found != expected:
            raise ModelUnavailable(
                f"{folder / name} was altered or is broken: its hash is not the listed one.", _SAY
            )
