"""What the pictures of indices, class splits and spacings show, as numbers."""

import numpy as np
import pytest
import torch
from torch import nn

import fathometer as fm
from fathometer.spectra import class_split, index, spacing_ratio


def test_an_index_is_drawn_as_three_shares_and_its_bracket():
    exact = index(np.diag([-1.0, 0.0, 2.0, 3.0])).picture()
    (bars,) = exact.panels[0].marks
    assert bars.heights.tolist() == [0.25, 0.25, 0.5] and bars.texts == ("1", "1", "2")
    sampled = index(np.diag(np.linspace(-1, 2, 60)), 0.1, probes=2, steps=8, method="lanczos")
    rules = sampled.picture().panels[0].marks[1:]
    assert [rule.y for rule in rules] == [sampled.lower, sampled.upper]


def test_a_class_split_is_drawn_by_terms():
    torch.manual_seed(0)
    x, y = torch.randn(12, 3), torch.arange(12) % 3
    split = class_split(fm.LossSurface(nn.Linear(3, 3), "cross_entropy", (x, y)))
    shares, spectra = split.picture().panels
    np.testing.assert_allclose(shares.marks[0].heights, split.shares)
    assert len(spectra.marks[0].y) <= 3 and spectra.marks[0].y[0] == float(split.eigenvalues("class")[0])


def test_spacings_are_drawn_beside_two_densities():
    A = np.random.default_rng(0).standard_normal((120, 120))
    bars, repelling, independent = spacing_ratio(np.linalg.eigvalsh(A + A.T)).picture().panels[0].marks
    assert np.sum(bars.heights * np.diff(bars.edges)) == pytest.approx(1.0)
    for line, mean in ((repelling, 0.5307), (independent, 0.3863)):
        assert np.trapezoid(line.y, line.x) == pytest.approx(1.0, abs=1e-3)
        assert np.trapezoid(line.y * line.x, line.x) == pytest.approx(mean, abs=0.006)
