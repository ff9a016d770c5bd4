"""`ERROR.txt`, `CANCELLED.txt`, `ALREADY-SENT.txt`: what happened and what to do, for who dropped the job."""

from qwen_image_daemon.spool.records import JobRecord, Outcome

ERROR, CANCELLED, DUPLICATE = "ERROR.txt", "CANCELLED.txt", "ALREADY-SENT.txt"


def letter_for(record: JobRecord, outcome: Outcome) -> tuple[str, str]:
    """Write the letter for a job that did not succeed. Gives its file's name, and its text."""
    match outcome.status:
        case "cancelled":
            return CANCELLED, f"{_cancelled(record, outcome)}\n"
        case "duplicate":
            return DUPLICATE, f"{_duplicate(record, outcome)}\n"
        case "refused":
            return ERROR, f"{_refused(record, outcome)}\n"
        case _:
            return ERROR, f"{_failed(record, outcome)}\n"


def _cancelled(record: JobRecord, outcome: Outcome) -> str:
    by = outcome.cancelled_by or "somebody"
    wanted = record.to_do().num_images
    drawn = (
        f"{len(outcome.images)} of its {wanted} pictures were finished before; they are in this folder."
        if outcome.images
        else "None of its pictures was finished."
    )
    return (
        f"{record.name} ({record.source.path}) was cancelled by {by}. {drawn}\n\n"
        "To run it again, move this folder back into the inbox, or say `qwen-image-daemon retry` with its id:\n"
        f"  {record.id}\n"
        "It is then drawn from its first picture."
    )


def _duplicate(record: JobRecord, outcome: Outcome) -> str:
    own = record.requested.id if record.requested else None
    key = own or (record.batch.key if record.batch else None)
    if key is None:
        known_by, cure = "with the same job file and the same pictures", 'set on_exists to "draw"'
    else:
        known_by, cure = f"with the id {key}", "give it another id, or none"
    return (
        f"{record.name} ({record.source.path}) was sent before {known_by}, and was not run again.\n\n"
        f"Its result is, or will be, in the folder whose name ends in {outcome.earlier}.\n"
        f"  To draw it once more, {cure}."
    )


def _refused(record: JobRecord, outcome: Outcome) -> str:
    count = len(outcome.problems)
    number = "one thing is" if count == 1 else f"{count} things are"
    complaints = "\n".join(f"{problem.where}: {problem.what}\n  {problem.fix}" for problem in outcome.problems)
    if record.batch is not None:
        return (
            f"Jobs of {record.source.path} were left out: {number} wrong.\n\n{complaints}\n\n"
            "The others are drawn. This folder's job file holds those that are not: correct it and drop it into "
            "the inbox again, or move this whole folder there."
        )
    return (
        f"{record.source.path} was not run: {number} wrong with it.\n\n{complaints}\n\n"
        "Correct the file and drop it into the inbox again, or move this whole folder there."
    )


def _failed(record: JobRecord, outcome: Outcome) -> str:
    report = outcome.error
    what, fix = (report.what, report.fix) if report else ("No reason is known.", "Look into job.log.")
    tries = "once" if outcome.attempts == 1 else f"{outcome.attempts} times"
    drawn = (
        f"\n{len(outcome.images)} of its pictures were finished; they are in this folder."
        if outcome.images
        else ""
    )
    tried = f"It was tried {tries}." if outcome.attempts else "It was not begun."
    details = "".join(f"  {line}\n" for line in report.details) if report else ""
    known = f"What is known:\n{details}\n" if details else ""
    return (
        f"{record.name} ({record.source.path}) failed. {tried}{drawn}\n\n{what}\n  {fix}\n\n{known}"
        "To try again, move this folder back into the inbox, or say `qwen-image-daemon retry` with its id:\n"
        f"  {record.id}"
    )
