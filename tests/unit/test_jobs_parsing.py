import time

import pytest

from qwen_image_daemon.jobs.parsing import MAX_JOB_BYTES, Document, parse
from qwen_image_daemon.jobs.problems import Problem


def problem_of(content: str | bytes, filename: str) -> Problem:
    problem = parse(content.encode() if isinstance(content, str) else content, filename)
    assert isinstance(problem, Problem)
    return problem


def document_of(content: str, filename: str) -> Document:
    document = parse(content.encode(), filename)
    assert isinstance(document, Document)
    return document


@pytest.mark.parametrize(
    ("content", "where", "what", "fix"),
    [
        ('a = 1\nb = "C:\\Users\\x"', ", line 2, column 10", "a backslash", "single quotes ('C:\\Users')"),
        ('b = "C:\\photos"', ", line 1, column 10", "a backslash", '"C:/Users"'),
        ("a = ", ", line 1, column 5", "a value is missing", "or take the line out"),
        ("a = # later", ", line 1, column 5", "a value is missing", "or take the line out"),
        ("a = a red fox", ", line 1, column 5", "without quotation marks", '"a red fox"'),
        ("a = True", ", line 1, column 5", "True is no value in TOML", "Write true."),
        ("a = no", ", line 1, column 5", "no is no value in TOML", "Write false."),
        ("a = None", ", line 1, column 5", "None is no value in TOML", "Leave the setting out."),
        ("a = “x”", ", line 1, column 5", "typographic", "straight ones"),
        ("a = 1\na = 2", ", line 2, column 6", "a second time", "Keep one"),
        ("[a]\n[a]", ", line 2, column 3", "a second time", "Keep one"),
        ('a = "x\n', ", line 1, column 7", "not closed in its line", "three quotation marks"),
        ('a = """x\n', ", line 2, column 1", "not closed", "at its end"),
        ("a = 'x", ", line 1, column 7", "not closed", "at its end"),
        ('a = "\x07"', ", line 1, column 6", "a control character", "Take it out."),
        ("a: 1", ", line 1, column 2", "an equals sign is missing", "name = value"),
        ('a = "x" "y"', ", line 1, column 9", "something stands behind", "backslash before it"),
        ("= 1", ", line 1, column 1", "this is no setting", "name = value"),
        ("a = [1", ", line 1, column 7", "", ""),
        ("a.b.c.d.e.f.g.h.i = 1", "", "", None),
        ("\na.b.c.d.e.f.g.h.i.j = 1", ", line 2", "more than 8 dots", "Take the line out"),
        ('[a."b".c.d.e.f.g.h.i.j]', ", line 1", "more than 8 dots", "Take the line out"),
        ("a = " + "[" * 1000, "", "nested too deeply", "a flat list"),
        ("a = " + "1" * 5000, "", "thousands of digits", "Shorten it"),
        (" \n", "", "the file is empty", 'prompt = "'),
    ],
)
def test_broken_toml_is_explained(content: str, where: str, what: str, fix: str | None) -> None:
    if fix is None:
        document_of(content, "job.toml")
        return
    problem = problem_of(content, "job.toml")
    assert problem.where == f"job.toml{where}"
    assert what in problem.what
    assert fix in problem.fix


@pytest.mark.parametrize(
    ("content", "where", "what", "fix"),
    [
        ('{"a": 1,\n}', ", line 1, column 8", "no comma after the last entry", "Take the comma out."),
        ('{"a": [1,]}', ", line 1, column 9", "no comma after the last entry", "Take the comma out."),
        ('{\n  // c\n"a": 1}', ", line 2, column 3", "no comments", "as TOML"),
        ('{"a": 1 # c\n}', ", line 1, column 9", "no comments", "as TOML"),
        ("{'a': 1}", ", line 1, column 2", "double quotation marks", "instead of"),
        ("{\"a\": 'x'}", ", line 1, column 7", "double quotation marks", "instead of"),
        ('{“a”: "x"}', ", line 1, column 2", "typographic", "straight ones"),
        ("{a: 1}", ", line 1, column 2", "double quotation marks", '{"prompt"'),
        ('{"a": 1 "b": 2}', ", line 1, column 9", "a comma is missing", "Put a comma"),
        ('{"a" 1}', ", line 1, column 6", "a colon is missing", '"name": value'),
        ('{"a": 1', ", line 1, column 8", "ends in the middle", "Complete it"),
        ('{"a": "x', ", line 1, column 7", "not closed", 'Put " at its end'),
        ('{"a": "x\ny"}', ", line 1, column 9", "a line break", "Write \\n"),
        ('{"a": "C:\\Users"}', ", line 1, column 10", "a backslash", '"C:\\\\Users"'),
        ('{"a": True}', ", line 1, column 7", "True is no value in JSON", "Write true."),
        ('{"a": None}', ", line 1, column 7", "None is no value in JSON", "Leave the setting out."),
        ('{"a": fox}', ", line 1, column 7", "without quotation marks", "double quotation marks"),
        ('{"a": =}', ", line 1, column 7", "no valid JSON", '{"name": value'),
        ('{"a": 1} {}', ", line 1, column 10", "goes on after", "one job"),
        ("[1]", "", "a job is a JSON object", "Put braces"),
        ('{"a": ' * 2000, "", "nested too deeply", "a flat list"),
        ('{"a": ' + "1" * 5000 + "}", "", "thousands of digits", "Shorten it"),
        ("", "", "the file is empty", '{"prompt"'),
    ],
)
def test_broken_json_is_explained(content: str, where: str, what: str, fix: str) -> None:
    problem = problem_of(content, "job.json")
    assert problem.where == f"job.json{where}"
    assert what in problem.what
    assert fix in problem.fix


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_recognised(encoding: str) -> None:
    assert "UTF-16" in problem_of('prompt = "x"'.encode(encoding), "job.toml").what


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_another_encoding_is_named_with_its_line_and_byte(mark: bytes) -> None:
    problem = problem_of(mark + b'a = 1\r\nprompt = "gr\xfcn"', "job.toml")
    assert problem.where == "job.toml, line 2"
    assert problem.what == f"byte {20 + len(mark)} of the file (0xfc) is not UTF-8."
    assert problem.fix.endswith("this byte would be ü.")


def test_a_zero_byte_says_that_the_file_is_damaged() -> None:
    problem = problem_of(b'prompt = "x"\nname = "y\0"', "job.toml")
    assert problem.where == "job.toml, line 2"
    assert "byte 23 of the file is zero" in problem.what


def test_a_file_of_zeros_as_a_preallocating_client_leaves_it_is_refused() -> None:
    problem_of(b"\0" * 500, "job.toml")


def test_a_file_that_is_too_large_is_not_read() -> None:
    assert "65,537 bytes" in problem_of(b"#" * (MAX_JOB_BYTES + 1), "job.toml").what
    assert "empty" not in problem_of(b"#" * MAX_JOB_BYTES + b"\n", "job.toml").what


@pytest.mark.parametrize("filename", ["job.yaml", "job", "toml", ".toml"])
def test_only_toml_and_json_are_job_files(filename: str) -> None:
    assert ".toml or .json" in problem_of("a = 1", filename).what


def test_the_suffix_counts_without_case() -> None:
    assert document_of("a = 1", "A.Toml").syntax == "toml"
    assert document_of('{"a": 1}', "A.JSON").syntax == "json"


def test_dots_in_prompts_and_comments_are_no_dots_in_keys() -> None:
    dots = "." * 30
    text = "\n".join(
        [
            f'a = "{dots} = {dots}"',
            f"b = '{dots}'  # {dots}",
            f'c = """\n{dots} = ["{dots}\\""""',
            f"d = '''\n{dots}'''",
        ]
    )
    assert set(document_of(text, "job.toml").values) == {"a", "b", "c", "d"}
    assert "not closed" in problem_of(f'a = "{dots}\n', "job.toml").what


def test_a_key_that_stands_twice_in_json_is_a_fault_of_a_readable_document() -> None:
    document = document_of('{"a": 1,\n"b": {"c": 1, "c": 2},\n"a": 3,\n"a": 4}', "job.json")
    assert [(fault.path, fault.occurrence) for fault in document.faults] == [
        (("a",), 1),
        (("a",), 2),
        (("b", "c"), 1),
    ]


def test_half_characters_in_json_are_found_and_replaced() -> None:
    document = document_of(r'{"a": "x\ud800", "b": ["\udfff"], "\udc00": 1, "c": "\ud83e\udd8a"}', "job.json")
    assert document.values == {"a": "x\ufffd", "b": ["\ufffd"], "\ufffd": 1, "c": "🦊"}
    assert [fault.path for fault in document.faults] == [("a",), ("b", 0), ("\ufffd",)]


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("dots.toml", "a." * 20_000 + "a = 1"),
        ("quotes.toml", 'a = "' + '\\"' * 30_000),
        ("triple.toml", '"""' * 20_000),
        ("tables.toml", "\n".join(f"[a{number}]" for number in range(8_000))),
        ("keys.toml", "\n".join(f"a{number}=1" for number in range(7_000))),
        ("brackets.toml", "a=" + "[" * 60_000),
        ("doubled.json", "{" + ",".join('"a":1' for _ in range(9_000)) + "}"),
        ("braces.json", '{"a":' * 12_000),
    ],
)
def test_a_hostile_file_costs_little_time(filename: str, content: str) -> None:
    before = time.process_time()
    parse(content.encode(), filename)
    assert time.process_time() - before < 1.0
