"""How a job leaves `active`: concluded for good, or back into the queue for later."""

from datetime import UTC, datetime

import structlog

from qwen_image_daemon.logs import job_log
from qwen_image_daemon.spool.control import Controls
from qwen_image_daemon.spool.entry import Entry
from qwen_image_daemon.spool.records import ImageRecord, Outcome
from qwen_image_daemon.spool.spool import Spool

log = structlog.get_logger(__name__)


class Endings:
    """Ends jobs. All that is to be on the disk by then must be there: the saver is its caller's."""

    def __init__(self, spool: Spool, controls: Controls) -> None:
        self._spool = spool
        self._controls = controls

    def succeed(self, entry: Entry, images_wanted: int, outcome: Outcome) -> None:
        """Conclude a job whose pictures were written. Does nothing where a write failed: it is not its end yet."""
        images = _finished(entry)
        if len(images) == images_wanted:
            told = (*outcome.adjustments, *(note for image in images for note in image.adjustments))
            adjustments = tuple(dict.fromkeys(told))
            self.conclude(entry, outcome.model_copy(update={"images": images, "adjustments": adjustments}))

    def cancel(self, entry: Entry) -> None:
        """Conclude a job whose end was asked for, with the pictures that were finished."""
        by = self._controls.cancelled_by(entry.id)
        outcome = Outcome(
            status="cancelled", finished_at=datetime.now(UTC), images=_finished(entry), cancelled_by=by
        )
        self.conclude(entry, outcome)

    def conclude(self, entry: Entry, outcome: Outcome) -> None:
        """Write how a job ended, and move it on."""
        known = {
            "attempts": len(entry.attempts()),
            "started_at": entry.first_attempt_at(),
            "finished_at": datetime.now(UTC),
        }
        with job_log(entry.log_file, entry.id):
            event = f"job.{outcome.status}"
            log.info(event, images=len(outcome.images), attempts=known["attempts"])
        self._spool.finish(entry, outcome.model_copy(update=known))
        # It may have come too late; it is over either way.
        self._controls.forget_cancel(entry.id)

    def put_back_all(self, how: str | None) -> list[Entry]:
        """Queue again what is in `active`, and move on what was concluded there. Gives what was queued.

        `how` ended their attempts; None leaves the marks as they are, for jobs whose process died.
        """
        queued: list[Entry] = []
        for entry in self._spool.entries(self._spool.active):
            if entry.is_concluded():
                self._spool.release(entry)
                self._controls.forget_cancel(entry.id)
                continue
            if how is not None:
                entry.end_last_attempt(how)
            queued.append(self._spool.put_back(entry))
            log.info("job.put_back", id=entry.id)
        return queued


def _finished(entry: Entry) -> tuple[ImageRecord, ...]:
    images = entry.finished_images()
    return tuple(images[index] for index in sorted(images))
