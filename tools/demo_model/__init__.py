"""The demo model: a tiny Qwen-Image checkpoint, trained on pictures that these modules draw themselves."""
