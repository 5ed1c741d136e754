"""The laws against printed polynomials at high precision, quadrature, cumulants and random matrices."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathometer.errors import InputError
from fathometer.spectra import MarchenkoPastur, Semicircle, WishartPlusReluResidual, WishartPlusWigner

LAWS = [
    MarchenkoPastur(0.25),
    MarchenkoPastur(3.0, 0.7),
    Semicircle(2.0),
    WishartPlusWigner(0.02, 0.5),
    WishartPlusWigner(0.1, 2.0),
    WishartPlusWigner(0.7, 0.5, 2.0),
    WishartPlusReluResidual(0.1, 0.5),
    WishartPlusReluResidual(0.1, 4.0),
    WishartPlusReluResidual(0.1, 2.0),
    WishartPlusReluResidual(2.0, 1.0),
    WishartPlusReluResidual(0.7, 1.5, 2.0),
]


def printed_polynomial(law, x):
    """Coefficients in G, highest first, as derived from the paper's R-transforms for scale 1."""
    e, phi = mpmath.mpf(law.energy), mpmath.mpf(law.aspect_ratio)
    if isinstance(law, WishartPlusWigner):
        return [2 * e * phi, -(2 * e + x * phi), x + phi - 1, -1]
    return [
        e * phi**3 * x,
        -e * phi**2 * (x + phi - 2),
        -phi * (2 * x + e * (1 - phi)),
        2 * (x + phi - 1),
        -2,
    ]


NODES, WEIGHTS = np.polynomial.legendre.leggauss(500)


def over_band(function, low, high, share=1.0):
    """Integral over a share of a band, the root behavior of its edges taken out: x = middle - half cos t."""
    middle, half, end = 0.5 * (low + high), 0.5 * (high - low), np.arccos(1 - 2 * share)
    t = 0.5 * end * (NODES + 1)
    return float((function(middle - half * np.cos(t)) * half * np.sin(t)) @ WEIGHTS) * 0.5 * end


@pytest.mark.parametrize("kind", [WishartPlusWigner, WishartPlusReluResidual])
@pytest.mark.parametrize(("energy", "phi"), [(1e-6, 0.3), (0.02, 0.5), (0.4, 0.9), (3.0, 0.2), (0.3, 1.7)])
def test_density_is_the_complex_root_of_the_printed_polynomial(kind, energy, phi):
    law = kind(energy, phi)
    for low, high in law.support():
        xs = low + (high - low) * np.array([0.01, 0.2, 0.5, 0.83, 0.99])
        for x, found in zip(xs, law.pdf(xs), strict=True):
            with mpmath.workdps(40):
                roots = mpmath.polyroots(
                    printed_polynomial(law, mpmath.mpf(float(x))), maxsteps=200, extraprec=200
                )
                wanted = max(-mpmath.im(G) for G in roots) / mpmath.pi
            assert found == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.parametrize("kind", [WishartPlusWigner, WishartPlusReluResidual])
@pytest.mark.parametrize(("energy", "phi"), [(0.02, 0.5), (0.1, 4.0), (0.1, 2.5)])
def test_no_pair_of_roots_exists_outside_the_support(kind, energy, phi):
    law = kind(energy, phi)
    edges = np.array(law.support()).ravel()
    outside = [edges[0] - 0.1, edges[-1] + 0.1, *(0.5 * (edges[1:-1:2] + edges[2::2]))]
    for x in outside:
        if x == 0:  # the leading coefficient vanishes
            continue
        with mpmath.workdps(40):
            roots = mpmath.polyroots(
                printed_polynomial(law, mpmath.mpf(float(x))), maxsteps=200, extraprec=200
            )
        assert all(abs(mpmath.im(G)) < 1e-25 for G in roots)
        assert law.pdf(x) == 0


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_density_and_atoms_have_mass_one_and_the_cumulants_of_their_jumps(law):
    mean, jumps = law.jumps()
    k2, k3 = sum(a for _, a in jumps), sum(a * p for p, a in jumps)
    moments = [
        sum(over_band(lambda x, k=k: x**k * law.pdf(x), *band) for band in law.support())
        + sum(mass * x**k for x, mass in law.atoms())
        for k in range(4)
    ]
    # moments from free cumulants: m1 = k1, m2 = k2 + k1^2, m3 = k3 + 3 k1 k2 + k1^3
    np.testing.assert_allclose(
        moments, [1.0, mean, k2 + mean**2, k3 + 3 * mean * k2 + mean**3], rtol=1e-8, atol=1e-12
    )
    assert [law.free_cumulant(n) for n in (1, 2, 3)] == pytest.approx([mean, k2, k3])


def test_jumps_carry_the_free_cumulants_of_the_paper():
    sigma, phi, energy = 0.7, 0.6, 0.3
    wigner, relu = WishartPlusWigner(energy, phi, sigma), WishartPlusReluResidual(energy, phi, sigma)
    for n in (2, 3, 4, 5, 6):
        wishart = sigma**n * phi ** (n - 1)
        residual = (energy * phi / 2) * (energy * phi**2 / 2) ** (n // 2 - 1) if n % 2 == 0 else 0.0
        assert wigner.free_cumulant(n) == pytest.approx(wishart + (2 * energy if n == 2 else 0))
        assert relu.free_cumulant(n) == pytest.approx(wishart + residual)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_distribution_function_is_the_integral_of_the_density(law):
    mass = 0.0
    for low, high in law.support():
        mass_before = mass + sum(m for x, m in law.atoms() if x <= low)
        for share in (0.1, 0.5, 0.9):
            x = low + share * (high - low)
            assert law.cdf(x) == pytest.approx(mass_before + over_band(law.pdf, low, high, share), abs=2e-9)
        mass += over_band(law.pdf, low, high)
    assert law.cdf(law.support()[0][0] - 1) == 0 and law.cdf(law.support()[-1][1] + 1) == 1


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_transform_is_the_mean_of_its_definition(law):
    z = np.array([0.3 + 0.2j, -1.0 + 0.1j, 2.0 - 0.3j, 5.0 + 0.2j, 0.01 + 3j])
    wanted = [
        sum(over_band(lambda x, at=at: (law.pdf(x) / (at - x)).real, *band) for band in law.support())
        + 1j * sum(over_band(lambda x, at=at: (law.pdf(x) / (at - x)).imag, *band) for band in law.support())
        + sum(m / (at - x) for x, m in law.atoms())
        for at in z
    ]
    np.testing.assert_allclose(law.stieltjes(z), wanted, rtol=1e-6)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_transform_on_the_axis_is_the_limit_from_above(law):
    edges = np.array(law.support()).ravel()
    x = np.concatenate([[edges[0] - 0.3, edges[-1] + 0.3], 0.5 * (edges[:-1] + edges[1:])])
    x = x[np.abs(x) > 1e-3]
    np.testing.assert_allclose(law.stieltjes(x), law.stieltjes(x + 1e-9j), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(-law.stieltjes(x).imag / np.pi, law.pdf(x), atol=1e-12)
    np.testing.assert_allclose(law.stieltjes(x - 1e-9j), law.stieltjes(x + 1e-9j).conj(), rtol=1e-12)


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_sampled_matrix_follows_the_law(law):
    values = law.sample(400, seed=3)
    assert values.shape == (400,) and (np.diff(values) >= 0).all()
    steps = np.arange(401) / 400
    F = law.cdf(values)
    if law.atoms():  # an atom's share lies on one point up to rounding: compare beside it
        beside = np.abs(values) > 1e-9
        assert np.mean(~beside) == pytest.approx(law.atoms()[0][1], abs=0.004)
        gap = np.minimum(np.abs(F - steps[1:]), np.abs(F - steps[:-1]))[beside].max()
    else:
        gap = max(np.abs(F - steps[1:]).max(), np.abs(F - steps[:-1]).max())
    assert gap < 0.012  # rigid spectra: of order 1/P, ten times below that of independent draws
    assert np.mean(values < -1e-9) == pytest.approx(law.index(), abs=0.006)


def test_triangular_factor_of_a_wide_matrix_gives_the_same_law():
    # 0.05 -> 400 x 8000 would fill memory at smaller ratios; moments decide
    values = MarchenkoPastur(1e-3).sample(300, seed=1)
    assert values.mean() == pytest.approx(1.0, abs=1e-3)
    assert values.var() == pytest.approx(1e-3, rel=0.05)
    values = WishartPlusReluResidual(40.0, 0.01).sample(300, seed=1)
    assert values.var() == pytest.approx(0.01 + 0.2, rel=0.05)


def test_support_of_three_bands_and_an_atom():
    law = WishartPlusReluResidual(0.1, 4.0)
    wanted = [(-1.3396, -0.2088), (0.1754, 1.1029), (1.1307, 9.0341)]
    np.testing.assert_allclose(law.support(), wanted, atol=5e-5)
    assert law.atoms() == [(0.0, 0.5)]


@pytest.mark.parametrize("phi", [2.0, 2.7, 4.0, 40.0])
@pytest.mark.parametrize("energy", [1e-6, 0.1, 7.0])
def test_relu_index_from_aspect_ratio_two_on_is_inertia(phi, energy):
    law = WishartPlusReluResidual(energy, phi)
    assert law.index() == pytest.approx(1 / (2 * phi), abs=1e-12)
    mass = 1 - 2 / phi
    assert law.atoms() == ([(0.0, pytest.approx(mass))] if phi > 2 else [])
    # at the atom the angle of the transform holds half its mass; the index must not
    assert law.cdf(0.0) == pytest.approx(1 / (2 * phi) + mass, abs=1e-12)


def test_hard_edge_at_aspect_ratio_two_diverges_like_an_inverse_root():
    law = WishartPlusReluResidual(0.1, 2.0)
    assert law.pdf(0.0) == np.inf
    x = np.array([1e-8, 1e-10])
    np.testing.assert_allclose(law.pdf(x)[1] / law.pdf(x)[0], 10.0, rtol=1e-3)
    assert MarchenkoPastur(1.0).pdf(0.0) == np.inf


def test_index_at_aspect_ratio_one_grows_as_the_cube_root_of_the_energy():
    for energy in (1e-9, 1e-12):
        wanted = 3 * np.sqrt(3) / (4 * np.pi) * (2 * energy) ** (1 / 3)
        assert WishartPlusWigner(energy, 1.0).index() == pytest.approx(wanted, rel=3e-3)


@pytest.mark.parametrize("kind", [WishartPlusWigner, WishartPlusReluResidual])
@pytest.mark.parametrize("phi", [0.3, 1.0, 3.0])
def test_zero_energy_is_marchenko_pastur(kind, phi):
    x = np.linspace(-0.5, 8, 50)
    law, wanted = kind(0.0, phi, 1.3), MarchenkoPastur(phi, 1.3)
    np.testing.assert_array_equal(law.pdf(x), wanted.pdf(x))
    np.testing.assert_array_equal(law.cdf(x), wanted.cdf(x))
    assert law.support() == wanted.support() and law.atoms() == wanted.atoms() and law.index() == 0
    np.testing.assert_array_equal(law.sample(50), wanted.sample(50))


def test_marchenko_pastur_and_semicircle_have_their_closed_forms():
    x = np.linspace(0.3, 2.2, 7)
    low, high = 0.25, 2.25
    np.testing.assert_allclose(
        MarchenkoPastur(0.25).pdf(x), np.sqrt((high - x) * (x - low)) / (2 * np.pi * 0.25 * x), rtol=1e-13
    )
    y = np.linspace(-1.9, 1.9, 7)
    np.testing.assert_allclose(Semicircle().pdf(y), np.sqrt(4 - y**2) / (2 * np.pi), rtol=1e-13)
    np.testing.assert_allclose(
        Semicircle().cdf(y), 0.5 + y * np.sqrt(4 - y**2) / (4 * np.pi) + np.arcsin(y / 2) / np.pi, rtol=1e-13
    )


@given(
    energy=st.floats(1e-8, 50.0),
    phi=st.floats(1e-6, 20.0),
    scale=st.floats(0.05, 30.0),
    kind=st.sampled_from([WishartPlusWigner, WishartPlusReluResidual]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_law_is_a_distribution_and_scales(energy, phi, scale, kind):
    law, unit = kind(energy, phi, scale), kind(energy / scale**2, phi)
    edges = np.array(law.support()).ravel()
    assert (np.diff(edges) >= 0).all()
    np.testing.assert_allclose(edges, scale * np.array(unit.support()).ravel(), atol=1e-7 * scale)
    total = sum(over_band(law.pdf, *band) for band in law.support()) + sum(m for _, m in law.atoms())
    assert total == pytest.approx(1.0, abs=2e-3)
    x = np.linspace(edges[0] - 0.1, edges[-1] + 0.1, 301)
    F = law.cdf(x)
    assert (np.diff(F) > -1e-9).all() and F[0] == 0 and F[-1] == 1
    np.testing.assert_allclose(F, unit.cdf(x / scale), atol=1e-6)
    assert law.index() == pytest.approx(unit.index(), abs=1e-9)


def test_torch_and_numbers_come_back_as_they_are():
    law = WishartPlusWigner(0.1, 0.5)
    x = torch.linspace(-1, 3, 6, dtype=torch.float32).reshape(2, 3)
    assert isinstance(law.pdf(x), torch.Tensor) and law.pdf(x).shape == (2, 3)
    np.testing.assert_array_equal(law.pdf(x).numpy(), law.pdf(x.double().numpy()))
    assert np.ndim(law.pdf(1)) == 0 and law.stieltjes(torch.tensor(1.0)).is_complex()
    assert law.cdf([0.0, np.inf, -np.inf])[1:].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MarchenkoPastur(0.0), "aspect_ratio is 0; it must be positive"),
        (lambda: MarchenkoPastur(0.5, -1.0), "scale is -1"),
        (lambda: Semicircle(np.nan), "variance is nan"),
        (lambda: WishartPlusWigner(-0.1, 0.5), "energy is -0.1; it must be zero or positive"),
        (lambda: WishartPlusReluResidual(0.1, np.inf), "aspect_ratio is inf"),
        (lambda: WishartPlusReluResidual("a", 1.0), "energy is 'a'; a number is needed"),
        (lambda: MarchenkoPastur(0.5).sample(0), "P is 0; the number of eigenvalues"),
        (lambda: MarchenkoPastur(0.5).sample(2.5), "P is 2.5"),
        (lambda: WishartPlusWigner(0.1, 9.0).sample(4), "P is 4, less than half the aspect ratio 9"),
        (lambda: Semicircle().pdf([0.0, np.nan]), r"x\[1\] is NaN"),
        (lambda: Semicircle().pdf([1j]), "x holds complex128; real numbers"),
        (lambda: Semicircle().cdf("no"), "x holds <U2"),
        (lambda: Semicircle().stieltjes([1.0, np.inf]), r"z\[1\] is not finite"),
    ],
)
def test_laws_refuse_what_has_no_meaning(build, message):
    with pytest.raises(InputError, match=message):
        build()
