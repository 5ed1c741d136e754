"""Spacing statistics, sharpness during training, subspaces: against simulation, dense algebra and 2/eta."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.errors import InputError
from fathometer.spectra import (
    Semicircle,
    SharpnessMonitor,
    density,
    effective_dimension,
    spacing_ratio,
    spectral_overlap,
)


def test_random_matrices_repel_and_independent_levels_do_not():
    orthogonal = np.concatenate([spacing_ratio(Semicircle().sample(300, s)).ratios for s in range(4)])
    assert orthogonal.mean() == pytest.approx(0.5307, abs=4 * orthogonal.std() / np.sqrt(len(orthogonal)))
    free = spacing_ratio(np.random.default_rng(0).random(4000))
    assert free.value == pytest.approx(2 * math.log(2) - 1, abs=4 * free.error)
    assert free.error < 0.01 and abs(free.repulsion) < 0.25
    picket = spacing_ratio(np.arange(50.0))
    assert picket.value == 1.0 and picket.error == 0


def test_the_ratio_ignores_scale_density_and_multiple_levels():
    values = Semicircle().sample(200, 1)
    plain = spacing_ratio(values)
    assert spacing_ratio(7 * values + 3).value == pytest.approx(plain.value)
    doubled = spacing_ratio(np.concatenate([values, np.zeros(5) + values[40]]))
    assert doubled.skipped == 5 and doubled.value == pytest.approx(plain.value, abs=0.02)
    assert spacing_ratio(density(np.diag(values))).value == pytest.approx(plain.value)


def quadratic(eigenvalues):
    """A linear model whose half_mse Hessian has these eigenvalues, and its data."""
    d = len(eigenvalues)
    x = torch.diag(torch.sqrt(torch.tensor(eigenvalues, dtype=torch.float64) * d))
    model = nn.Linear(d, 1, bias=False).double()
    return model, (x, torch.zeros(d, 1, dtype=torch.float64))


def test_readings_are_the_largest_eigenvalue_within_their_error():
    eigenvalues = [*np.linspace(0.1, 1, 30), 3.0, 7.0]
    model, data = quadratic(eigenvalues)
    monitor = SharpnessMonitor(lambda: fm.LossSurface(model, "half_mse", data), every=5, tolerance=0.01)
    readings = [monitor(step) for step in range(21)]
    assert [r.step for r in readings if r] == [0, 5, 10, 15, 20]
    for r in filter(None, readings):
        assert abs(r.value - 7.0) <= r.error + 1e-9 and r.converged
    assert readings[20].products <= 4 < readings[0].products  # warm starts are cheaper
    history = monitor.result()
    assert history.value == readings[20].value and history.onset == -1
    assert history.products == sum(r.products for r in readings if r)


def test_gradient_descent_rises_to_the_edge_of_stability_and_the_onset_is_seen():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 1)).double()
    x, y = torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 1, dtype=torch.float64)
    eta = 0.35
    monitor = SharpnessMonitor(lambda: fm.LossSurface(model, "half_mse", (x, y)), step_size=eta, every=100)
    rng = torch.get_rng_state()
    for step in range(2001):
        loss = 0.5 * (model(x) - y).square().mean()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p -= eta * g
        monitor(step)
    assert torch.equal(rng, torch.get_rng_state())
    history = monitor.result()
    first, last = history.rows[0], history.rows[-1]
    assert last.edge == pytest.approx(2 / eta) and first.value < 0.7 * last.edge
    dense = torch.linalg.eigvalsh(fm.LossSurface(model, "half_mse", (x, y)).hessian().to_dense())
    assert abs(float(dense[-1]) - last.value) <= last.error + 1e-6
    late = np.array([r.value for r in history.rows[-5:]])
    assert (late > 0.85 * last.edge).all() and (late < 1.25 * last.edge).all()
    assert 0 < history.onset < 2000
    line = history.picture().panels[0].marks
    np.testing.assert_array_equal(line[0].y, [r.value for r in history.rows])


def test_a_history_survives_the_disk(tmp_path):
    model, data = quadratic([1.0, 2.0, 3.0])
    monitor = SharpnessMonitor(lambda: fm.LossSurface(model, "half_mse", data), every=1)
    monitor(0)
    again = fm.load(monitor.result().save(tmp_path / "history"))
    assert again.value == pytest.approx(3.0) and again.rows[0].products == 3
    assert math.isnan(SharpnessMonitor(lambda: None).result().value)


def test_overlap_is_one_inside_and_chance_outside():
    Q, _ = torch.linalg.qr(
        torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    assert spectral_overlap(Q[:, :4] @ torch.randn(4, 4).double(), Q[:, :9]) == pytest.approx(1.0)
    assert spectral_overlap(Q[:, :4], Q[:, 4:9]) == pytest.approx(0.0, abs=1e-12)
    assert spectral_overlap(Q[:, :4].numpy(), Q[:, 2:6].numpy()) == pytest.approx(0.5)


def test_effective_dimension_counts_directions():
    found = density(np.diag([0.0, 1.0, 3.0, 1e9]))
    assert effective_dimension(found, 1.0) == pytest.approx(0.5 + 0.75 + 1.0, abs=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spacing_ratio([1.0, 2.0]), "eigenvalues have 1 gaps that are not zero"),
        (lambda: spacing_ratio([1.0, np.nan]), "not all finite"),
        (
            lambda: spacing_ratio(density(np.diag(np.arange(40.0)), 1, 20, method="lanczos")),
            "nodes of a quadrature",
        ),
        (lambda: SharpnessMonitor(3), "surface is a int; pass a function"),
        (lambda: SharpnessMonitor(lambda: None, every=0), "every is 0"),
        (lambda: SharpnessMonitor(lambda: None, step_size=-1.0), "step_size is -1"),
        (lambda: spectral_overlap(np.eye(3), np.eye(4)), r"first has shape \(3, 3\), second \(4, 4\)"),
        (lambda: effective_dimension(density(np.eye(2)), 0.0), "regularization is 0"),
        (lambda: effective_dimension(density(np.diag([-1.0, 1.0])), 0.5), "density reaches -1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
