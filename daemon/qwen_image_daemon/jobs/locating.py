"""Where a key stands in a TOML or JSON text, for complaints. Neither parser keeps positions; tree-sitter does.

Finds what a parser has accepted. For other texts the answer may lack keys, but nothing is raised.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import tomli
import tree_sitter_json
import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from qwen_image_daemon.jobs.problems import KeyPath
from qwen_image_daemon.jobs.quoting import without_surrogates

MAX_DEPTH = 32
"""How far down keys are looked for. No setting lies deeper than two, and each key costs its way's length: 61 KB of
keys below 3,600 tables took 258 MB."""


class Position(NamedTuple):
    """Line and column of a key, both counted from 1. The column counts bytes; it only gives order."""

    line: int
    column: int


def positions(text: str, syntax: Literal["toml", "json"]) -> Mapping[KeyPath, list[Position]]:
    """Give the places of every key down to MAX_DEPTH, in the order of the text.

    A table stands where it is first named.
    """
    language = tree_sitter_toml.language() if syntax == "toml" else tree_sitter_json.language()
    source = text if syntax == "toml" else _with_plain_numbers(text)
    tree = Parser(Language(language)).parse(source.encode(errors="replace"))
    found: dict[KeyPath, list[Position]] = defaultdict(list)
    for path, place in _toml_keys(tree.root_node) if syntax == "toml" else _json_keys(tree.root_node):
        found[path].append(place)
    return found


# Python's JSON parser accepts NaN and Infinity; the grammar does not. Numbers of the same length keep all places.
_JSON_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b', re.DOTALL)


def _with_plain_numbers(text: str) -> str:
    return _JSON_STRING_OR_CONSTANT.sub(
        lambda token: token[0] if token[0][0] == '"' else "1" * len(token[0]), text
    )


def _place(node: Node) -> Position:
    return Position(node.start_point.row + 1, node.start_point.column + 1)


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def _json_keys(root: Node) -> Iterator[tuple[KeyPath, Position]]:
    """Walk without recursion: depth is the author's choice."""
    waiting: list[tuple[Node, KeyPath]] = [(root, ())]
    while waiting:
        node, path = waiting.pop()
        below = list(enumerate(node.named_children))
        if node.type == "pair":
            key = node.child_by_field_name("key")
            value = node.child_by_field_name("value")
            name = _json_name(key)
            if key is None or name is None:
                continue
            path = (*path, name)
            yield path, _place(key)
            below = [] if value is None else [(0, value)]
        if len(path) >= MAX_DEPTH:
            continue
        numbered = node.type == "array"
        waiting.extend((child, (*path, place) if numbered else path) for place, child in reversed(below))


def _json_name(key: Node | None) -> str | None:
    if key is None:
        return None
    try:
        name = json.loads(_text(key), strict=False)
    except ValueError:
        return None
    return without_surrogates(name) if isinstance(name, str) else None


def _toml_keys(root: Node) -> Iterator[tuple[KeyPath, Position]]:
    """Walk without recursion. Tables and dotted keys name all the tables on their way."""
    lists: dict[KeyPath, int] = defaultdict(int)
    waiting: list[tuple[Node, KeyPath]] = [(root, ())]
    named: set[KeyPath] = set()
    while waiting:
        node, path = waiting.pop()
        children = list(node.named_children)
        if node.type in {"pair", "table", "table_array_element"}:
            if not children:
                continue
            key = children.pop(0)
            parts = _toml_name(key)
            if parts is None:
                continue
            for path in _way(path, parts, lists, adds=node.type == "table_array_element"):  # noqa: B020  goes on from it
                if path not in named:
                    named.add(path)
                    yield path, _place(key)
        if len(path) >= MAX_DEPTH:
            continue
        numbered = node.type == "array"
        waiting.extend(
            (child, (*path, place) if numbered else path) for place, child in reversed(list(enumerate(children)))
        )


def _way(path: KeyPath, parts: tuple[str, ...], lists: dict[KeyPath, int], *, adds: bool) -> Iterator[KeyPath]:
    """Give every key on the way from a table to the one that these parts name, which comes last.

    A [[header]] adds an entry to a list: it stands for the list, if it is the first, and for its own entry.
    """
    *above, last = parts
    for part in above:
        path = _latest((*path, part), lists)
        yield path
    path = (*path, last)
    if adds:
        yield path
        lists[path] += 1
    yield _latest(path, lists)


def _latest(path: KeyPath, lists: Mapping[KeyPath, int]) -> KeyPath:
    return (*path, lists[path] - 1) if path in lists else path


def _toml_name(key: Node) -> tuple[str, ...] | None:
    """Read `a."b c".d` as its parts."""
    try:
        nested: object = tomli.loads(f"{_text(key)} = 0")
    except (ValueError, RecursionError):
        return None
    parts = []
    while isinstance(nested, dict) and nested:
        name, nested = next(iter(nested.items()))
        parts.append(name)
    return tuple(parts)
