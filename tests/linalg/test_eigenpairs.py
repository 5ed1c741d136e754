"""Eigenpairs against spectra that were built in."""

import itertools

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.errors import BudgetError, InputError
from fathometer.linalg import LinearOperator, eigenpairs


def with_spectrum(values, dtype=torch.float64, seed=0):
    """An operator with exactly these eigenvalues: a diagonal between two reflections."""
    d = torch.as_tensor(values, dtype=torch.float64)[:, None]
    g = torch.Generator().manual_seed(seed)
    u, v = (torch.nn.functional.normalize(torch.randn(len(d), 1, generator=g).double(), dim=0) for _ in "uv")

    def reflect(V, w):
        return V - 2 * w * (w.T @ V)

    def product(V):
        inner = d * reflect(reflect(V.double(), u), v)
        return reflect(reflect(inner, v), u).to(dtype)

    return LinearOperator(shape=(len(d), len(d)), product=product, dtype=dtype, name="built")


def bulk(n, low=-0.02, high=0.08, seed=1):
    g = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, generator=g, dtype=torch.float64)


def outliers(*values, n=1500):
    return torch.cat([torch.tensor(values, dtype=torch.float64), bulk(n)])


def wanted(values, k, which):
    key = {"largest": lambda x: -x, "smallest": lambda x: x, "magnitude": lambda x: -abs(x)}[which]
    return torch.tensor(sorted(values.tolist(), key=key)[:k], dtype=torch.float64)


SPECTRA = {
    "ten outliers": outliers(*range(1, 11)),
    "outliers over two decades": outliers(*(10 ** (i / 5) for i in range(10))),
    "multiplicities five, three and two": outliers(5, 5, 5, 5, 5, 3, 3, 3, 2, 2),
    "pairs of both signs": outliers(5, -5, 3, -3, 2, -2, 1, -1, 0.5, -0.5),
    "a tight cluster": outliers(*(5 + 1e-7 * i for i in range(10))),
    "low rank": torch.cat([torch.arange(1.0, 8.0).double(), torch.zeros(1000).double()]),
    "the identity": torch.ones(700, dtype=torch.float64),
    "zero": torch.zeros(700, dtype=torch.float64),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("which", ["largest", "magnitude"])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_built_in_outliers_are_found_with_their_copies(name, which, k):
    values = SPECTRA[name]
    A = with_spectrum(values)
    pairs = eigenpairs(A, k, which)
    assert pairs.kind == "estimate"
    true = wanted(values, k, which)
    assert pairs.converged.all()
    # a symmetric eigenvalue is off by the residual at most
    assert ((pairs.values.abs() - true.abs()).abs() <= 1e-4 * true.abs() + 1e-12).all()
    torch.testing.assert_close(
        pairs.vectors.T @ pairs.vectors, torch.eye(k, dtype=torch.float64), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_order_is_the_promised_one_and_residuals_are_measured(which, dtype):
    values = outliers(9, 6, 3, -2, -5, -8)
    A = with_spectrum(values, dtype)
    pairs = eigenpairs(A, 3, which)
    tight = 1e-9 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(pairs.values.double(), wanted(values, 3, which), atol=tight * 9, rtol=1e-6)
    fresh = torch.linalg.vector_norm(A @ pairs.vectors - pairs.vectors * pairs.values, dim=0)
    torch.testing.assert_close(fresh, pairs.residuals, atol=10 * torch.finfo(dtype).eps, rtol=1e-3)
    assert pairs.values.dtype == pairs.vectors.dtype == dtype


def test_the_smallest_are_the_largest_of_the_negative():
    values = outliers(9, 6, 3, -2, -5, -8)
    low, high = eigenpairs(with_spectrum(values), 3, "smallest"), eigenpairs(with_spectrum(-values), 3)
    torch.testing.assert_close(low.values, -high.values, atol=1e-9, rtol=0)
    assert low.values.diff().min() > 0 > high.values.diff().max()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_nothing_is_called_converged_that_is_not(tolerance):
    values = torch.cos(torch.linspace(0, np.pi, 900, dtype=torch.float64))  # a dense edge
    A = with_spectrum(values)
    pairs = eigenpairs(A, 5, tolerance=tolerance, max_products=60)
    residual = torch.linalg.vector_norm(A @ pairs.vectors - pairs.vectors * pairs.values, dim=0)
    assert (residual[pairs.converged] <= tolerance * pairs.values[pairs.converged].abs() * (1 + 1e-6)).all()
    gap = (pairs.values[:, None] - values).abs().min(dim=1).values
    assert (gap <= residual + 1e-12).all()
    if tolerance == 1e-8:
        assert not pairs.converged.all()
    assert pairs.products <= 60 + 5 + 60


def test_products_are_counted_by_the_column():
    columns = []
    A = with_spectrum(outliers(5, 4, 3, 2))
    watched = LinearOperator(
        shape=A.shape, product=lambda V: (columns.append(V.shape[1]), A.product(V))[1], dtype=A.dtype
    )
    assert eigenpairs(watched, 4).products == sum(columns)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_block_does_not_change_the_answer(block):
    values = outliers(5, 5, 4, 3, 3, 3)
    pairs = eigenpairs(with_spectrum(values), 6, block=block)
    torch.testing.assert_close(pairs.values, wanted(values, 6, "largest"), atol=1e-6, rtol=0)


def test_restarts_keep_what_was_found():
    # so little room that the basis is thrown away many times
    values = torch.cat([torch.linspace(1, 2, 20).double(), bulk(800, -1, 1)])
    A = with_spectrum(values)
    with fm.budget(30 * 820 * 8):
        pairs = eigenpairs(A, 4)
    assert pairs.converged.all()
    torch.testing.assert_close(pairs.values, wanted(values, 4, "largest"), atol=1e-6, rtol=0)


def test_a_copy_that_the_start_cannot_see_is_found_by_the_check():
    # the start has no component along the second 4: in exact arithmetic no Krylov space of it ever has
    values = outliers(4, 4, 2, 1)
    A = LinearOperator(
        shape=(1504, 1504), product=lambda V: values[:, None] * V, dtype=torch.float64, name="diagonal"
    )
    blind = torch.ones(1504, dtype=torch.float64)
    blind[1] = 0.0
    missed = eigenpairs(A, 3, start=blind, check=False)
    found = eigenpairs(A, 3, start=blind)
    torch.testing.assert_close(missed.values, torch.tensor([4.0, 2, 1]).double(), atol=1e-6, rtol=0)
    assert missed.converged.all()  # they are eigenpairs, but not the three largest
    assert missed.complete_beyond == np.inf
    torch.testing.assert_close(found.values, torch.tensor([4.0, 4, 2]).double(), atol=1e-6, rtol=0)
    assert found.complete_beyond < 2.1


def test_completeness_is_claimed_down_to_the_next_eigenvalue_at_most():
    for which, seed in itertools.product(["largest", "smallest", "magnitude"], range(5)):
        values = outliers(9, 6, 3, -2.5, -5, -8)
        pairs = eigenpairs(with_spectrum(values, seed=seed), 2, which, seed=seed)
        third = wanted(values, 3, which)[2]
        sign = -1 if which == "smallest" else 1
        assert sign * pairs.complete_beyond > 0
        assert abs(pairs.complete_beyond) >= abs(third)
        assert abs(pairs.complete_beyond) <= abs(pairs.values[1]) * 1.001


def test_a_warm_start_needs_fewer_products():
    A = with_spectrum(bulk(2000, -1, 1))
    cold = eigenpairs(A, 1, check=False)
    warm = eigenpairs(A, 1, start=cold.vectors[:, 0], check=False)
    assert warm.converged.all()
    assert warm.products <= 4 < cold.products


def test_small_operators_and_matrices_are_solved_whole():
    g = torch.Generator().manual_seed(0)
    M = torch.randn(30, 30, generator=g, dtype=torch.float64)
    M = M + M.T
    A = LinearOperator(shape=(30, 30), product=lambda V: M @ V, dtype=torch.float64)
    for B, spent in ((A, 60), (fm.as_operator(M), 30)):
        pairs = eigenpairs(B, 30, "smallest")
        assert (pairs.kind, pairs.products) == ("exact", spent)
        torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(M))
    from_numpy = eigenpairs(M.numpy(), 2, "magnitude")
    assert isinstance(from_numpy.values, np.ndarray)
    np.testing.assert_allclose(from_numpy.values, wanted(torch.linalg.eigvalsh(M), 2, "magnitude"))


def test_same_seed_same_bits_and_the_global_stream_is_left_alone():
    A = with_spectrum(outliers(3, 2, 1))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = eigenpairs(A, 3, seed=4), eigenpairs(A, 3, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.vectors, two.vectors)


def test_eigenpairs_are_saved_and_say_what_they_are(tmp_path):
    pairs = eigenpairs(with_spectrum(outliers(3, 2, 1)), 2)
    back = fm.load(pairs.save(tmp_path / "pairs.safetensors"))
    assert torch.equal(back.values, pairs.values)
    assert back.converged.dtype == torch.bool
    assert "2 of 2 converged" in str(pairs)
    assert pairs.value is pairs.values
    assert pairs.error is pairs.residuals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; built of size 600 has 1 to 600 eigenpairs"),
        ({"k": 601}, "k is 601"),
        ({"k": 2, "which": "LM"}, "which is 'LM'; it is one of largest, smallest, magnitude"),
        ({"k": 2, "tolerance": 0.0}, "tolerance is 0.0; it must be positive"),
        ({"k": 2, "tolerance": float("nan")}, "tolerance is nan"),
        ({"k": 2, "block": 0}, "block is 0"),
        ({"k": 2, "max_products": 1}, "max_products is 1"),
        ({"k": 2, "start": torch.zeros(7)}, r"start has shape \(7, 1\)"),
        ({"k": 2, "start": torch.full((600,), float("nan"))}, "start holds NaN"),
    ],
)
def test_arguments_without_a_meaning_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        eigenpairs(with_spectrum(bulk(600)), **options)


def test_operators_that_are_not_symmetric_are_refused():
    with pytest.raises(InputError, match="not symmetric; eigenpairs needs a symmetric operator"):
        eigenpairs([[1.0, 2.0], [0.0, 1.0]], 1)
    for n in (20, 600):  # the whole matrix, and the Krylov space
        B = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).double()
        liar = LinearOperator(shape=(n, n), product=lambda V, B=B: B @ V, dtype=B.dtype, name="liar")
        with pytest.raises(InputError, match="liar is declared symmetric and is not"):
            eigenpairs(liar, 3)


@pytest.mark.parametrize(("share", "refused"), [(1e-1, True), (1e-5, False)])
def test_a_skew_part_is_noticed_within_the_first_blocks(share, refused):
    # not only at the end, by the whole matrix, when all products have been paid for
    g, spent = torch.Generator().manual_seed(0), []
    A, S = (torch.randn(600, 600, generator=g, dtype=torch.float64) for _ in range(2))
    B = (A + A.T) / 2 + share * (S - S.T) / 2

    def product(V):
        spent.append(V.shape[1])
        return B @ V

    almost = LinearOperator(shape=B.shape, product=product, dtype=B.dtype, symmetric=True, name="almost")
    if not refused:
        assert eigenpairs(almost, 3, tolerance=1e-2).values.shape == (3,)
        return
    with pytest.raises(
        InputError, match=r"almost is declared symmetric and is not: u\.Av and v\.Au differ by"
    ):
        eigenpairs(almost, 3)
    assert sum(spent) < 100


@pytest.mark.parametrize("n", [20, 600])
def test_a_product_that_is_not_finite_is_refused_by_name(n):
    A = LinearOperator(
        shape=(n, n), product=lambda V: V / torch.zeros_like(V[:1]), dtype=torch.float64, name="bad"
    )
    with pytest.raises(InputError, match="bad is not finite"):
        eigenpairs(A, 2)


def test_a_basis_that_does_not_fit_is_forecast():
    A = with_spectrum(bulk(5000))
    with fm.budget(5000 * 8 * 20), pytest.raises(BudgetError, match="10 eigenpairs of built need"):
        eigenpairs(A, 10)


def test_where_the_search_costs_more_than_the_whole_matrix_the_matrix_is_taken():
    # eigenvalues that no Krylov space of P products tells apart
    values = 10 ** (-6 * torch.rand(600, generator=torch.Generator().manual_seed(2)).double())
    A = with_spectrum(values)
    pairs = eigenpairs(A, 3, "smallest")
    assert pairs.converged.all()
    assert pairs.kind == "exact"
    assert pairs.products <= 2 * 600 + 70
    torch.testing.assert_close(pairs.values, wanted(values, 3, "smallest"), rtol=1e-8, atol=0)
    assert eigenpairs(A, 3, "smallest", max_products=600).kind == "estimate"
    with fm.budget(100 * 600 * 8):  # no room for the matrix
        assert eigenpairs(A, 3, "smallest").kind == "estimate"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("values", [[3.0], [-2.0], [0.0], [1.0, -1.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_the_smallest_operators_have_eigenpairs(values, which, dtype):
    A = with_spectrum(values, dtype)
    for k in range(1, len(values) + 1):
        pairs = eigenpairs(A, k, which)
        assert pairs.converged.all()
        true = wanted(torch.tensor(values), k, which).abs()
        torch.testing.assert_close(pairs.values.double().abs(), true, atol=1e-6, rtol=0)
        torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(k, dtype=dtype))


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_the_scale_of_an_operator_does_not_matter(size):
    values = outliers(5, 5, 3, -2, n=700)
    pairs = eigenpairs(with_spectrum(size * values), 4, "magnitude")
    assert pairs.converged.all()
    torch.testing.assert_close(pairs.values / size, torch.tensor([5, 5, 3, -2.0]).double(), atol=1e-6, rtol=0)


def test_all_but_one_eigenvalue_the_same():
    values = torch.ones(700, dtype=torch.float64)
    values[0] = 2.0
    A = with_spectrum(values)
    torch.testing.assert_close(eigenpairs(A, 20).values, values[:20], atol=1e-8, rtol=0)
    torch.testing.assert_close(eigenpairs(A, 3, "smallest").values, values[1:4], atol=1e-8, rtol=0)
