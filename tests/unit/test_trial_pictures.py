"""The pictures that nobody asked for are ones that their family draws."""

import pytest

from qwen_image_daemon.jobs.families import FAMILIES, FamilyName
from qwen_image_daemon.render.request_checks import refuse_unfit
from qwen_image_daemon.render.trial_pictures import trial_request, warm_up_request


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_can_draw_its_trial_and_its_warm_up(family: FamilyName) -> None:
    for request in (trial_request(FAMILIES[family]), warm_up_request(FAMILIES[family])):
        refuse_unfit(request, FAMILIES[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_warm_up_is_guided_exactly_where_the_familys_usual_jobs_are(family: FamilyName) -> None:
    request = warm_up_request(FAMILIES[family])
    assert request.true_cfg_scale == FAMILIES[family].recommended.true_cfg_scale
    assert (request.negative_prompt is not None) == (request.true_cfg_scale > 1)
