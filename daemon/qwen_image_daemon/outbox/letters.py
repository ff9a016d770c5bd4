"""`ERROR.txt`: what went wrong and what to do, for the person who dropped the job."""

from qwen_image_daemon.spool.records import JobRecord, Outcome

ERROR = "ERROR.txt"


def error_letter(record: JobRecord, outcome: Outcome) -> str:
    """Write the letter for a job that was refused or failed."""
    if outcome.status == "duplicate":
        return f"{_duplicate(record, outcome)}\n"
    return f"{_refused(record, outcome) if outcome.status == 'refused' else _failed(record, outcome)}\n"


def _duplicate(record: JobRecord, outcome: Outcome) -> str:
    key = record.requested.id if record.requested else None
    return (
        f"{record.name} ({record.source.path}) was sent before with the id {key}, and was not run again.\n\n"
        f"Its result is, or will be, in the folder whose name ends in {outcome.earlier}.\n"
        "  To draw it once more, give it another id, or none."
    )


def _refused(record: JobRecord, outcome: Outcome) -> str:
    count = len(outcome.problems)
    number = "one thing is" if count == 1 else f"{count} things are"
    complaints = "\n".join(f"{problem.where}: {problem.what}\n  {problem.fix}" for problem in outcome.problems)
    return (
        f"{record.source.path} was not run: {number} wrong with it.\n\n{complaints}\n\n"
        "Correct the file and drop it into the inbox again."
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
    return (
        f"{record.name} ({record.source.path}) failed. {tried}{drawn}\n\n{what}\n  {fix}\n\n"
        "To try again, copy the job file and its pictures from this folder back into the inbox."
    )
