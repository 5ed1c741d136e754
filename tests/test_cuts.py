"""No number depends on how the work was cut: chunks of examples, batches of a loader, the memory budget.

One contract over all verbs: those that take a surface, and those that take a sample. A new verb is found by
its first argument; it is run here, or named with the reason why not.
"""

import inspect
import warnings
from importlib import import_module

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.model import mlp
from fathometer.work import generator

RELATIVE = 1e-10
# what the first argument of a verb of a surface, and the first two of a verb of a sample, are called
SURFACE, SAMPLE = {"surface", "A_or_surface", "surface_or_factory"}, ["points", "scores"]

OTHER = mlp((3, 4, 2), seed=2).double()  # a second network, for what takes two
LABELS = {"class_split", "pac_bayes"}  # verbs of a classifier
OPTIONS = {
    "adaptive": {"radius": 0.1, "steps": 10},
    "align": {"other": OTHER},
    "barrier": {"other": OTHER, "points": 5},
    "connect": {"other": OTHER, "steps": 5, "points": 5},
    "constant_in_the_ball": {"radius": 0.1},
    "epsilon_sharpness": {"radius": 0.1, "steps": 10},
    "geodesic": {"radius": 0.1, "steps": 5},
    "keskar": {"steps": 10},
    "landscape": {"points": 5},
    "local_entropy": {"samples": 8},
    "local_volume": {"directions": 8},
    "m_sharpness": {"radius": 0.1, "steps": 5},
    "many_large_eigenvalues": {"threshold": 10.0},
    "measure": {"names": ("fisher_rao", "hessian_trace", "path_norm")},
    "pac_bayes": {"draws": 4},
    "sharp_norm": {"norm": 100.0},
    "steep_gradient": {"norm": 100.0},
    "ksd_path": {"sizes": (50, 300)},
    "nystrom_ksd": {"landmarks": 20},
    "thin": {"size": 20},
}
ELSEWHERE = {
    "audit": "moves the surface and calls the measures that are run here",
    "critical_points": "a search of many seconds, over energies and gradients that are compared here",
    "learning_coefficient": "chains of thousands of gradients, which are compared here",
    "graph_discrepancy": "a linear program over all points: nothing is cut",
    "classical_discrepancy": "a program over all points: nothing is cut",
    "relative_test": "takes two samples; the discrepancies it compares are compared here",
    "stein_function": "a sum for each place, of the tiles that ksd adds up",
    "witness": "a sum for each place, of the tiles that ksd adds up",
    "information_geometric": "stops a singular system by its residual: agrees within its error (below)",
}


def verbs(rooms, wanted):
    for room in rooms:
        module = import_module(f"fathometer.{room}")
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and wanted(list(inspect.signature(function).parameters)):
                yield name, function


OF_SURFACES = dict(verbs(("spectra", "sharpness"), lambda names: names and names[0] in SURFACE))
OF_SAMPLES = dict(verbs(("stein",), lambda names: names[:2] == SAMPLE))


def data():
    g = generator(0, "cuts")
    x = torch.randn(24, 3, generator=g, dtype=torch.float64)
    return x, torch.randn(24, 2, generator=g, dtype=torch.float64), torch.arange(24) % 2


def surfaces(labels=False):
    """One problem in one chunk, in chunks of seven, and in uneven batches."""
    x, values, classes = data()
    y, loss = (classes, "cross_entropy") if labels else (values, "half_mse")
    model = mlp((3, 4, 2), seed=1).double()
    cuts = (slice(0, 5), slice(5, 6), slice(6, 17), slice(17, 24))
    yield fm.LossSurface(model, loss, (x, y), chunk=24)
    yield fm.LossSurface(model, loss, (x, y), chunk=7)
    yield fm.LossSurface(model, loss, [(x[cut], y[cut]) for cut in cuts])


def numbers(answer):
    """The numbers of an answer: its value, down to plain ones, or those of all its fields."""
    if isinstance(answer, dict):
        return np.concatenate([numbers(answer[key]) for key in sorted(answer)] or [np.zeros(0)])
    if isinstance(answer, str | None):
        return np.zeros(0)
    if isinstance(answer, fm.LossSurface):
        return numbers(answer.theta)
    if isinstance(answer, torch.nn.Module):
        return numbers([p.detach() for p in answer.parameters()])
    if isinstance(answer, fm.Table):
        return numbers([tuple(row.values()) for row in answer.rows])
    if hasattr(answer, "value"):
        return numbers(answer.value)
    if isinstance(answer, tuple | list):
        return np.concatenate([numbers(part) for part in answer] or [np.zeros(0)])
    return np.atleast_1d(np.asarray(answer, dtype=np.float64)).ravel()


def agree(answers):
    first, *others = (numbers(answer) for answer in answers)
    assert first.size and np.isfinite(first).all()
    for other in others:
        np.testing.assert_allclose(other, first, rtol=RELATIVE, atol=RELATIVE * np.abs(first).max())


def test_every_verb_is_run_or_says_why_not():
    assert len(OF_SURFACES) > 30 and len(OF_SAMPLES) > 8
    assert set(ELSEWHERE) | set(OPTIONS) | LABELS <= set(OF_SURFACES) | set(OF_SAMPLES)


@pytest.mark.filterwarnings("ignore::fathometer.errors.TheoryWarning")
@pytest.mark.parametrize("name", sorted(set(OF_SURFACES) - set(ELSEWHERE)))
def test_a_verb_of_a_surface_does_not_see_the_cuts(name):
    options = OPTIONS.get(name, {})
    agree([OF_SURFACES[name](surface, **options) for surface in surfaces(name in LABELS)])


def test_an_estimate_that_stops_by_its_residual_agrees_within_its_error():
    first, *others = (fm.sharpness.information_geometric(surface) for surface in surfaces())
    for other in others:
        assert abs(other.value - first.value) <= other.error + first.error


@pytest.mark.parametrize(
    "name", ["energy", "gradient", "losses", "outputs", "hessian", "gauss_newton", "residual"]
)
def test_a_method_of_a_surface_does_not_see_the_cuts(name):
    found = (getattr(surface, name)() for surface in surfaces())
    agree([answer.to_dense() if isinstance(answer, fm.LinearOperator) else answer for answer in found])


@pytest.mark.parametrize("kind", ["exact", "empirical", "sampled"])
def test_a_fisher_matrix_does_not_see_the_cuts(kind):
    agree([surface.fisher(kind=kind).to_dense() for surface in surfaces(labels=True)])


@pytest.mark.parametrize("name", ["trace", "diagonal", "frobenius_norm"])
def test_a_verb_of_operators_does_not_see_the_cuts(name):
    agree([getattr(fm.linalg, name)(surface.hessian()) for surface in surfaces()])


def test_eigenvalues_do_not_see_the_cuts():
    agree([fm.eigenpairs(surface.hessian(), 3, tolerance=1e-8).values for surface in surfaces()])


@pytest.mark.parametrize("name", sorted(set(OF_SAMPLES) - set(ELSEWHERE)))
def test_a_verb_of_a_sample_does_not_see_the_budget(name):
    draw = generator(0, "sample")
    points = torch.randn(300, 2, generator=draw, dtype=torch.float64).numpy()
    answers = []
    for allowed in (10**9, 18 * 10**6):
        with fm.budget(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore", fm.TheoryWarning)
            answers.append(OF_SAMPLES[name](points, -points, **OPTIONS.get(name, {})))
    agree(answers)
