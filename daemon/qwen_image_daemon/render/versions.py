"""Versions of the libraries that draw, for the record in each result. Imports none of them."""

from importlib.metadata import version

from qwen_image_daemon import __version__


def versions_of(*libraries: str) -> dict[str, str]:
    """Give the version of this program and of the named installed libraries."""
    return {"qwen-image-daemon": __version__} | {library: version(library) for library in libraries}
