"""A process that looks at an outbox all the time: every result that can be seen must be whole at first sight.

usage: python watcher.py OUTBOX REPORT, until SIGTERM; REPORT then holds one JSON line.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

RESULT = "result.json"
_GLANCE_SECONDS = 0.005
_ID = re.compile(r"-\d{8}-\d{6}-\d{3}-[0-9a-f]{6}$")


def faults_of(folder: Path) -> list[str]:
    """Say what a visible result folder lacks: it must hold what `result.json` names, and no more."""
    try:
        result = json.loads((folder / RESULT).read_bytes())
    except FileNotFoundError:
        return [f"{folder.name}: visible without {RESULT}"]
    except ValueError:
        return [f"{folder.name}: {RESULT} is cut short"]
    named = {file["path"]: file["sha256"] for file in result["files"]}
    named |= {image["file"]["path"]: image["file"]["sha256"] for image in result["images"]}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {RESULT}
    torn = [f"{folder.name}: {path} is missing" for path in named.keys() - present]
    torn += [f"{folder.name}: {path} is not in {RESULT}" for path in present - named.keys()]
    for path in named.keys() & present:
        if hashlib.sha256((folder / path).read_bytes()).hexdigest() != named[path]:
            torn.append(f"{folder.name}: {path} is not what {RESULT} says")
    return torn


def result_folders(folder: Path, known: Collection[Path] = ()) -> Iterator[Path]:
    """Give the result folders below a folder: those that hold files. Those that are known are not looked into."""
    with os.scandir(folder) as items:
        visible = [item for item in items if not item.name.startswith(".")]
    folders = [item for item in visible if item.is_dir()]
    # The results of one file lie together, and it beside them.
    is_batch = any(_ID.search(item.name) for item in folders) and RESULT not in {item.name for item in visible}
    if len(folders) < len(visible) and not is_batch:
        yield folder
        return
    for item in folders:
        path = Path(item.path)
        if path in known:
            yield path
        else:
            yield from result_folders(path, known)


def results_in(outbox: Path, known: Collection[Path] = ()) -> Iterator[Path]:
    """Give the result folders of an outbox. What lies in the outbox itself is no result."""
    with os.scandir(outbox) as items:
        shelves = [Path(item.path) for item in items if item.is_dir() and not item.name.startswith(".")]
    for shelf in shelves:
        yield from result_folders(shelf, known)


class Watch:
    """What one watcher has seen of one outbox."""

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self._known: set[Path] = set()
        self.torn: list[str] = []
        self.looks = 0

    def look(self) -> None:
        """List the outbox, and check each result that was not there before."""
        self.looks += 1
        try:
            for folder in set(results_in(self._outbox, self._known)) - self._known:
                self.torn += faults_of(folder)
                self._known.add(folder)
        except OSError:
            # The outbox itself is away, or goes away while we look.
            return

    @property
    def seen(self) -> int:
        """Count the results that were seen."""
        return len(self._known)


class Watcher:
    """A watcher process, from the side of the one who started it."""

    def __init__(self) -> None:
        self.torn: list[str] = []
        self.seen = 0
        self.looks = 0

    @contextmanager
    def watching(self, outbox: Path, report: Path) -> Iterator["Watcher"]:
        """Watch for the block; the report is there after it."""
        process = subprocess.Popen([sys.executable, __file__, str(outbox), str(report)])
        try:
            yield self
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            said = json.loads(report.read_bytes())
            self.torn, self.seen, self.looks = said["torn"], said["seen"], said["looks"]


def main() -> None:
    """Watch until SIGTERM, then report."""
    outbox, report = map(Path, sys.argv[1:])
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    watch = Watch(outbox)
    while not ending:
        watch.look()
        time.sleep(_GLANCE_SECONDS)
    watch.look()
    report.write_text(json.dumps({"torn": watch.torn, "seen": watch.seen, "looks": watch.looks}))


if __name__ == "__main__":
    main()
