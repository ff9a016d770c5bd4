"""Lists of prompts as people's programs write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_image_daemon.jobs.problems import Problem
from qwen_image_daemon.jobs.prompt_lists import MAX_LIST_BYTES, MAX_ROWS, Row, read_list, scalar_settings


def rows(content: str | bytes, name: str = "list.csv") -> list[tuple[int, dict[str, object]]]:
    read = read_list(content.encode() if isinstance(content, str) else content, name)
    assert not isinstance(read, Problem), str(read)
    return [(row.line, {".".join(key): value for key, value in row.values.items()}) for row in read]


def problem(content: str | bytes, name: str = "list.csv") -> str:
    read = read_list(content.encode() if isinstance(content, str) else content, name)
    assert isinstance(read, Problem)
    return str(read)


def test_a_text_has_a_prompt_on_each_line() -> None:
    text = "\ufeff# prompts\r\na red circle \r\n\r\n\\#1, a poster\r\n红色圆形\u2028still the same line"
    assert rows(text, "list.txt") == [
        (2, {"prompt": "a red circle"}),
        (4, {"prompt": "#1, a poster"}),
        (5, {"prompt": "红色圆形\u2028still the same line"}),
    ]


def test_a_table_names_its_settings_and_an_empty_cell_says_nothing() -> None:
    text = 'prompt,seed,true_cfg_scale,output.format\n"a circle, ""red""",7,4.5,webp\na star,,,\n,,,\n'
    assert rows(text) == [
        (2, {"prompt": 'a circle, "red"', "seed": 7, "true_cfg_scale": 4.5, "output.format": "webp"}),
        (3, {"prompt": "a star"}),
    ]


def test_excels_semicolons_decimal_commas_and_byte_order_mark_are_understood() -> None:
    text = '\ufeffprompt;strength;seed\r\n"zwei\nZeilen; mit Strichpunkt";0,8;5\r\nein Stern;0.5;\r\n'
    assert rows(text) == [
        (2, {"prompt": "zwei\nZeilen; mit Strichpunkt", "strength": 0.8, "seed": 5}),
        (4, {"prompt": "ein Stern", "strength": 0.5}),
    ]


def test_a_table_of_prompts_alone_needs_no_quotation_marks() -> None:
    assert rows("prompt\na circle, red\n") == [(2, {"prompt": "a circle, red"})]


def test_tabs_are_fine_too() -> None:
    assert rows("prompt\tseed\na, b; c\t1\n") == [(2, {"prompt": "a, b; c", "seed": 1})]


def test_what_does_not_fit_a_settings_type_stays_text_for_the_check_to_complain_about() -> None:
    assert rows("seed,true_cfg_scale\nfive,1e\n")[0][1] == {"seed": "five", "true_cfg_scale": "1e"}


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("", "list.csv:", "holds no prompt"),
        ("prompt\n", "list.csv:", "holds no prompt"),
        ("prompt,sed\nx,1", 'list.csv, line 1: "sed"', "Did you mean seed?"),
        ("a red circle, a blue star\n", "list.csv, line 1", "There are: "),
        ("prompt,\nx,y", "list.csv, line 1", "a column has no name"),
        ("prompt,prompt\nx,y", "list.csv, line 1: prompt", "twice"),
        ("prompt,seed\n\nx,1,2", "list.csv, line 3", "3 columns"),
        ('prompt\nx\n"y', "list.csv, line 3", "no table"),
        ("prompt\nä".encode("cp1252"), "list.csv, line 2", "would be ä"),
        ("prompt\nä".encode("utf-16"), "list.csv", "UTF-16"),
        (",".join(["a"] * 100), "list.csv, line 1", "more than 64 columns"),
        ("prompt\n" + "x\n" * (MAX_ROWS + 1), "list.csv", "more than 5,000 jobs"),
        ("x" * (MAX_LIST_BYTES + 1), "list.csv", "more than 1,048,576 bytes"),
    ],
)
def test_a_table_that_is_none_is_refused_with_line_and_cure(content: str | bytes, where: str, what: str) -> None:
    said = problem(content)
    assert said.startswith(where)
    assert what in said


def test_tables_know_every_setting_that_fits_into_a_cell() -> None:
    known = scalar_settings()
    assert known["seed",] == "integer"
    assert known["strength",] == "number"
    assert known["prompt",] == known["preset",] == known["output", "name"] == "string"
    assert ("end",) not in known


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["a.csv", "a.txt"]))
def test_any_bytes_are_a_list_or_are_refused(content: bytes, name: str) -> None:
    read = read_list(content, name)
    if isinstance(read, Problem):
        assert read.where
        assert read.what
        assert read.fix
    else:
        assert all(isinstance(row, Row) and row.values for row in read)
        assert [row.line for row in read] == sorted({row.line for row in read})


CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


@given(st.lists(CELLS, min_size=1, max_size=8), st.sampled_from(",;\t"))
def test_every_quoted_cell_comes_back_as_it_was_written(prompts: list[str], delimiter: str) -> None:
    quoted = ['"' + prompt.replace('"', '""') + '"' for prompt in prompts]
    text = "".join(f"{delimiter.join(pair)}\n" for pair in [("prompt", "seed"), *((cell, "1") for cell in quoted)])
    assert [row[1]["prompt"] for row in rows(text)] == prompts
