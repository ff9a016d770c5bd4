"""Moments as people write them: TOML has them, JSON has texts."""

from datetime import datetime


def moment_of(value: object) -> object:
    """Read a text in ISO 8601 as a moment; give all else as it is, and so a text that is none."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return value
