"""Which library makes which format, and what is said where none does."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from qwen_image_daemon.render.plans import PLAN_OF, PLANS
from qwen_image_daemon.render.quantisers import (
    EXTRAS,
    QUANTISERS,
    Format,
    Library,
    Maker,
    formats_at_hand,
    how_to_install,
    makers_at_hand,
    refuse_lacking,
    refuse_lacking_makers,
)
from qwen_image_daemon.render.remembered import Learned
from qwen_image_daemon.render.renderer import ModelUnavailable
from qwen_image_daemon.settings import PlanName, QuantiserSettings, Settings, load_settings

NOTHING: frozenset[Library] = frozenset()
EVERYTHING: frozenset[Library] = frozenset(EXTRAS)


@pytest.mark.parametrize(
    ("installed", "makers"),
    [
        ((), {"float8": "torch"}),
        (("gguf",), {"float8": "torch"}),
        (("torchao",), {"int8": "torchao", "float8": "torch"}),
        (("bitsandbytes",), {"int8": "bitsandbytes", "float8": "torch", "nf4": "bitsandbytes"}),
        (("torchao", "bitsandbytes"), {"int8": "torchao", "float8": "torch", "nf4": "bitsandbytes"}),
        (("sdnq",), {"int8": "sdnq", "uint6": "sdnq", "float8": "torch", "uint4": "sdnq"}),
        (
            ("sdnq", "torchao", "bitsandbytes"),
            {"int8": "sdnq", "uint6": "sdnq", "float8": "torch", "uint4": "sdnq", "nf4": "bitsandbytes"},
        ),
    ],
)
def test_each_format_is_made_by_the_first_of_its_makers_that_is_installed(
    installed: tuple[Library, ...], makers: dict[Format, Maker]
) -> None:
    assert makers_at_hand(installed=frozenset(installed)) == makers
    assert formats_at_hand(frozenset(installed)) == makers.keys()


def test_the_settings_choose_where_several_are_installed() -> None:
    chosen = QuantiserSettings(int8="bitsandbytes", float8="torchao")

    refuse_lacking_makers(chosen, EVERYTHING)
    makers = makers_at_hand(chosen, EVERYTHING)

    assert (makers["int8"], makers["float8"], makers["uint6"]) == ("bitsandbytes", "torchao", "sdnq")


@pytest.mark.parametrize(
    ("chosen", "library", "extra"),
    [
        (QuantiserSettings(int8="torchao"), "torchao", "int8"),
        (QuantiserSettings(int8="bitsandbytes"), "bitsandbytes", "nf4"),
        (QuantiserSettings(int8="sdnq"), "sdnq", "sdnq"),
    ],
)
def test_a_chosen_library_that_is_not_installed_is_refused_and_nobody_else_takes_its_place(
    chosen: QuantiserSettings, library: Library, extra: str
) -> None:
    there = EVERYTHING - {library}

    assert "int8" not in makers_at_hand(chosen, there)
    with pytest.raises(ModelUnavailable) as refused:
        refuse_lacking_makers(chosen, there)
    assert str(refused.value) == f'render.quantisers.int8 = "{library}" needs {library}, which is not installed.'
    assert f"pip install 'qwen-image-daemon[{extra}]'." in refused.value.fix
    assert refused.value.fix.endswith('Or set it to "auto".')


def test_an_arrangement_whose_format_nothing_installed_makes_is_refused_with_all_that_would_make_it() -> None:
    refuse_lacking("as loaded", 'render.placement = "resident"', NOTHING)
    refuse_lacking("float8", 'render.placement = "float8"', NOTHING)
    refuse_lacking("int8", 'render.placement = "int8"', frozenset({"bitsandbytes"}))
    with pytest.raises(ModelUnavailable) as refused:
        refuse_lacking("int8", 'render.placement = "int8"', NOTHING)
    assert str(refused.value) == (
        'render.placement = "int8" needs sdnq, torchao or bitsandbytes, of which none is installed.'
    )
    packages = (
        "'qwen-image-daemon[sdnq]', 'qwen-image-daemon[int8]' or 'qwen-image-daemon[nf4]'. sdnq is under the GPL"
    )
    assert f"Install one of them in the daemon's environment: pip install {packages}" in refused.value.fix
    with pytest.raises(ModelUnavailable, match='"nf4" needs bitsandbytes, which is not installed'):
        refuse_lacking("nf4", 'render.placement = "nf4"', EVERYTHING - {"bitsandbytes"})


def test_only_the_licence_that_asks_more_than_our_own_is_spoken_of() -> None:
    assert how_to_install("sdnq").endswith("pip install 'qwen-image-daemon[sdnq]'. sdnq is under the GPL-3.0.")
    assert how_to_install("torchao").endswith("pip install 'qwen-image-daemon[int8]'.")


@pytest.mark.parametrize(
    ("table", "told"),
    [({"int8": "quanto"}, "'auto', 'sdnq', 'torchao' or 'bitsandbytes'"), ({"nf4": "sdnq"}, "Extra inputs")],
)
def test_a_library_or_a_format_that_there_is_no_choice_of_is_refused(table: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        load_settings(None, render={"quantisers": table})


def test_the_choice_can_be_made_in_the_file_and_by_an_environment_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "daemon.toml"
    file.write_text('[render.quantisers]\nint8 = "bitsandbytes"\nfloat8 = "torchao"\n', encoding="utf-8")
    monkeypatch.setenv("QWEN_IMAGE_DAEMON_RENDER__QUANTISERS__FLOAT8", "torch")

    chosen = load_settings(file).render.quantisers

    assert chosen == QuantiserSettings(int8="bitsandbytes", float8="torch")


def test_the_settings_offer_every_choice_that_there_is_and_no_other() -> None:
    fields = Settings().render.quantisers.model_fields_set | set(QuantiserSettings.model_fields)

    assert fields == {kept for kept, quantiser in QUANTISERS.items() if len(quantiser.makers) > 1}
    for kept, field in QuantiserSettings.model_fields.items():
        assert get_args(field.annotation) == ("auto", *QUANTISERS[kept].makers)  # type: ignore[index]


def test_every_library_has_its_extra_and_every_format_its_arrangements() -> None:
    assert set(EXTRAS) == set(get_args(Library))
    assert set(QUANTISERS) == set(get_args(Format)) - {"as loaded"}
    for kept in QUANTISERS:
        assert [plan.table for plan in PLANS if plan.kept == kept] == [False, True]


def test_arrangements_are_named_in_the_settings_in_the_order_in_which_they_are_tried() -> None:
    assert tuple(PLAN_OF) == get_args(PlanName)


def test_a_person_is_told_who_packed_and_nothing_of_that_where_nothing_is_packed() -> None:
    makers = makers_at_hand(QuantiserSettings(int8="bitsandbytes"), EVERYTHING)

    assert PLAN_OF["int8"].told(makers) == f"{PLAN_OF['int8'].what}; packed by bitsandbytes"
    assert PLAN_OF["uint4-table"].told(makers).endswith("; packed by sdnq")
    assert PLAN_OF["float8"].told(makers).endswith("; packed by torch")
    assert PLAN_OF["blocks"].told(makers) == PLAN_OF["blocks"].what


def test_what_was_learned_before_there_were_more_formats_is_still_known(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    file.write_text('{"large": {"int8": [20, 1.5, 2.5], "nf4": [10, 1.5, 2.5], "int3": [5, 1.0, 1.0]}}')

    known = Learned(file).of("large")

    assert {plan: each.peak_bytes for plan, each in known.items()} == {"int8": 20, "nf4": 10}
