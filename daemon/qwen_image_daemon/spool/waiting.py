"""The order of the queue: an index in memory, rebuilt from the folders, so that a job is read only once."""

from qwen_image_daemon.spool.records import JobRecord
from qwen_image_daemon.spool.spool import Entry, Spool


class WaitingJobs:
    """Queued jobs in the order in which they will be taken: priority first, then arrival."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._records: dict[str, JobRecord] = {}
        self.unreadable: list[Entry] = []
        """Entries whose `job.json` is broken, found by the last refresh."""

    def refresh(self) -> list[JobRecord]:
        """List the queue anew and give all jobs in order."""
        listed = {entry.id: entry for entry in self._spool.entries(self._spool.queue)}
        self.unreadable = []
        self._records = {id_: record for id_, record in self._records.items() if id_ in listed}
        for id_, entry in listed.items():
            if id_ in self._records:
                continue
            try:
                record = entry.record()
                record.to_do()
                self._records[id_] = record
            except FileNotFoundError:
                # Taken by the render loop between the listing and the reading, or truly without job.json.
                if entry.folder.is_dir():
                    self.unreadable.append(entry)
            except (OSError, ValueError):
                self.unreadable.append(entry)
        return sorted(self._records.values(), key=lambda record: (-record.priority, record.sequence, record.id))
