"""What a style makes of a prompt."""
# ruff: noqa: RUF001  Chinese text has Chinese commas

import pytest

from qwen_image_daemon.jobs.styles import PLACEHOLDER, STYLES, Style, fault_of_template, in_style, language_of

MAKERS = STYLES["makers"]


def test_the_makers_suffixes_are_theirs_to_the_letter() -> None:
    assert in_style("A fox in the snow", MAKERS) == "A fox in the snow, Ultra HD, 4K, cinematic composition."
    assert in_style("雪地里的狐狸", MAKERS) == "雪地里的狐狸, 超清，4K，电影级构图."


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("A fox", "en"),
        ("Ein Fuchs, groß wie ein Löwe", "en"),
        ("20 µm, nº 5 👩‍🚀", "en"),
        ("一只狐狸", "zh"),
        ('A sign that says "通义千问"', "zh"),
        ("雪の中の狐", None),
        ("눈 속의 여우", None),
        ("рыжая лиса and a fox", None),
        ("שועל אדום", None),
        ("🦊 2 + 2", None),
    ],
)
def test_the_language_is_told_by_the_script(prompt: str, language: str | None) -> None:
    assert language_of(prompt) == language


@pytest.mark.parametrize("name", STYLES)
def test_every_style_of_ours_speaks_both_languages_and_keeps_the_prompt_whole(name: str) -> None:
    style = STYLES[name]
    for prompt, template in (("A {fox} with {prompt}", style.en), ("一只{狐狸}", style.zh)):
        assert template is not None
        assert fault_of_template(template) is None
        drawn = in_style(prompt, style)
        assert prompt in drawn
        assert len(drawn) > len(prompt)


@pytest.mark.parametrize("end", ["", ".", ". ", "\n", ";"])
def test_two_marks_never_meet_where_the_style_goes_on(end: str) -> None:
    assert in_style(f"a fox{end}", Style(en="{prompt}, 4K")) == "a fox, 4K"


@pytest.mark.parametrize("end", ["!", "?", '."'])
def test_marks_that_say_something_stay(end: str) -> None:
    assert in_style(f"a fox{end}", Style(en="{prompt}, 4K")) == f"a fox{end}, 4K"


def test_a_style_in_one_language_leaves_the_other_alone() -> None:
    assert in_style("a fox.", Style(zh="{prompt}，水彩画")) == "a fox."


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("a fox", "exactly once"),
        (PLACEHOLDER * 2, "exactly once"),
        ("{prompt}\x1b", "control character"),
        ("{prompt}" + "x" * 2_000, "2,000 are allowed"),
    ],
)
def test_templates_that_cannot_be_used_say_why(template: str, fault: str) -> None:
    assert fault in str(fault_of_template(template))
