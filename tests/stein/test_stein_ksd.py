"""The kernel Stein discrepancy against its definition, closed forms and high precision."""

import itertools
import warnings

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fathometer as fm
from fathometer.stein import Gaussian, InverseMultiquadric, Matern32, ksd, ksd_path, stein_function, witness
from fathometer.stein.kernels import read_kernel
from fathometer.stein.sample import read_sample
from fathometer.stein.tiles import SteinGram

KERNELS = {
    "imq": (InverseMultiquadric(), lambda u: (1 + u) ** -0.5),
    "imq c=.3 beta=-.9": (InverseMultiquadric(c=0.3, beta=-0.9), lambda u: (0.09 + u) ** -0.9),
    "gaussian": (Gaussian(scale=0.7), lambda u: torch.exp(-u / 0.98)),
    "matern": (
        Matern32(scale=1.3),
        lambda u: (1 + torch.sqrt(3 * u) / 1.3) * torch.exp(-torch.sqrt(3 * u) / 1.3),
    ),
}
S3 = np.array([[2.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 1.0]])

pytestmark = pytest.mark.filterwarnings("ignore:the (Gaussian|Matern) kernel in")


def stein_kernel_by_autograd(phi, x, y, bx, by, precision):
    """The Langevin operator applied to both arguments of the kernel, by automatic differentiation."""

    def k(a, b):
        return phi((a - b) @ precision @ (a - b))

    dx, dy = torch.func.grad(k, 0)(x, y), torch.func.grad(k, 1)(x, y)
    mixed = torch.func.jacfwd(torch.func.grad(k, 0), 1)(x, y)
    return k(x, y) * bx @ by + bx @ dy + by @ dx + mixed.trace()


def gram_by_autograd(phi, x, b, precision):
    n = len(x)
    gram = torch.zeros(n, n, dtype=torch.float64)
    for i, j in itertools.product(range(n), repeat=2):
        # a hair's breadth apart where the square root in the Matern kernel has no derivative
        y = x[j] + (1e-9 if i == j else 0.0)
        gram[i, j] = stein_kernel_by_autograd(phi, x[i], y, b[i], b[j], precision)
    return gram.numpy()


def draw(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) * 2 - 0.5


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("precondition", [False, True])
@pytest.mark.parametrize("dimension", [1, 3, 14])
def test_stein_kernel_is_the_langevin_operator_applied_twice(name, precondition, dimension):
    kernel, phi = KERNELS[name]
    S = np.eye(dimension)
    if precondition:
        S = S3 if dimension == 3 else np.diag(np.linspace(0.5, 2.0, dimension)) + 0.1
        kernel = type(kernel)(
            *[v for k, v in vars(kernel).items() if k != "preconditioner"], preconditioner=S
        )
    x, b = draw(5, dimension)
    expected = gram_by_autograd(phi, torch.tensor(x), torch.tensor(b), torch.tensor(np.linalg.inv(S)))
    sample = read_sample(x, b)
    gram = SteinGram(sample, read_kernel(kernel, sample), tile=2)
    np.testing.assert_allclose(gram.dense(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gram.diagonal, np.diag(gram.dense()), rtol=1e-12)
    np.testing.assert_allclose(gram.column(3), expected[:, 3], rtol=1e-6, atol=1e-7)


def test_pairs_agree_with_fifty_digits():
    mpmath.mp.dps = 50
    for d in (2, 16):
        x, b = draw(100, d, seed=d)
        sample = read_sample(x, b)
        K = SteinGram(sample, read_kernel(None, sample)).dense()
        rng = np.random.default_rng(1)
        for i, j in rng.integers(0, 100, size=(50, 2)):
            X, Y, bx, by = ([mpmath.mpf(float(v)) for v in row] for row in (x[i], x[j], b[i], b[j]))
            rho = 1 + sum((p - q) ** 2 for p, q in zip(X, Y, strict=True))
            dot = sum(p * q for p, q in zip(bx, by, strict=True))
            cross = sum((p - q) * (r - s) for p, q, r, s in zip(bx, by, X, Y, strict=True))
            exact = dot * rho**-0.5 + rho**-1.5 * (cross + d) - 3 * (rho - 1) * rho**-2.5
            scale = max(abs(exact), mpmath.mpf(K[i, i]) ** 0.5 * mpmath.mpf(K[j, j]) ** 0.5)
            assert abs(K[i, j] - exact) < 1e-12 * scale


@pytest.mark.parametrize("dimension", [1, 2, 14])
def test_two_point_sample_has_its_closed_form(dimension):
    x = np.zeros((2, dimension))
    x[1, 0] = 1.5
    rho = 1 + 1.5**2
    off = rho**-1.5 * (-(1.5**2) + dimension) - 3 * 1.5**2 * rho**-2.5
    expected = (2 * dimension + 1.5**2 + 2 * off) / 4
    assert ksd(x, -x).squared == pytest.approx(expected, rel=1e-13)
    assert ksd(x, -x, statistic="U").squared == pytest.approx(off, rel=1e-12)


def test_population_value_of_one_mode_of_a_mixture():
    # points at the quantiles of N(-1.5, 1), target the symmetric mixture of N(-1.5, 1) and N(1.5, 1)
    from scipy.stats import norm

    x = norm.ppf((np.arange(2000) + 0.5) / 2000) - 1.5
    b = -(x + 1.5) + 3 / (1 + np.exp(-3 * x))
    assert ksd(x, b).squared == pytest.approx(0.0709227449950, rel=2e-4)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 12), d=st.integers(1, 16), tile=st.integers(1, 13))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_order_rotation_and_tiles_do_not_change_the_value(seed, n, d, tile):
    rng = np.random.default_rng(seed)
    x, b = draw(n, d, seed)
    rotation, order = np.linalg.qr(rng.normal(size=(d, d)))[0], rng.permutation(n)
    expected = ksd(x, b).squared
    assert ksd(x[order] @ rotation, b[order] @ rotation).squared == pytest.approx(expected, rel=1e-9)
    sample = read_sample(x, b)
    gram = SteinGram(sample, read_kernel(None, sample), tile=tile)
    assert gram.product(np.full(n, 1 / n)).mean() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dimension", [3, 20])
def test_shift_by_a_million_does_not_change_the_value(dimension):
    rng = np.random.default_rng(0)
    x = rng.integers(-64, 65, size=(40, dimension)) / 32.0  # a grid, so that the shift is exact
    b = rng.normal(size=x.shape)
    assert ksd(x + 2.0**20, b).value == pytest.approx(ksd(x, b).value, rel=1e-12)


def test_clusters_far_apart_keep_their_inner_distances():
    # two tight clusters 2^22 apart in 20 dimensions: matrix products alone lose every digit of r^2
    rng = np.random.default_rng(0)
    x = rng.integers(-64, 65, size=(30, 20)) / 32.0
    b = rng.normal(size=x.shape) * 1e-3
    far = x.copy()
    far[15:] += 2.0**22
    near, other = ksd(x[:15], b[:15]).squared, ksd(x[15:], b[15:]).squared
    # pairs between the clusters vanish like 1/distance
    assert ksd(far, b).squared == pytest.approx((near + other) / 4, rel=1e-5)


def test_weights_count_like_repeated_points():
    x, b = draw(4, 3)
    w = np.array([0.5, 0.25, 0.125, 0.125])
    repeat = np.repeat(np.arange(4), [4, 2, 1, 1])
    result = ksd(x, b, weights=w)
    assert result.value == pytest.approx(ksd(x[repeat], b[repeat]).value, rel=1e-12)
    assert result.contributions.sum() == pytest.approx(result.squared, rel=1e-12)
    assert w @ result.witness == pytest.approx(result.value, rel=1e-12)


def test_u_statistic_leaves_out_the_diagonal_also_with_weights():
    x, b = draw(5, 2)
    w = np.array([0.4, 0.3, 0.2, 0.2, -0.1])
    K = SteinGram(s := read_sample(x, b), read_kernel(None, s)).dense()
    off = K - np.diag(np.diag(K))
    assert ksd(x, b, statistic="U", weights=w).squared == pytest.approx(w @ off @ w / (1 - w @ w), rel=1e-12)
    far = 10.0 * np.arange(1, 6)[:, None]
    narrow = ksd(far, -far, Gaussian(), statistic="U")
    assert narrow.value == pytest.approx(0.0, abs=1e-6)  # blind, where V is not
    assert ksd(far, -far, Gaussian()).squared == pytest.approx((5500 + 5) / 25, rel=1e-9)


def test_prefixes_agree_with_separate_calls():
    x, b = draw(300, 2)
    sizes = [300, 1, 2, 257, 40]
    expected = [ksd(x[:m], b[:m]).value for m in sizes]
    np.testing.assert_allclose(ksd_path(x, b, sizes), expected, rtol=1e-10)
    tensor = ksd_path(torch.tensor(x), torch.tensor(b), sizes)
    assert isinstance(tensor, torch.Tensor)
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0.0)


def test_sum_of_kernels_adds_squares():
    x, b = draw(20, 2)
    both = ksd(x, b, InverseMultiquadric() + Gaussian(preconditioner=np.diag([2.0, 3.0]))).squared
    single = ksd(x, b).squared + ksd(x, b, Gaussian(preconditioner=np.diag([2.0, 3.0]))).squared
    assert both == pytest.approx(single, rel=1e-12)


def test_scalar_preconditioner_is_a_length_scale():
    x, b = draw(20, 3)
    wide = InverseMultiquadric(c=2.0)
    other = InverseMultiquadric(preconditioner=4.0 * np.eye(3))  # (1 + r^2/4)^(-1/2) = 2 (4 + r^2)^(-1/2)
    assert ksd(x, b, other).squared == pytest.approx(2 * ksd(x, b, wide).squared, rel=1e-12)


def test_recipes_are_the_matrices_they_name():
    x, b = draw(50, 3)
    distances = np.sort([np.linalg.norm(x[i] - x[j]) for i in range(50) for j in range(i)])
    matrices = {
        "median": np.median(distances) ** 2 * np.eye(3),
        "scaled_median": np.median(distances) ** 2 / np.log(50) * np.eye(3),
        "sample_covariance": np.cov(x.T),
        "score_covariance": np.linalg.inv(np.cov(b.T)),
    }
    for recipe, matrix in matrices.items():
        expected = ksd(x, b, InverseMultiquadric(preconditioner=matrix)).value
        assert ksd(x, b, InverseMultiquadric(preconditioner=recipe)).value == pytest.approx(
            expected, rel=1e-9
        )


def test_covariance_preconditioner_makes_the_kernel_free_of_units():
    # x -> A x, b -> A^-T b: the kernel sees the same distances, the operator does not change
    x, b = draw(40, 2)
    K = InverseMultiquadric(preconditioner="sample_covariance")
    sample, moved = read_sample(x, b), read_sample(x * [10.0, 0.1], b / [10.0, 0.1])
    a, c = K.fit(sample)[0], K.fit(moved)[0]
    np.testing.assert_allclose(
        np.linalg.norm((x[:1] - x) @ a.factor, axis=1),
        np.linalg.norm((moved.points[:1] - moved.points) @ c.factor, axis=1),
        rtol=1e-9,
    )


def test_witness_has_the_discrepancy_as_sample_mean_and_is_the_operator_of_the_stein_function():
    x, b = draw(30, 2)
    result = ksd(x, b)
    np.testing.assert_allclose(witness(x, b, x, b), result.witness, rtol=1e-10)
    at = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    jacobian = torch.tensor(
        np.stack(
            [
                (stein_function(x, b, at.numpy() + e) - stein_function(x, b, at.numpy() - e))[0] / 2e-5
                for e in 1e-5 * np.eye(2)
            ]
        )
    )
    score = np.array([[0.9, 0.1]])
    expected = float(score[0] @ stein_function(x, b, at.numpy())[0]) + float(jacobian.trace())
    assert witness(x, b, at.numpy(), score)[0] == pytest.approx(expected, rel=1e-6)


def test_expected_is_what_a_correct_sample_has():
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(40):
        x = rng.normal(size=(100, 3))
        result = ksd(x, -x)
        squares.append(result.squared / result.expected**2)
    assert np.mean(squares) == pytest.approx(1.0, abs=0.15)


def test_standard_error_is_the_spread_over_independent_samples():
    rng = np.random.default_rng(0)
    results = [ksd(x := rng.normal(size=(200, 2)) + 1.0, -x, statistic="U") for _ in range(200)]
    spread = np.std([r.squared for r in results])
    assert np.mean([r.standard_error for r in results]) == pytest.approx(spread, rel=0.15)


def test_three_dimensional_draws_tensors_and_functions_are_read():
    x, b = draw(12, 2)
    expected = ksd(x, b).value
    assert ksd(x.reshape(3, 4, 2), b.reshape(3, 4, 2)).value == expected
    assert ksd(torch.tensor(x), torch.tensor(b)).value == expected
    assert ksd(x.tolist(), b.tolist()).value == expected
    assert ksd(x, lambda p: -p).value == ksd(x, -x).value
    assert ksd(torch.tensor(x), lambda p: -p).value == ksd(x, -x).value
    assert ksd(x[:, 0], b[:, 0]).value == ksd(x[:, :1], b[:, :1]).value


def test_result_is_saved_and_drawn(tmp_path):
    for d in (1, 2):
        x, b = draw(9, d)
        result = ksd(x, b)
        again = fm.load(result.save(tmp_path / "r.safetensors"))
        assert again.value == result.value
        np.testing.assert_array_equal(again.witness, result.witness)
        assert "times that of a correct independent sample" in result.picture().caption
        assert "9 points" in str(result)
        assert result.ratio == result.value / result.expected


BAD = {
    "other lengths": (lambda x, b: ksd(x, b[:-1]), r"shape \(4, 2\) and points \(5, 2\)"),
    "a NaN": (
        lambda x, b: ksd(np.where(np.arange(5)[:, None] == 3, np.nan, x), b),
        r"points hold nan in row 3",
    ),
    "an infinity": (
        lambda x, b: ksd(x, np.where(np.arange(5)[:, None] == 2, np.inf, b)),
        r"row 2, coordinate 0.*support",
    ),
    "no points": (lambda x, b: ksd(x[:0], b[:0]), r"points are empty"),
    "no coordinates": (lambda x, b: ksd(x[:, :0], b[:, :0]), r"points are empty"),
    "four dimensions": (lambda x, b: ksd(x[None, None], b), r"4 dimensions"),
    "complex": (lambda x, b: ksd(x + 1j, b), r"complex128; real numbers"),
    "ragged": (lambda x, b: ksd([[1.0], [1.0, 2.0]], b), r"rows of different lengths"),
    "text": (lambda x, b: ksd([["a"]], b), r"real numbers are needed"),
    "weights of another length": (
        lambda x, b: ksd(x, b, weights=np.ones(3) / 3),
        r"weights have shape \(3,\)",
    ),
    "weights beside one": (lambda x, b: ksd(x, b, weights=np.ones(5)), r"weights sum to 5"),
    "a weight NaN": (lambda x, b: ksd(x, b, weights=[1, np.nan, 0, 0, 0]), r"weights hold nan in row 1"),
    "statistic": (lambda x, b: ksd(x, b, statistic="W"), r'statistic is .W.; it is "V" or "U"'),
    "U of one point": (lambda x, b: ksd(x[:1], b[:1], statistic="U"), r"one point has no others"),
    "c": (lambda x, b: InverseMultiquadric(c=0.0), r"c is 0; a length scale must be positive"),
    "beta": (lambda x, b: InverseMultiquadric(beta=0.5), r"beta is 0.5; the exponent must be negative"),
    "scale": (lambda x, b: Gaussian(scale=-1.0), r"scale is -1"),
    "matern scale": (lambda x, b: Matern32(scale=np.inf), r"scale is inf"),
    "kernel": (lambda x, b: ksd(x, b, "imq"), r"kernel is 'imq'; pass InverseMultiquadric"),
    "recipe": (lambda x, b: ksd(x, b, Gaussian(preconditioner="mean")), r"recipes are median"),
    "matrix shape": (
        lambda x, b: ksd(x, b, Gaussian(preconditioner=np.eye(3))),
        r"shape \(3, 3\); the points need \(2, 2\)",
    ),
    "matrix symmetry": (
        lambda x, b: ksd(x, b, Gaussian(preconditioner=[[1.0, 0.5], [0, 1]])),
        r"not symmetric",
    ),
    "matrix sign": (
        lambda x, b: ksd(x, b, Gaussian(preconditioner=[[1.0, 2.0], [2.0, 1]])),
        r"not positive definite",
    ),
    "constant coordinate": (
        lambda x, b: ksd(x * [1.0, 0.0], b, Gaussian(preconditioner="sample_covariance")),
        r"coordinate 1 has no spread",
    ),
    "singular scores": (
        lambda x, b: ksd(x, b[:, :1] * [1.0, 2.0], Gaussian(preconditioner="score_covariance")),
        r"'score_covariance' is singular",
    ),
    "coinciding points": (
        lambda x, b: ksd(x * 0, b, Gaussian(preconditioner="median")),
        r"median distance .* is zero",
    ),
    "one point": (
        lambda x, b: ksd(x[:1], b[:1], Gaussian(preconditioner="median")),
        r"at least 2 points; there is 1",
    ),
    "path size": (lambda x, b: ksd_path(x, b, [1, 6]), r"sizes hold 6; the sample has 5"),
    "path size zero": (lambda x, b: ksd_path(x, b, [0]), r"sizes hold 0"),
    "path size broken": (lambda x, b: ksd_path(x, b, [1.5]), r"whole numbers from 1 to 5"),
    "path ragged": (lambda x, b: ksd_path(x, b, [[1], [1, 2]]), r"whole numbers from 1 to 5"),
    "witness elsewhere": (
        lambda x, b: witness(x, b, x[:, :1], b[:, :1]),
        r"at has 1 coordinates and the points 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_ksd_refuses(case):
    call, message = BAD[case]
    x, b = draw(5, 2)
    with pytest.raises(fm.InputError, match=message):
        call(x, b)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("kernel", "dimension", "message"),
    [
        (Gaussian(), 3, "Gaussian kernel in 3 dimensions"),
        (Matern32(), 4, "Matern kernel in 4"),
        (InverseMultiquadric(beta=-1.5), 1, "beta is -1.5"),
        (Gaussian() + Matern32(), 3, "Gaussian kernel in 3"),
    ],
)
def test_ksd_warns_where_the_theory_is_void(kernel, dimension, message):
    x, b = draw(5, dimension)
    with pytest.warns(fm.TheoryWarning, match=message):
        ksd(x, b, kernel)


@pytest.mark.filterwarnings("error")
def test_ksd_is_silent_where_the_theory_holds():
    for d in (1, 2, 5):
        ksd(*draw(5, d))
    ksd(*draw(5, 2), Gaussian())
    ksd(*draw(5, 5), Gaussian() + InverseMultiquadric())


def test_points_at_the_middle_of_the_sample_divide_nothing_by_zero():
    # a third of a chain stands still at zero, its median: the check of the tails has no direction there
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 2)) * (rng.random(1000) > 0.3)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(ksd(x, -x).value)
