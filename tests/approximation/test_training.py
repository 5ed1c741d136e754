import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.approximation import certify, shallow, structure, trained
from fathometer.errors import InputError


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_trained_network_is_certified_and_stays_above_the_best_layer(optimizer, tmp_path):
    before = torch.random.get_rng_state()
    net = trained("exp(x)", (0, 1), [8], optimizer=optimizer, steps=40, points=65, seeds=(0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    grid = np.linspace(0, 1, 20_001)
    seen = np.abs(net.network(grid) - np.exp(grid)).max()
    assert net.certificate.level == "exact" and seen <= net.value <= seen * 1.01
    assert net.value >= shallow("exp(x)", (0, 1), pieces=9).error  # eight knots make nine pieces at most
    assert net.pieces <= 9 and net.units == 8 and len(net.errors) == 2
    loaded = fm.load(net.save(tmp_path / "net.safetensors"))
    assert np.array_equal(loaded.network(grid), net.network(grid)) and "8 units" in str(loaded)
    assert certify(net, "exp(x)", (0, 1)).upper == pytest.approx(net.value, rel=1e-3)
    assert len(net.picture().panels) == 1


def test_the_domain_and_the_size_of_f_are_undone_exactly():
    net = trained("1000*x", (2, 6), [4], steps=200, points=33, seeds=(0,))
    assert net.value < 1000  # a line of size 6000: training sees it in [-1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, r"widths is \[\]; one whole number"),
        ({"widths": [3, 0]}, r"widths is \[3, 0\]"),
        ({"widths": [3], "optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"widths": [3], "steps": 0}, "steps=0, points=513"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        trained("exp(x)", (0, 1), **options)


def test_errors_that_do_not_fit_are_refused(monkeypatch):
    def too_large(order):
        order[-1].error = 1.0
        return 1.0

    monkeypatch.setattr(structure, "_add_errors", too_large)
    with pytest.raises(InputError, match="slopes inside f make the errors of its parts add to 1"):
        fm.approximation.approximate("x*y", [(0, 1)] * 2, 0.1)
