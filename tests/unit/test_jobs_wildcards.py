"""Prompts with choices: what they stand for, and that nothing written in them costs more than it should."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_image_daemon.jobs.wildcards import MAX_DEPTH, MOST, Lots, Template, TemplateFault, Wildcards

LISTS = {"colour": ["red", "green"], "shape": ["circle", "{small|large} square"], "deep": ["__shape__"]}


def template(text: str) -> Template:
    return Wildcards(LISTS).template(text)


def every(text: str) -> list[str]:
    read = template(text)
    return [read.nth(number) for number in range(read.count)]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("a {red|blue} circle", ["a red circle", "a blue circle"]),
        ("{a|b}{c|d}", ["ac", "ad", "bc", "bd"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("a {|large }cat", ["a cat", "a large cat"]),
        (
            "__colour__ __deep__",
            [f"{c} {s}" for c in ("red", "green") for s in ("circle", "small square", "large square")],
        ),
        # What is no choice is drawn as it is: posters show braces, hash signs and bars.
        ('a sign "#1 {sale} | {0}"', ['a sign "#1 {sale} | {0}"']),
        ("a } b | c", ["a } b | c"]),
        (r"\{a|b\} \__colour__ \\", ["{a|b} __colour__ \\"]),
        ("snake_case __ _x_", ["snake_case __ _x_"]),
        ("{红|蓝} 🦊", ["红 🦊", "蓝 🦊"]),
        ("{{file}|x}", ["{file}", "x"]),
    ],
)
def test_a_prompt_stands_for_each_combination_of_its_choices(text: str, prompts: list[str]) -> None:
    assert every(text) == prompts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a {red|blue", "is not closed"),
        ("a __color__", "there is no list for __color__"),
        ("{2$$a|b}", "picks of several options"),
        ("{0.5::a|b}", "weights (::) are not known"),
        ("{" * (MAX_DEPTH + 1) + "a|b" + "}" * (MAX_DEPTH + 1), "more than 16 deep"),
    ],
)
def test_what_cannot_be_understood_is_said_with_its_cure(text: str, fault: str) -> None:
    with pytest.raises(TemplateFault) as raised:
        template(text)
    assert fault in str(raised.value)
    assert raised.value.fix


def test_lists_that_lead_back_to_themselves_are_refused() -> None:
    lists = {"a": ["__b__"], "b": ["x", "__c__"], "c": ["__a__"]}
    with pytest.raises(TemplateFault, match="__a__ leads to __b__ leads to __c__ leads to __a__"):
        Wildcards(lists).template("__a__")
    deep = {f"d{at}": [f"__d{at + 1}__"] for at in range(MAX_DEPTH + 1)} | {f"d{MAX_DEPTH + 1}": ["x"]}
    with pytest.raises(TemplateFault, match="more than 16 deep"):
        Wildcards(deep).template("__d0__")


@pytest.mark.parametrize(
    "text",
    [
        "{a|b}" * 2_000,
        "{" * 10_000,
        "}" * 10_000,
        "|" * 10_000,
        "{" + "|" * 9_000 + "}",
        "__a" * 3_000,
        "\\" * 10_000,
    ],
)
def test_nothing_that_fits_into_a_prompt_takes_long(text: str) -> None:
    started = time.process_time()
    try:
        read = template(text)
        assert read.count <= MOST
        read.nth(0)
        read.drawn(Lots(1))
    except TemplateFault:
        pass
    assert time.process_time() - started < 2.0


def test_lists_that_multiply_each_other_are_counted_and_not_written_out() -> None:
    lists = {f"d{at}": [f"__d{at + 1}__ __d{at + 1}__"] * 2 for at in range(MAX_DEPTH - 1)} | {"d15": ["x", "y"]}
    read = Wildcards(lists).template("__d0__")
    assert read.count == MOST
    assert read.longest > 10_000


TEXTS = st.text(st.sampled_from("ab{}|_\\ 1$:"), max_size=40) | st.text(max_size=20)


@given(TEXTS)
def test_any_text_is_a_prompt_with_choices_or_is_refused(text: str) -> None:
    try:
        read = template(text)
    except TemplateFault:
        return
    drawn = read.drawn(Lots("seed", 1))
    assert len(drawn) <= read.longest
    if read.count < 100:
        assert drawn in {read.nth(number) for number in range(read.count)}
    if not read.chooses:
        assert read.count == 1


OPTIONS = st.recursive(
    st.sampled_from(["a", "b c", "", "#1"]),
    lambda inner: st.lists(inner, min_size=2, max_size=3).map(lambda options: "{" + "|".join(options) + "}"),
    max_leaves=6,
)


@given(st.lists(OPTIONS, max_size=3).map(" ".join))
@settings(max_examples=200)
def test_the_count_is_that_of_the_prompts_that_are_written_out(text: str) -> None:
    read = template(text)
    texts = [read.nth(number) for number in range(read.count)]
    assert len(texts) == read.count
    assert max(map(len, texts)) == read.longest
    assert all(read.drawn(Lots(number)) in texts for number in range(5))


def test_what_is_drawn_by_lot_is_the_same_everywhere_and_always() -> None:
    read = template("{a|b|c|d|e} {1|2|3|4|5} __colour__")
    assert [read.drawn(Lots("seed", number)) for number in range(4)] == [
        "e 3 green",
        "b 3 red",
        "a 5 green",
        "a 4 red",
    ]
    assert len({read.drawn(Lots("seed", number)) for number in range(200)}) > 40
