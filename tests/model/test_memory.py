"""Under a small budget chunks shrink and graphs are recorded anew; the answers stay."""

import pytest
import torch

import fathometer as fm
from fathometer.model import curvature
from fathometer.model.curvature import HessianGraph

D = torch.float64


def rows(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def surface(**options):
    model = fm.model.mlp((5, 6, 3), activation="tanh").double()
    return fm.LossSurface(model, "cross_entropy", (rows(60, 5), torch.arange(60) % 3), **options)


def needs(examples):
    """Bytes forecast for a Hessian product with so many examples at a time."""
    fixed, each = surface()._bytes
    return int(fixed + each * examples) + 1


@pytest.fixture
def recordings(monkeypatch):
    """The chunks whose Hessian is recorded, in order."""
    seen, record = [], HessianGraph.record.__func__

    def counted(cls, problem, theta, index):
        seen.append(index)
        return record(cls, problem, theta, index)

    monkeypatch.setattr(HessianGraph, "record", classmethod(counted))
    return seen


def test_a_smaller_budget_gives_smaller_chunks_and_the_same_value():
    whole, v = surface(), rows(57, seed=1)
    assert whole.chunk == 60
    for examples in (1, 7, 20):
        with fm.budget(needs(examples)):
            part = surface()
            assert part.chunk == examples
            torch.testing.assert_close(part.energy(), whole.energy(), rtol=1e-13, atol=0)
            torch.testing.assert_close(part.gradient(), whole.gradient(), rtol=1e-11, atol=1e-14)
            for name in ("hessian", "gauss_newton"):
                image = getattr(part, name)(check=False) @ v
                expected = getattr(whole, name)(check=False) @ v
                torch.testing.assert_close(image, expected, rtol=1e-10, atol=1e-13)


def test_graphs_that_the_budget_does_not_hold_are_recorded_in_every_product(recordings):
    with fm.budget(needs(10)):
        H = surface().hessian(check=False)
        first, second = (H @ rows(57, seed=s) for s in (1, 2))
        assert recordings == [*range(6), *range(6)]
    recordings.clear()
    kept = surface(chunk=10).hessian(check=False)
    assert torch.equal(kept @ rows(57, seed=1), first)
    assert torch.equal(kept @ rows(57, seed=2), second)
    assert recordings == [*range(6)]


def test_half_the_budget_is_for_kept_graphs_and_no_more(recordings):
    with fm.budget(int(2 * needs(10) / curvature.KEPT_SHARE) + 8):
        H = surface(chunk=10).hessian(check=False)
        for seed in (1, 2):
            H @ rows(57, seed=seed)
    # two of the six graphs fit; the other four are recorded in both products
    assert sorted(recordings) == sorted([*range(6), *range(2, 6)])
