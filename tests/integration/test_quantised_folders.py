"""Folders that are quantised already: drawn with as what they hold, labelled lossy, refused where they are no use."""

from pathlib import Path

import pytest

from arranged import GUIDED, insert, opened, pipeline_of, rendered
from qwen_image_daemon.render.packed_layers import PackedLinear
from qwen_image_daemon.render.quantisers import is_installed
from qwen_image_daemon.settings import PlanName
from quantised_folders import PACKINGS, copied, quantise, turn_back
from tiny_models import Card


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    insert(card, monkeypatch)
    return card


@pytest.mark.parametrize("way", PACKINGS)
def test_drawn(way: str, tiny_checkpoint: Path, tmp_path: Path, card: Card) -> None:
    packing = PACKINGS[way]
    packed, whole = copied(tiny_checkpoint, tmp_path / "packed"), copied(tiny_checkpoint, tmp_path / "whole")
    for component in ("transformer", "text_encoder"):
        quantise(packed, component, packing)
        turn_back(whole, component, packing)
    with opened(whole) as renderer:
        expected = rendered(renderer)
    for plan in ("resident", "encoder-streamed-table", "by-turns", "blocks-table", "leaves", "cpu"):
        with opened(packed, plan) as renderer:
            drawn = rendered(renderer)
            assert sum(isinstance(m, PackedLinear) for m in pipeline_of(renderer).transformer.modules()) > 10
        print(plan, drawn.arrangement)
        assert drawn.image.tobytes() == expected.image.tobytes(), plan
