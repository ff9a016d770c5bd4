"""What was dropped, and whether all of it came out: each job once, whole, true, and ended as it had to."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driving import Box
from torture.watcher import RESULT, faults_of, results_in

STATES_THAT_KEEP = frozenset({"done", "state", "control"})
"""Folders of the spool in which something lies when all is done."""
KILLER = "KilledTheRenderer"
"""The kind of error of a job that was set aside: the renderer died with it twice, or the daemon five times."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """One job, as it is handed to the daemon."""

    name: str
    """What goes when it is taken: a job file, a folder or a picture, relative to the inbox."""
    content: bytes
    """The job file as it must come out. No two are equal: by it a job is recognised."""
    status: str = "succeeded"
    """How it must end."""
    images: int = 1
    likeness: str = ""
    """Jobs of one likeness must give the same pictures, byte for byte."""
    files: tuple[tuple[str, bytes], ...] = ()
    """What is dropped, in this order, relative to the inbox. Empty for a job file and nothing else."""
    comes_with_another: bool = False
    """It is one job of a file that is dropped with the first of them."""

    @property
    def sha256(self) -> str:
        """Give the hash by which it is recognised."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Give the files to write."""
        if self.comes_with_another:
            return ()
        return self.files or ((self.name, self.content),)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of everything that was dropped."""

    dropped: int
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    """Results that were, at any moment, visible without being whole and true."""
    wrong: tuple[str, ...] = ()
    """Jobs that ended otherwise than they had to, and pictures that differ from their likes."""
    left: tuple[str, ...] = ()
    """What still lies about where nothing should."""
    set_aside: int = 0
    """Jobs that were given up because kills met them again and again: the protocol's own answer."""
    attempts: int = 0

    @property
    def faults(self) -> list[str]:
        """Give every fault as a sentence."""
        kinds = {
            "lost": self.lost,
            "doubled": self.doubled,
            "torn": self.torn,
            "wrong": self.wrong,
            "left": self.left,
        }
        return [f"{kind}: {what}" for kind, found in kinds.items() for what in found]


@dataclass
class Ledger:
    """The truth about what was dropped, kept outside of the daemon."""

    may_be_set_aside: bool = False
    """Kills meet jobs by chance here: one that is met again and again may be given up."""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    uncertain: set[str] = field(default_factory=set)
    """Drops that had not reached the disk when the power went: they may come out, once, or not."""

    def note(self, drop: Dropped) -> Dropped:
        """Write a drop down, before it is made."""
        assert drop.name not in self.dropped, drop.name
        self.dropped[drop.name] = drop
        return drop

    def out(self, *boxes: Box) -> int:
        """Count the results that are visible."""
        return sum((folder / RESULT).is_file() for box in boxes for folder in _folders(box))

    def verdict(self, boxes: Sequence[Box], torn: Iterable[str] = ()) -> Verdict:
        """Compare what was dropped with what came out of all boxes together."""
        folders = [folder for box in boxes for folder in _folders(box)]
        torn = [*torn, *(fault for folder in folders for fault in faults_of(folder))]
        names = {drop.sha256: name for name, drop in self.dropped.items()}
        results = [result for folder in folders if (result := _Result.read(folder, names)) is not None]
        times = Counter(result.name for result in results)
        wrong = [fault for result in results for fault in self._faults(result)]
        return Verdict(
            dropped=len(self.dropped),
            lost=tuple(name for name in self.dropped if not times[name] and name not in self.uncertain),
            doubled=tuple(f"{name} came out {count} times" for name, count in times.items() if count > 1),
            torn=tuple(torn),
            wrong=(*wrong, *self._unlike(results)),
            left=tuple(left for box in boxes for left in self.left(box)),
            set_aside=sum(result.kind == KILLER for result in results),
            attempts=sum(result.attempts for result in results),
        )

    def _faults(self, result: "_Result") -> Iterator[str]:
        expected = self.dropped.get(result.name)
        if expected is None:
            yield f"{result.name}: nobody dropped a job file like the one that came out"
            return
        if result.name in self.uncertain:
            return
        if self.may_be_set_aside and result.kind == KILLER:
            return
        if result.status != expected.status:
            yield f"{result.name}: {result.status} ({result.kind}), not {expected.status}"
        elif result.status == "succeeded" and len(result.images) != expected.images:
            yield f"{result.name}: {len(result.images)} pictures of {expected.images}"

    def left(self, box: Box) -> list[str]:
        """List what lies where nothing is when all is done."""
        certain = self.dropped.keys() - self.uncertain
        # What was only half there when the power went waits for the rest, and rightly says so.
        rightly = {f"inbox/{name}.waiting.txt" for name in self.uncertain}
        found = [left for left in leftovers(box) if left not in rightly]
        return [*found, *(f"inbox/{name}" for name in certain if (box.inbox / name).exists())]

    def _unlike(self, results: Iterable["_Result"]) -> list[str]:
        pictures: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        for result in results:
            expected = self.dropped.get(result.name)
            if expected is not None and expected.likeness and result.status == "succeeded":
                pictures[expected.likeness][result.images] += 1
        return [
            f"jobs like {likeness}: {len(kinds)} different sets of pictures"
            for likeness, kinds in pictures.items()
            if len(kinds) > 1
        ]


@dataclass(frozen=True, slots=True)
class _Result:
    name: str
    """Of the drop that it came of; of the result's folder where there is none."""
    status: str
    kind: str | None
    images: tuple[str, ...]
    attempts: int

    @classmethod
    def read(cls, folder: Path, names: Mapping[str, str]) -> "_Result | None":
        try:
            content: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
        except (FileNotFoundError, ValueError):
            # Torn, which has been said.
            return None
        digests = {file["path"]: file["sha256"] for file in content["files"]}
        return cls(
            name=names.get(digests.get(content["job_file"], ""), folder.name),
            status=content["status"],
            kind=(content["error"] or {}).get("kind"),
            images=tuple(image["file"]["sha256"] for image in content["images"]),
            attempts=content["attempts"],
        )


def _folders(box: Box) -> list[Path]:
    return sorted(results_in(box.outbox)) if box.outbox.is_dir() else []


def leftovers(box: Box) -> list[str]:
    """List what lies where nothing is when all is done: the spool's states, claims, notes, half-built results."""
    states = [path for path in box.spool.iterdir() if path.is_dir() and path.name not in STATES_THAT_KEEP]
    entries = [path for state in states for path in state.iterdir()]
    half_built = [*box.outbox.glob(".tmp-*"), *box.outbox.glob("*/.tmp-*")]
    claims = [*box.inbox.glob(".claims/*.json"), *box.inbox.glob(".claims/*.breaking")]
    notes = [*box.inbox.rglob("*.waiting.txt")]
    return [str(path.relative_to(box.root)) for path in (*entries, *half_built, *claims, *notes)]
