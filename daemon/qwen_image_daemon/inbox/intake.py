"""Where drops come from, where they go, and by which rules: what every part of the take-in is given."""

from dataclasses import dataclass
from pathlib import Path

from qwen_image_daemon.jobs.catalogue import Catalogue
from qwen_image_daemon.settings import InboxSettings, SpoolSettings
from qwen_image_daemon.spool.spool import Spool


@dataclass(frozen=True, slots=True)
class Intake:
    """One inbox and one spool."""

    inbox: Path
    spool: Spool
    catalogue: Catalogue
    settings: InboxSettings
    limits: SpoolSettings
