"""Critical energies against the paper's own forms at high precision, and against the laws."""

import mpmath
import numpy as np
import pytest
import torch

from fathometer.errors import InputError
from fathometer.spectra import (
    WishartPlusReluResidual,
    WishartPlusWigner,
    critical_energy,
    index_coefficient,
    minimizer_energy,
)

RATIOS = [1e-6, 1e-3, 0.1, 0.25, 0.5, 0.75, 0.99, 0.9999, 1 - 1e-6, 1 - 1e-8]
LAWS = {"wigner": WishartPlusWigner, "relu": WishartPlusReluResidual}


def printed(phi, law):
    """The critical energy as the paper prints it, in a hundred digits."""
    phi = mpmath.mpf(phi)
    if law == "wigner":
        return (1 - 20 * phi - 8 * phi**2 + (1 + 8 * phi) ** mpmath.mpf("1.5")) / 16
    chi = 1 + 16 * phi - 8 * phi**2
    return (27 - 18 * chi - chi**2 + 8 * chi ** mpmath.mpf("1.5")) / (32 * phi * (1 - phi) ** 3)


def printed_coefficient(phi, law):
    """The 3/2 coefficient from the square-root edge, in a hundred digits: no elimination."""
    e, phi = printed(phi, law), mpmath.mpf(phi)
    wishart = lambda G: 1 / (1 - phi * G)  # noqa: E731
    residual = (
        (lambda G, e=e: 2 * e * G)
        if law == "wigner"
        else (lambda G, e=e: e * phi * G / (2 - e * phi**2 * G**2))
    )
    z = lambda G, e=e: 1 / G + wishart(G) + residual(G, e)  # noqa: E731
    s = mpmath.sqrt(1 + 8 * phi) if law == "wigner" else mpmath.sqrt(1 + 16 * phi - 8 * phi**2)
    G = -(3 + s) / ((s + 1) * (1 - phi))
    assert abs(z(G)) < 1e-60 and abs(mpmath.diff(z, G)) < 1e-20  # a double root at zero
    curvature = abs(mpmath.diff(z, G, 2, h=mpmath.mpf(10) ** -30))
    motion = abs(mpmath.diff(lambda energy: z(G, energy), e, h=mpmath.mpf(10) ** -40))
    return 2 / (3 * mpmath.pi) * mpmath.sqrt(2 / curvature) * (e * motion) ** mpmath.mpf("1.5")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("phi", RATIOS)
def test_critical_energy_keeps_thirteen_digits(phi, law):
    with mpmath.workdps(100):
        assert critical_energy(phi, law) == pytest.approx(float(printed(phi, law)), rel=1e-14, abs=0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("phi", [1e-4, 0.1, 0.25, 0.5, 0.75, 0.999, 1 - 1e-8])
def test_index_coefficient_is_that_of_the_square_root_edge(phi, law):
    with mpmath.workdps(100):
        wanted = float(printed_coefficient(phi, law))
    assert index_coefficient(phi, law).value == pytest.approx(wanted, rel=1e-12, abs=0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("phi", [0.1, 0.5, 0.9])
def test_the_lower_edge_passes_zero_at_the_critical_energy(phi, scale, law):
    energy = critical_energy(phi, law, scale)
    assert LAWS[law](energy, phi, scale).support()[0][0] == pytest.approx(0.0, abs=1e-14)
    assert LAWS[law](0.999 * energy, phi, scale).index() == 0
    assert LAWS[law](1.001 * energy, phi, scale).index() > 0


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("phi", [0.1, 0.5, 0.9])
def test_the_three_halves_law_holds_up_to_where_it_says(phi, law):
    found = index_coefficient(phi, law, scale=2.0, tolerance=0.05)
    for share, wrong in [(0.01, 0.0008), (1.0, 0.05)]:
        energy = found.critical_energy + share * (found.trusted_to - found.critical_energy)
        exact = LAWS[law](energy, phi, 2.0).index()
        assert abs(found.index(energy) / exact - 1) == pytest.approx(wrong, rel=0.4)
    far = LAWS[law](5 * found.critical_energy, phi, 2.0).index()
    assert found.index(5 * found.critical_energy) > 1.5 * far  # not a prediction out there


def test_overparametrized_networks_have_no_critical_energy():
    assert critical_energy(np.array([1.0, 1.5, 40.0])).tolist() == [0, 0, 0]
    assert critical_energy(torch.tensor([2.0]), "relu").tolist() == [0]
    assert minimizer_energy([0.5, 1.0, 3.0]).tolist() == [0.125, 0, 0]


def test_critical_energy_scales_with_the_square():
    assert critical_energy(0.4, scale=3.0) == pytest.approx(9 * critical_energy(0.4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critical_energy(-0.5), r"aspect_ratio\[0\] is -0.5"),
        (lambda: critical_energy([0.5, np.inf]), r"aspect_ratio\[1\] is inf"),
        (lambda: critical_energy(0.5, "tanh"), "law is 'tanh'; it is one of wigner, relu"),
        (lambda: critical_energy(0.5, scale=0.0), "scale is 0"),
        (lambda: minimizer_energy(0.0), r"aspect_ratio\[0\] is 0"),
        (lambda: index_coefficient(1.0), "aspect_ratio is 1; from 1 on the critical energy is zero"),
        (lambda: index_coefficient(0.5, tolerance=1e-9), "tolerance is 1e-09; choose one between"),
    ],
)
def test_critical_functions_refuse_what_has_no_meaning(call, message):
    with pytest.raises(InputError, match=message):
        call()
