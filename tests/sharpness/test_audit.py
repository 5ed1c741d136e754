"""Which measures survive a rescaling: known invariances, confirmed on a real network."""

import math

import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer import InputError
from fathometer.model import LossSurface
from fathometer.sharpness import (
    audit,
    fisher_rao,
    hessian_trace,
    measure,
    orbit_trace,
    relative_norm,
    relative_trace,
    rescalings,
)
from fathometer.sharpness.curvature import gauss_newton_weights
from fathometer.sharpness.equivalent import orbit_minimum
from fathometer.sharpness.layer_scale import output_scale
from fathometer.sharpness.measures import MEASURES
from networks import mlp


@pytest.fixture(scope="module")
def surface():
    torch.manual_seed(0)
    model, g = mlp().double(), torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=g, dtype=torch.float64)
    return LossSurface(model, "cross_entropy", (x, torch.randint(0, 2, (30,), generator=g)))


QUICK = ["hessian_norm", "hessian_trace", "hessian_frobenius", "adaptive_ball", "relative_norm", "fisher_rao"]


def test_invariant_measures_stay_and_the_others_move(surface):
    table = audit(surface, QUICK)
    assert table.notes == ("head_basis was left out: the network has no such symmetry.",)
    symmetries = ("layer_scale", "neuron_scale", "unit_order", "output_scale")
    assert len([row for row in table if row.transformation in symmetries]) == 4 * len(QUICK)
    for row in table:
        known = row.transformation in (*MEASURES[row.measure].invariant_to, "unit_order")
        assert row.verdict == ("invariant" if known else "changes"), str(row)


def test_the_norm_changes_by_the_ratio_of_dense_norms(surface):
    row = next(r for r in audit(surface, ["hessian_norm"], seed=7) if r.transformation == "neuron_scale")
    import numpy as np

    from fathometer.work import numpy_generator

    group = rescalings(surface.write(), surface.example_inputs())
    z = numpy_generator(7, "audit").standard_normal(group.dimension)
    moved = surface.around(group.move(z))
    norms = [float(torch.linalg.eigvalsh(s.hessian().to_dense()).abs().max()) for s in (surface, moved)]
    assert row.ratio == pytest.approx(norms[1] / norms[0], rel=1e-6)
    assert np.isfinite(row.error)


def test_relative_measures_agree_with_the_dense_scaled_hessian(surface):
    scale = surface.theta.abs()
    scaled = scale[:, None] * surface.hessian().to_dense() * scale
    assert relative_norm(surface).value == pytest.approx(
        float(torch.linalg.eigvalsh(scaled).abs().max()), rel=1e-6
    )
    assert relative_trace(surface).value == pytest.approx(float(scaled.trace()), rel=1e-6)


def test_fisher_rao_of_a_network_without_biases_is_the_square_of_its_depth_times_the_output_term():
    """Liang et al. 2019, theorem 3.1: ``(L+1)^2 E <dl/df, f>^2`` for L hidden layers without biases."""
    torch.manual_seed(0)
    layers = (
        nn.Linear(3, 5, bias=False),
        nn.ReLU(),
        nn.Linear(5, 4, bias=False),
        nn.ReLU(),
        nn.Linear(4, 2, bias=False),
    )
    model = nn.Sequential(*layers).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 2, (20,))
    surface = LossSurface(model, "cross_entropy", (x, y))
    f = model(x).detach()
    p = f.softmax(1)
    empirical = (((p - nn.functional.one_hot(y, 2)) * f).sum(1) ** 2).mean()
    exact = sum((p[:, c] * (((p - torch.eye(2, dtype=f.dtype)[c]) * f).sum(1) ** 2)).mean() for c in range(2))
    assert fisher_rao(surface, "empirical").value == pytest.approx(9 * float(empirical), rel=1e-9)
    assert fisher_rao(surface).value == pytest.approx(9 * float(exact), rel=1e-9)


def test_the_orbit_minimum_is_the_same_from_a_hundred_points_of_the_orbit(surface):
    """Log-scales of standard deviation 2; the trace itself changes by factors of up to ten thousand."""
    group = rescalings(surface.write(), surface.example_inputs())
    here = float(orbit_trace(surface).value)
    around = [surface.around(group.move(seed=seed, spread=2.0)) for seed in range(100)]
    # the equations of the graph are the same at every point; only the curvature is taken anew
    found = [orbit_minimum(place, group, gauss_newton_weights(place), -2.0)[1] for place in around]
    assert max(abs(value / here - 1) for value in found) < 1e-6
    assert float(orbit_trace(around[0]).value) == pytest.approx(here, rel=1e-6)
    traces = [float(hessian_trace(place).value) for place in around[:20]]
    assert max(traces) > 100 * min(traces)
    assert here <= float(surface.hessian().to_dense().trace())


def test_the_table_lists_every_measure_once_with_its_kind(surface):
    table = measure(surface, [*QUICK, "keskar"])
    assert [row.measure for row in table] == [*QUICK, "keskar"]
    assert table["keskar"].kind == "bound"
    assert table["hessian_norm"].kind == "exact"
    assert all(math.isfinite(row.value) for row in table)


def test_what_could_not_be_measured_is_listed_with_the_reason():
    torch.manual_seed(0)
    model = mlp(nn.Tanh)
    loss = lambda out, y: (out - y).abs().pow(1.5).mean(1)  # noqa: E731 - not a likelihood that is known
    surface = LossSurface(model, loss, (torch.randn(8, 3), torch.randn(8, 2)))
    table = measure(surface, ["fisher_rao", "orbit_trace", "hessian_norm"])
    assert [row.measure for row in table] == ["hessian_norm"]
    assert "fisher_rao was not measured: the loss" in table.notes[0]
    assert "orbit_trace was not measured: the network has no rescaling" in table.notes[1]


def test_the_audit_is_drawn_and_saved(surface, tmp_path):
    table = audit(surface, ["hessian_norm", "relative_norm"])
    drawn = [mark for mark in table.picture().panels[0].marks if hasattr(mark, "texts")]
    assert sum(len(mark.x) for mark in drawn) == len(table)
    again = fm.load(table.save(tmp_path / "audit.safetensors"))
    assert [row.verdict for row in again] == [row.verdict for row in table]


def test_unknown_measures_are_refused_before_any_work(surface):
    with pytest.raises(InputError, match="names has 'flatness', which is no measure; there are hessian_norm"):
        measure(surface, ["hessian_norm", "flatness"])
    with pytest.raises(InputError, match="names has 'sharp'"):
        audit(surface, "sharp")
    with pytest.raises(InputError, match="transformations has 'rotation'; there are layer_scale"):
        audit(surface, ["hessian_norm"], transformations=["rotation"])


def test_the_factor_of_the_outputs_and_of_the_coordinates_are_those_that_were_asked_for(surface):
    table = {
        (r.measure, r.transformation): r for r in audit(surface, ["hessian_norm", "path_norm"], factor=5.0)
    }
    H = surface.hessian().to_dense()
    g = surface.gradient()
    assert table["path_norm", "output_scale"].ratio == pytest.approx(5.0)
    # the map is linear on the inner ball: J = factor I in it, so that H grows by its square
    assert float(g.norm()) > 0
    assert table["hessian_norm", "bijection"].ratio == pytest.approx(25.0, rel=1e-6)
    assert float(torch.linalg.eigvalsh(H)[-1]) == pytest.approx(table["hessian_norm", "bijection"].before)


def test_logarithms_are_compared_by_differences(surface):
    """A ratio of logarithms means nothing."""
    rows = {r.transformation: r for r in audit(surface, ["local_volume"])}
    assert math.isnan(rows["layer_scale"].ratio)
    assert rows["unit_order"].verdict in ("invariant", "undecided")
    assert rows["unit_order"].difference == rows["unit_order"].after - rows["unit_order"].before


def test_heads_of_a_transformer_change_what_only_rescalings_leave():
    model = fm.model.transformer(4, 2, 1, 2, seed=0)
    x = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    surface = LossSurface(model, "cross_entropy", (x, torch.arange(12) % 2))
    rows = {
        (r.measure, r.transformation): r
        for r in audit(surface, ["relative_norm"], transformations=["neuron_scale", "head_basis"])
    }
    assert rows["relative_norm", "neuron_scale"].verdict == "invariant"
    assert rows["relative_norm", "head_basis"].verdict == "changes"


def test_a_network_without_rescalings_is_audited_by_what_it_has():
    torch.manual_seed(0)
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    surface = LossSurface(mlp(nn.Tanh), "cross_entropy", (x, torch.arange(12) % 2))
    table = audit(surface, ["weight_norm"], transformations=["layer_scale", "neuron_scale", "unit_order"])
    assert [(row.transformation, row.verdict) for row in table] == [("unit_order", "invariant")]
    assert [note.split(" was left out")[0] for note in table.notes] == ["layer_scale", "neuron_scale"]


def test_outputs_that_weights_cannot_scale_are_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Sigmoid())
    with pytest.raises(InputError, match="no weights scale all outputs by one factor"):
        output_scale(model, 2.0, torch.randn(2, 3))
    with pytest.raises(InputError, match=r"factor is -1\.0; it must be positive and finite"):
        output_scale(model, -1.0, torch.randn(2, 3))


def test_scaled_outputs_are_scaled(surface):
    x = surface.example_inputs()[0]
    moved = output_scale(surface.write(), 3.0, x)
    with torch.no_grad():
        torch.testing.assert_close(moved(x), 3.0 * surface.write()(x))
