"""Job files as nobody would write them: bytes by chance, good jobs that were damaged, and grammar run wild."""

import json
from typing import Any

from hypothesis import strategies as st

Dropped = tuple[str, bytes]
"""A suffix, and what a file of that suffix holds."""

GOOD_TOML = (
    b'prompt = "a red circle"\nwidth = 64\nheight = 64\nnum_inference_steps = 2\nend = true\n',
    '# café\nname = "boat"\nprompt = """\na boat,\n  at sea"""\nwidth = 64\nheight = 128\n'
    "num_inference_steps = 2\ntrue_cfg_scale = 1.5\n[output]\nformat = 'jpeg'\nquality = 80\n".encode(),
    b'prompt = "x"\r\nseed = 0x1F\r\npriority = -3\r\nwidth = 64\r\nheight = 64\r\noutput.format = "webp"\r\n',
)
GOOD_JSON = (
    b'{"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2}',
    '{\n  "prompt": "ein Bär \\ud83d\\udc3b",\n  "output": {"format": "jpeg", "quality": 80},\n'
    '  "width": 64, "height": 64, "num_inference_steps": 2, "seed": 7, "negative_prompt": ""\n}\n'.encode(),
)

_LISTED = """name = "all"
id = "7"
[defaults]
width = 64
height = 64
output.format = "webp"
[[jobs]]
prompt = "a"
[[jobs]]
prompt = "b"
seed = 5
[matrix]
num_images = [1, 2]
"""
_CHOICES = """prompt = "a {rot|{blau|grün}} __shape__"
expand = "random"
num_prompts = 3
on_invalid = "skip"
[wildcards]
shape = ["circle", "__more__"]
more = ["star", "{a|b}"]
[matrix]
combine = "zip"
seed = [1, 2]
output.format = ['png', 'jpeg']
"""
GOOD_BATCHES = (
    _LISTED.encode(),
    _CHOICES.encode(),
    b'prompts_from = "list.csv"\nexpand = "all"\n',
    b'prompts = ["a", "{b|c}"]\nexpand = "all"\n',
)

# Marks of both grammars, what parsers stumble over, and what terminals and file systems obey.
ODD_BYTES: tuple[bytes, ...] = (
    b"\0", b"\x1b[2J", b"\x7f", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\xf0\x9f",
    b"\r", b"\n", b"\t", b" ", b'"', b"'", b'"""', b"'''", b"\\", b'\\"', b"\\u", b"\\ud800", b"\\U00110000",
    b"=", b".", b",", b":", b"#", b"//", b"[", b"]", b"[[", b"{", b"}", b"nan", b"-inf", b"1e999", b"-0.0",
    b"9" * 30, b"0x" + b"f" * 80, b"1979-05-27T07:32:00Z", b"true", b"null", b"None", b"..", b"a." * 12,
    "\u202egnp".encode(), "\u2028".encode(), "e\u0301".encode(), "Å".encode(), "🦊".encode(), "“”".encode(),
    "\ufeff".encode(), "\u200b".encode(), "ﷺ".encode(), "\u017f".encode(),
    b"|", b"{a|", b"__a__", b"$$", b"::", b"[[jobs]]\n", b"[matrix]\n", b"{a|b}" * 40, b"expand = ", b", 1" * 99,
    b"prompt", b"image = ", b'"image": "../x.png", ', b"device = ", b"$schema", b"__class__", b"output.",
)  # fmt: skip

MOST = 66_000
"""A little more than a job file may have."""

_places = st.integers(0, 400)


def _flipped(content: bytes, place: int, bit: int) -> bytes:
    if not content:
        return content
    at = place % len(content)
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


@st.composite
def damaged(draw: st.DrawFn, good: tuple[bytes, ...]) -> bytes:
    """Flip bits of a good job, cut it, double parts of it, put odd things into it."""
    content = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(_places) % (len(content) + 1)
        match draw(st.sampled_from(["flip", "cut", "end", "double", "insert"])):
            case "flip":
                content = _flipped(content, at, draw(st.integers(0, 7)))
            case "cut":
                content = content[:at] + content[at + draw(st.integers(1, 20)) :]
            case "end":
                content = content[:at]
            case "double":
                piece = content[at : at + draw(st.integers(1, 60))]
                content = content[:at] + piece * draw(st.sampled_from([2, 3, 40, 2_000])) + content[at:]
            case _:
                times = draw(st.sampled_from([1, 1, 1, 2, 50, 5_000]))
                content = content[:at] + draw(st.sampled_from(ODD_BYTES)) * times + content[at:]
        content = content[:MOST]
    return content


_words = st.sampled_from(
    ["prompt", "seed", "image", "output", "format", "task", "width", "name", "end", "a", "", "é", "promt", "steps"]
) | st.text(max_size=12)
_numbers = st.one_of(
    st.integers().map(str),
    st.integers(1, 5_000).map(lambda digits: "9" * digits),
    st.integers(1, 5_000).map(lambda digits: f"0x{'f' * digits}"),
    st.floats().map(repr),
    st.sampled_from(["1e400", "-1e-400", "1_0", "0o7", "0b1", "01", "+1", "1.", ".5", "NaN", "Infinity", "nan"]),
)
_basic = st.text(max_size=40).map(lambda text: json.dumps(text, ensure_ascii=False))
_atoms = st.one_of(
    _numbers,
    _basic,
    st.text(max_size=40).map(lambda text: f"'{text}'"),
    st.text(max_size=40).map(lambda text: f'"""{text}"""'),
    st.sampled_from(["true", "false", "null", "07:32:00", "1979-05-27", "[]", "{}", ""]),
)
_toml_keys = st.one_of(
    _words,
    _words.map(lambda word: json.dumps(word, ensure_ascii=False)),
    st.lists(st.sampled_from(["a", "b", '"c d"', "output", "''"]), min_size=1, max_size=12).map(".".join),
)


def _nested(opening: str, closing: str) -> st.SearchStrategy[str]:
    return st.tuples(st.integers(1, 1_200), _atoms, st.integers(-2, 2)).map(
        lambda parts: f"{opening * parts[0]}{parts[1]}{closing * max(0, parts[0] + parts[2])}"
    )


_toml_values = st.one_of(
    st.recursive(
        _atoms,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
            st.lists(st.tuples(_toml_keys, inner), max_size=4).map(
                lambda pairs: f"{{{', '.join(f'{key} = {value}' for key, value in pairs)}}}"
            ),
        ),
        max_leaves=8,
    ),
    _nested("[", "]"),
    _nested("{a.a.a.a.a.a.a.a.a = ", "}"),
)
_toml_lines = st.one_of(
    st.tuples(_toml_keys, _toml_values).map(" = ".join),
    _toml_keys.map(lambda key: f"[{key}]"),
    _toml_keys.map(lambda key: f"[[{key}]]"),
    st.text(max_size=20).map(lambda text: f"# {text}"),
)


@st.composite
def _many(draw: st.DrawFn, lines: st.SearchStrategy[str], form: str) -> list[str]:
    """Write a few lines, and perhaps thousands of one form with a number in it."""
    few = draw(st.lists(lines, max_size=8))
    times = draw(st.sampled_from([0, 0, 0, 30, 3_000]))
    return [*few, *(form.format(number) for number in range(times))]


def _wild_toml() -> st.SearchStrategy[str]:
    return st.one_of(
        _many(_toml_lines, "a{} = 1").map("\n".join),
        _many(_toml_lines, "[[a.b{}]]").map("\n".join),
    )


_json_values = st.one_of(
    st.recursive(
        _atoms,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]"),
            st.lists(st.tuples(_basic, inner), max_size=4).map(
                lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
            ),
        ),
        max_leaves=8,
    ),
    _nested("[", "]"),
    _nested('{"a": ', "}"),
)
_json_pairs = st.tuples(_words.map(lambda word: json.dumps(word, ensure_ascii=False)), _json_values).map(": ".join)


def _wild_json() -> st.SearchStrategy[str]:
    inside = _many(_json_pairs, '"a{}": {{}}').map(", ".join)
    return st.one_of(inside.map(lambda pairs: f"{{{pairs}}}"), _json_values)


def _stored(text: str, encoding: str) -> bytes:
    return text.encode(encoding, errors="replace")[:MOST]


_encodings = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])

WILD_TOML: st.SearchStrategy[bytes] = st.one_of(
    damaged(GOOD_TOML), st.builds(_stored, _wild_toml(), _encodings), st.binary(max_size=300), damaged(GOOD_TOML)
)
WILD_JSON: st.SearchStrategy[bytes] = st.one_of(
    damaged(GOOD_JSON), st.builds(_stored, _wild_json(), _encodings), st.binary(max_size=300), damaged(GOOD_JSON)
)
WILD: st.SearchStrategy[Dropped] = st.one_of(
    st.tuples(st.just(".toml"), WILD_TOML), st.tuples(st.just(".json"), WILD_JSON)
)
WILD_BATCHES: st.SearchStrategy[Dropped] = st.tuples(st.just(".toml"), damaged(GOOD_BATCHES))


def deep_and_broad_toml(depth: int) -> bytes:
    """Give a valid file of thousands of keys, each below 9 × depth tables."""
    opening, closing = "a.a.a.a.a.a.a.a.a={" * depth, "}" * depth
    room = (64 * 1024 - len(opening) - len(closing)) // 8
    return f"{opening}{','.join(f'b{number:x}=1' for number in range(room))}{closing}".encode()


def deep_and_broad_json(depth: int) -> bytes:
    """Give a valid file of thousands of keys, each below that many objects."""
    opening, closing = '{"a":' * depth, "}" * depth
    document: dict[str, Any] = {f"{number:x}": 1 for number in range((50_000 - 6 * depth) // 8)}
    return f"{opening}{json.dumps(document, separators=(',', ':'))}{closing}".encode()
