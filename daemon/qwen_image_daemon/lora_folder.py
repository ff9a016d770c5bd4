"""Which LoRAs jobs may name: the files of a folder, and what the settings say about them. Looked at when asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_image_daemon.jobs.catalogue import Lora
from qwen_image_daemon.jobs.quoting import is_control

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class NamedLora:
    """An entry of the settings: a file of the folder, and what is known of it."""

    file: str
    lora: Lora


@dataclass(frozen=True, slots=True)
class LoraFolder:
    """The LoRAs there are. Calling it lists the folder anew."""

    folder: Path
    named: Mapping[str, NamedLora]

    def __call__(self) -> Mapping[str, Lora]:
        """Give all LoRAs whose files are there, by name. Raises OSError, but not where the folder is missing."""
        return {name: self._lora(name, path) for name, path in self.files().items()}

    def files(self) -> Mapping[str, Path]:
        """Give the file of each LoRA, by the settings' name for it and by its own."""
        there = self._files_there()
        told = {name: there[entry.file] for name, entry in self.named.items() if entry.file in there}
        return {path.name.removesuffix(SUFFIX): path for path in there.values()} | told

    def _files_there(self) -> Mapping[str, Path]:
        try:
            found = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return {}
        return {path.name: path for path in found if _is_offered(path)}

    def _lora(self, name: str, path: Path) -> Lora:
        if name in self.named:
            return self.named[name].lora
        # What the settings say of a file holds under its own name, too.
        return next((entry.lora for entry in self.named.values() if entry.file == path.name), Lora())


def _is_offered(path: Path) -> bool:
    name = path.name
    return name.endswith(SUFFIX) and not name.startswith(".") and not any(map(is_control, name)) and path.is_file()
