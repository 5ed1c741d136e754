"""The quick items of the paper: every claim holds, and every picture can be rendered."""

import pytest

import fathometer.papers.ravanbakhsh_2017  # noqa: F401 - enters the items
from fathometer.drawing import to_svg
from fathometer.papers.item import ITEMS
from fathometer.papers.ravanbakhsh_2017.digits import equal_parameters, parameters, tied, untied

QUICK = [key for key in ITEMS if key.startswith("ravanbakhsh_2017") and ITEMS[key].seconds <= 6]


@pytest.mark.parametrize("key", [key for key in QUICK if "dense-design" not in key])
def test_every_claim_of_the_quick_items_holds(key):
    outcome = ITEMS[key].run()
    assert [check.claim for check in outcome.checks if not check.passed] == []
    for picture in outcome.pictures:
        assert to_svg(picture).lstrip().startswith("<svg")


def test_the_untied_network_of_equal_size_has_as_many_parameters():
    small = untied(equal_parameters())(0)
    assert abs(parameters(small) / parameters(tied(0)) - 1) < 0.02
