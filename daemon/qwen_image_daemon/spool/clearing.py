"""Forgetting jobs that ended long ago. What they drew is in the outbox; here only their records are kept."""

import shutil
from datetime import datetime, timedelta
from typing import get_args

from qwen_image_daemon.settings import SpoolSettings
from qwen_image_daemon.spool.identity import time_of_id
from qwen_image_daemon.spool.records import OutcomeStatus
from qwen_image_daemon.spool.repeats import Repeats
from qwen_image_daemon.spool.spool import Spool


def forget_old_jobs(spool: Spool, settings: SpoolSettings, now: datetime) -> int:
    """Delete the records of jobs that are too old, and of the oldest of too many. Gives their number.

    The keys that senders gave them are forgotten with them.
    """
    shelves = (spool.shelf(status) for status in get_args(OutcomeStatus))
    youngest_first = sorted(
        (entry for shelf in shelves for entry in spool.entries(shelf)), key=lambda entry: entry.id, reverse=True
    )
    forgotten = 0
    for number, entry in enumerate(youngest_first):
        received_at = time_of_id(entry.id)
        is_old = received_at is not None and now - received_at > timedelta(days=settings.done_days)
        if is_old or number >= settings.done_entries:
            shutil.rmtree(entry.folder)
            forgotten += 1
    if forgotten:
        Repeats(spool).forget_all_but_known()
    return forgotten
