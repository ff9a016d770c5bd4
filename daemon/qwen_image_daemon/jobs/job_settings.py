"""A job's settings while they are judged: those that are fine by themselves, and which are not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_image_daemon.jobs.problems import KeyPath
from qwen_image_daemon.jobs.tasks import Task


@dataclass(frozen=True, slots=True)
class Settings:
    """A job's settings as far as they are fine by themselves; `output` is a mapping of the same kind."""

    fine: Mapping[str, Any]
    task: Task
    refused: frozenset[KeyPath] = frozenset()
    """Settings that were given, or meant, and are not fine. Nothing is said about them again."""

    def get(self, key: str, default: Any = None) -> Any:
        """Give a setting's value; the default where it is not given or not fine."""
        return self.fine.get(key, default)

    def pictures(self) -> Iterator[tuple[KeyPath, str]]:
        """Give the pictures that the job names, each with its place."""
        for key in ("image", "control_image", "mask"):
            if path := self.get(key):
                yield (key,), path
        for place, path in enumerate(self.get("images") or ()):
            yield ("images", place), path

    def loras(self) -> tuple[Mapping[str, Any], ...]:
        """Give the LoRAs that the job names, each as a table."""
        return tuple({"name": lora} if isinstance(lora, str) else lora for lora in self.get("loras", ()))

    def scheduler(self) -> Mapping[str, Any]:
        """Give the scheduler as a table; an empty one where none is named."""
        scheduler = self.get("scheduler") or {}
        return {"name": scheduler} if isinstance(scheduler, str) else scheduler


EXAMPLE_PROMPT = '"a red circle on a white background"'
