"""Names of jobs: ids that sort by time, and slugs that people recognise."""

import re
import secrets
import unicodedata
from datetime import UTC, datetime

SLUG_LENGTH = 80
ID_LENGTH = len("20260131-235959-999-c0ffee")


def new_id(now: datetime) -> str:
    """Give a fresh id: UTC time to the millisecond, so that names sort, and 24 random bits against collisions."""
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{secrets.token_hex(3)}"


def time_of_id(name: str) -> datetime | None:
    """Give the time at the beginning of an id, or of a name that begins with one; None where there is none."""
    try:
        return datetime.strptime(name[: len("20260131-235959")], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def slug(name: str) -> str:
    """Give a file name part that people recognise: letters and digits of any script, dashes, at most 80 bytes."""
    kept = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", name)).strip("-_")
    return kept.encode()[:SLUG_LENGTH].decode(errors="ignore") or "job"


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Give a sort key under which page9 comes before page10."""
    parts = re.split(r"(\d+)", unicodedata.normalize("NFC", name).casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
