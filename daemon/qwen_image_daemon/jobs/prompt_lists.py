"""Lists of prompts beside a job file: a text with one prompt a line, or a table (CSV) whose columns are settings.

Bytes in, rows out, each with its line. Limits are looked at before anything is read.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from qwen_image_daemon.jobs.hints import meant
from qwen_image_daemon.jobs.models import JOB_SPEC
from qwen_image_daemon.jobs.parsing import decoded
from qwen_image_daemon.jobs.problems import Problem
from qwen_image_daemon.jobs.quoting import escaped, quoted

MAX_LIST_BYTES: Final = 1024 * 1024
LIST_SUFFIXES: Final = (".txt", ".csv")
MAX_ROWS: Final = 5_000
"""As many as one file may make jobs."""
MAX_COLUMNS: Final = 64

Scalar = Literal["integer", "number", "boolean", "string"]

_WHOLE: Final = re.compile(r"[+-]?\d{1,20}")
_NUMBER: Final = re.compile(r"[+-]?\d{1,20}([.]\d{1,20})?([eE][+-]?\d{1,3})?")
_DELIMITERS: Final = ";\t,"
_NO_COLUMNS: Final = frozenset({"end"})
"""What a file says of itself, and not of one job."""


@dataclass(frozen=True, slots=True)
class Row:
    """The settings of one job, by their keys, and the line of the list that gives them, counted from 1."""

    line: int
    values: Mapping[tuple[str, ...], Any]


def read_list(content: bytes, filename: str) -> tuple[Row, ...] | Problem:
    """Read a list by its suffix. Never raises for anything a person wrote."""
    shown = escaped(PurePosixPath(filename).name)
    if len(content) > MAX_LIST_BYTES:
        return Problem(shown, f"the list has more than {MAX_LIST_BYTES:,} bytes.", "Split it into several files.")
    text = decoded(content, shown)
    if isinstance(text, Problem):
        return text
    rows = _table(text, shown) if PurePosixPath(filename).suffix.lower() == ".csv" else _lines(text)
    if isinstance(rows, Problem):
        return rows
    if len(rows) > MAX_ROWS:
        what = f"the list makes more than {MAX_ROWS:,} jobs, the most that one file may make."
        return Problem(shown, what, "Split it into several files.")
    return rows or Problem(shown, "the list holds no prompt.", "Write one prompt on each line.")


def _lines(text: str) -> tuple[Row, ...]:
    # Not splitlines(): a prompt may hold the separators that Unicode knows besides.
    numbered = enumerate(re.split(r"\r\n|\r|\n", text), start=1)
    stripped = ((line, words.strip()) for line, words in numbered)
    rows = (
        Row(line, {("prompt",): words.removeprefix("\\") if words.startswith("\\#") else words})
        for line, words in stripped
        if words and not words.startswith("#")
    )
    return tuple(islice(rows, MAX_ROWS + 1))


def _table(text: str, shown: str) -> tuple[Row, ...] | Problem:
    head = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    # Excel writes what its country's settings say: semicolons in Germany.
    delimiter = max(_DELIMITERS, key=head.count)
    records = _records(text, delimiter)
    try:
        line, header = next(records)
        columns = _columns(header, f"{shown}, line {line}")
        if isinstance(columns, Problem):
            return columns
        rows: list[Row] = []
        for line, cells in islice(records, MAX_ROWS + 1):
            if len(cells) > len(columns):
                return Problem(
                    f"{shown}, line {line}",
                    f"it has {len(cells)} columns, and the first line names {len(columns)}.",
                    f"Put a cell that holds {quoted(delimiter)} between quotation marks.",
                )
            values = {
                key: _value(cell.strip(), kind, decimal_comma=delimiter == ";")
                for (key, kind), cell in zip(columns, cells, strict=False)
                if cell.strip()
            }
            rows.append(Row(line, values))
    except StopIteration:
        return ()
    except csv.Error as error:
        return Problem(
            f"{shown}, line {_reached(error)}",
            f"it is no table: {error.__cause__ or error}.",
            "Put a cell that holds commas or quotation marks between quotation marks, and double those in it.",
        )
    return tuple(rows)


class _BadTable(csv.Error):
    """A fault of a table that knows its line."""

    def __init__(self, line: int, cause: csv.Error) -> None:
        super().__init__(str(cause))
        self.line = line


def _reached(error: csv.Error) -> int:
    return error.line if isinstance(error, _BadTable) else 1


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Give the filled records with the line that each begins in. Raises csv.Error."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _BadTable(begins, error) from error
        if any(cell.strip() for cell in cells):
            yield begins, cells


def _columns(header: list[str], where: str) -> list[tuple[tuple[str, ...], Scalar]] | Problem:
    """Give each column's key and type."""
    if len(header) > MAX_COLUMNS:
        return Problem(where, f"it names more than {MAX_COLUMNS} columns.", "A column is a setting of the job.")
    columns: list[tuple[tuple[str, ...], Scalar]] = []
    kinds = scalar_settings()
    for name in (cell.strip() for cell in header):
        key = tuple(name.split("."))
        kind = kinds.get(key)
        if kind is None:
            return Problem(f"{where}: {quoted(name)}", *_no_column(name))
        if any(key == known for known, _ in columns):
            return Problem(f"{where}: {name}", "the column stands twice.", "Keep one.")
        columns.append((key, kind))
    return columns


def _no_column(name: str) -> tuple[str, str]:
    kinds = scalar_settings()
    known = ", ".join(".".join(key) for key in kinds)
    if not name:
        return "a column has no name.", "The first line names a setting of the job for each column."
    similar = meant(name, tuple(".".join(key) for key in kinds))
    if similar is not None:
        return "no such setting.", f"Did you mean {similar}?"
    what = "the first line names the columns, and this is no setting that fits into a cell."
    return what, f"There are: {known}."


def _value(cell: str, kind: Scalar, *, decimal_comma: bool) -> Any:
    """Give a cell as its setting's type. What does not fit stays text, about which the job's check complains."""
    match kind:
        case "integer" if _WHOLE.fullmatch(cell):
            return int(cell)
        case "number":
            plain = cell.replace(",", ".") if decimal_comma else cell
            return float(plain) if _NUMBER.fullmatch(plain) else cell
        case "boolean" if cell.casefold() in {"true", "false"}:
            return cell.casefold() == "true"
        case _:
            return cell


@cache
def scalar_settings() -> Mapping[tuple[str, ...], Scalar]:
    """Give the settings of any kind of job whose value fits into a cell, with the type of each."""
    definitions: Mapping[str, Any] = JOB_SPEC.json_schema()["$defs"]
    found: dict[tuple[str, ...], Scalar] = {}
    for definition in definitions.values():
        if "prompt" not in definition.get("properties", {}):
            continue
        for name, schema in definition["properties"].items():
            if name not in _NO_COLUMNS:
                found |= _scalars((name,), schema, definitions, 2)
    return found


def _scalars(
    key: tuple[str, ...], schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int
) -> dict[tuple[str, ...], Scalar]:
    choices = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    choices = [definitions[way["$ref"].rpartition("/")[2]] if "$ref" in way else way for way in choices]
    for choice in choices:
        kind = choice.get("type")
        if kind in {"integer", "number", "boolean", "string"}:
            return {key: kind}
    found: dict[tuple[str, ...], Scalar] = {}
    if depth > 1:
        for choice in choices:
            for name, inner in choice.get("properties", {}).items():
                found |= _scalars((*key, name), inner, definitions, depth - 1)
    return found
