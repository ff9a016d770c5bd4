"""A watch-folder daemon that renders Qwen-Image jobs on one warm pipeline."""

__version__ = "0.1.0"
