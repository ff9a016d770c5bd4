import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_image_daemon.jobs.locating import MAX_DEPTH, Position, positions

KEYS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029"), min_size=1, max_size=8
)
SCALARS = st.integers(-5, 10**9) | st.booleans() | st.text(st.sampled_from("ab =[]{}.#,:'é界🦊"), max_size=12)
BETWEEN = st.lists(st.sampled_from(["", "# seed = 1", "   ", '# "', "# '''"]), max_size=3)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other things."""


@PATIENTLY
@given(
    st.lists(st.tuples(KEYS, SCALARS, BETWEEN), unique_by=lambda entry: entry[0], max_size=8),
    st.sampled_from(["\n", "\r\n"]),
)
def test_every_key_of_a_toml_file_is_found_in_its_line(
    entries: list[tuple[str, object, list[str]]], line_end: str
) -> None:
    lines: list[str] = []
    expected: dict[str, int] = {}
    for number, (key, value, between) in enumerate(entries):
        lines += between
        expected[key] = len(lines) + 1
        if isinstance(value, str) and number % 2:
            lines += [f'{quoted(key)} = """', "seed = 1", '[seed] "', f'{value}"""']
        else:
            lines.append(f"{quoted(key)} = {json.dumps(value, ensure_ascii=False)}  # {key}")
    found = positions(line_end.join(lines), "toml")
    assert {path: [place.line for place in places] for path, places in found.items()} == {
        (key,): [line] for key, line in expected.items()
    }


@PATIENTLY
@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)))
def test_every_key_of_a_json_file_is_found_in_its_line(value: object) -> None:
    text = json.dumps({"top": value}, indent=1, ensure_ascii=False)
    found = positions(text, "json")
    expected: set[tuple[str | int, ...]] = set()

    def collect(below: object, path: tuple[str | int, ...]) -> None:
        if isinstance(below, dict):
            for key, inner in below.items():
                expected.add((*path, key))
                collect(inner, (*path, key))
        if isinstance(below, list):
            for place, inner in enumerate(below):
                collect(inner, (*path, place))

    collect({"top": value}, ())
    assert set(found) == expected
    lines = text.split("\n")
    for path, (place,) in found.items():
        assert lines[place.line - 1].lstrip().startswith(f"{quoted(str(path[-1]))}: ")


def test_keys_in_tables_of_all_notations_are_found() -> None:
    text = """\
[output]
format = "png"
[a.'b c']
d.e = 1
inline = { x = 1, y.z = [ { q = 1 } ] }
[[list]]
k = 1
[[list]]
k = 2
[list.sub]
deep = 1
"""
    found = {path: places[0].line for path, places in positions(text, "toml").items()}
    assert found[("output",)] == 1
    assert found[("output", "format")] == 2
    assert found[("a", "b c")] == 3
    assert found[("a", "b c", "d", "e")] == 4
    assert found[("a", "b c", "inline", "y", "z", 0, "q")] == 5
    assert found[("list", 0, "k")] == 7
    assert found[("list", 1, "k")] == 9
    assert found[("list", 1, "sub", "deep")] == 11


def test_a_key_that_stands_twice_is_found_twice() -> None:
    assert positions('{"a": 1, "b": NaN,\n "\\u0061": -Infinity}', "json")[("a",)] == [
        Position(1, 2),
        Position(2, 2),
    ]


@PATIENTLY
@given(st.text(), st.sampled_from(["toml", "json"]))
def test_garbage_has_no_keys_or_some_and_never_an_error(text: str, syntax: str) -> None:
    for places in positions(text, "toml" if syntax == "toml" else "json").values():
        assert all(1 <= place.line <= text.count("\n") + 1 for place in places)


def test_keys_are_looked_for_to_a_depth_and_those_beside_them_are_found() -> None:
    deep = '{"a": ' * 2 * MAX_DEPTH + "1" + "}" * 2 * MAX_DEPTH
    assert set(positions(f'{{"first": {deep}, "last": 1}}', "json")) == {
        ("first", *"a" * length) for length in range(MAX_DEPTH)
    } | {("last",)}
    deep = "{a.a.a = " * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    found = positions(f"first = {deep}\nlast = 1", "toml")
    assert found[("last",)] == [Position(2, 1)]
    assert max(map(len, found)) <= MAX_DEPTH + 3
