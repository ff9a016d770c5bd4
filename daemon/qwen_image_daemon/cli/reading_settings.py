"""Settings for a command, or one sentence on what is wrong with them."""

from pathlib import Path
from typing import Any

import tomli
import typer
from pydantic import ValidationError

from qwen_image_daemon.settings import DEMO_MODEL, Settings, UnknownVariableError, load_settings

WRONG_USE = 2
"""Exit code for arguments and settings that cannot work."""


def settings_or_exit(root: Path | None, config: Path | None, model: str | None = None) -> Settings:
    """Read the settings; print what is wrong with them and end the program where they cannot be used."""
    overrides: dict[str, Any] = {} if root is None else {"root": root}
    try:
        settings = load_settings(config, **overrides)
        return settings if model is None else _with_model(settings, model)
    except ValidationError as error:
        source = config or "settings"
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"]) or "settings"
            typer.echo(f"{source}: {key}: {fault['msg']}.", err=True)
    except UnknownVariableError as error:
        typer.echo(f"{error}.", err=True)
    except tomli.TOMLDecodeError as error:
        typer.echo(f"{config}: {error}.", err=True)
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{config}: cannot be read: {error}.", err=True)
    raise typer.Exit(WRONG_USE)


def _with_model(settings: Settings, model: str) -> Settings:
    if model not in settings.models and model != DEMO_MODEL:
        names = ", ".join(sorted(settings.models))
        typer.echo(f"--model {model}: no such model. The settings have: {names}; demo is always there.", err=True)
        raise typer.Exit(WRONG_USE)
    return Settings.model_validate(settings.model_dump() | {"default_model": model})
