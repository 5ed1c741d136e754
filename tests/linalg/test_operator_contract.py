"""One list of checks for every kind of operator."""

import numpy as np
import pytest
import torch

import fathometer as fm
from fathometer.errors import BudgetError, InputError
from fathometer.linalg import LinearOperator, as_operator


def matrix(rows, columns, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=g, dtype=torch.float64)


def symmetric(n, seed=0):
    A = matrix(n, n, seed)
    return A + A.T


def by_products(A, **options):
    """The same matrix, known by its products only."""
    same = A.shape[0] == A.shape[1] and torch.equal(A, A.T)
    return LinearOperator(
        shape=tuple(A.shape),
        product=lambda V: A.to(V.dtype) @ V,
        transposed=None if same else lambda V: A.T.to(V.dtype) @ V,
        dtype=A.dtype,
        symmetric=same,
        **options,
    )


def dense_symmetric():
    A = symmetric(6)
    return as_operator(A), A


def dense_rectangular():
    A = matrix(4, 7)
    return as_operator(A), A


def products_symmetric():
    A = symmetric(6)
    return by_products(A), A


def total():
    A, B = symmetric(6, 1), matrix(6, 6, 2)
    return as_operator(A) + by_products(B), A + B


def difference():
    A, B = symmetric(6, 1), symmetric(6, 2)
    return as_operator(A) - as_operator(B), A - B


def multiple():
    A = matrix(4, 7)
    return -2.5 * by_products(A) / 2, -1.25 * A


def composed():
    A, B = matrix(5, 4, 1), matrix(4, 7, 2)
    return as_operator(A) @ by_products(B), A @ B


def gram():
    A = matrix(5, 4)
    return as_operator(A).T @ as_operator(A), A.T @ A


def own_gram():
    A = by_products(matrix(5, 4))
    return A.T @ A, matrix(5, 4).T @ matrix(5, 4)


def square():
    A = as_operator(symmetric(5))
    return A @ A, symmetric(5) @ symmetric(5)


def restricted():
    A = matrix(7, 7)
    at = [5, 0, 3]
    return by_products(A).restrict(at), A[at][:, at]


def transposed():
    A = matrix(4, 7)
    return by_products(A).T, A.T


KINDS = [
    dense_symmetric,
    dense_rectangular,
    products_symmetric,
    total,
    difference,
    multiple,
    composed,
    gram,
    own_gram,
    square,
    restricted,
    transposed,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
class TestEveryOperator:
    def test_multiplies_like_its_matrix(self, kind):
        A, dense = kind()
        V = matrix(dense.shape[1], 3, 9)
        torch.testing.assert_close(A @ V, dense @ V)
        torch.testing.assert_close(A @ V[:, 0], dense @ V[:, 0])
        assert A.shape == tuple(dense.shape)

    def test_gives_numpy_for_numpy(self, kind):
        A, dense = kind()
        V = matrix(dense.shape[1], 3, 9).numpy()
        assert isinstance(A @ V, np.ndarray)
        np.testing.assert_allclose(A @ V[:, 1], dense.numpy() @ V[:, 1], atol=1e-13)

    @pytest.mark.parametrize("block", [1, 2, 64])
    def test_writes_its_matrix_down_whatever_the_block(self, kind, block):
        A, dense = kind()
        torch.testing.assert_close(A.to_dense(block=block), dense)

    def test_has_the_transpose_of_its_matrix(self, kind):
        A, dense = kind()
        torch.testing.assert_close(A.T.to_dense(), dense.T)
        torch.testing.assert_close(A.T.T.to_dense(), dense)

    def test_is_called_symmetric_only_if_it_is(self, kind):
        A, dense = kind()
        if A.symmetric:
            torch.testing.assert_close(dense, dense.T)

    def test_works_in_scipy(self, kind):
        A, dense = kind()
        S = A.to_scipy()
        V = matrix(dense.shape[1], 3, 9).numpy()
        U = matrix(dense.shape[0], 2, 8).numpy()
        np.testing.assert_allclose(S @ V, dense.numpy() @ V, atol=1e-13)
        np.testing.assert_allclose(S.rmatmat(U), dense.numpy().T @ U, atol=1e-13)
        np.testing.assert_allclose(S.rmatvec(U[:, 0]), dense.numpy().T @ U[:, 0], atol=1e-13)

    def test_refuses_vectors_that_do_not_fit(self, kind):
        A, dense = kind()
        with pytest.raises(InputError, match=r"V has shape \(\d+,\); .* takes \(\d+,\) or \(\d+, k\)"):
            A @ torch.zeros(dense.shape[1] + 1)
        with pytest.raises(InputError, match="takes real vectors"):
            A @ torch.zeros(dense.shape[1], dtype=torch.complex128)

    def test_leaves_its_vectors_alone(self, kind):
        A, dense = kind()
        V = matrix(dense.shape[1], 3, 9)
        kept = V.clone()
        A @ V
        assert torch.equal(V, kept)


def test_gram_products_and_squares_know_their_symmetry():
    assert own_gram()[0].symmetric
    assert square()[0].symmetric
    assert not composed()[0].symmetric


def test_a_sum_is_in_the_widest_dtype():
    A, B = symmetric(5, 1), symmetric(5, 2)
    both = by_products(A.float()) + by_products(B)
    assert both.dtype == torch.float64
    torch.testing.assert_close(both.to_dense(), A.float().double() + B)


def test_a_matrix_symmetric_up_to_rounding_is_symmetric():
    Q = torch.linalg.qr(matrix(40, 40))[0]
    A = Q @ torch.diag(torch.linspace(-3, 5, 40, dtype=torch.float64)) @ Q.T
    assert not torch.equal(A, A.T)
    assert as_operator(A).symmetric
    A[3, 4] += 1e-9
    assert not as_operator(A).symmetric


def test_numpy_scalars_and_tensors_scale_an_operator():
    A, dense = dense_symmetric()
    for factor in (np.float64(2.0), np.float32(2.0), torch.tensor(2.0), 2):
        torch.testing.assert_close((factor * A).to_dense(), 2 * dense)
        torch.testing.assert_close((A * factor).to_dense(), 2 * dense)
    torch.testing.assert_close((-A).to_dense(), -dense)


def test_a_mask_restricts_like_positions():
    A = symmetric(5)
    mask = torch.tensor([True, False, True, True, False])
    torch.testing.assert_close(as_operator(A).restrict(mask).to_dense(), A[mask][:, mask])


def test_operators_refuse_what_has_no_meaning():
    A, B = as_operator(symmetric(4)), as_operator(matrix(4, 7))
    with pytest.raises(InputError, match=r"shapes \(4, 4\) and \(4, 7\) cannot be added"):
        A + B
    with pytest.raises(InputError, match=r"shapes \(4, 7\) and \(4, 4\) cannot be multiplied"):
        B @ A
    with pytest.raises(InputError, match="only a square operator is restricted"):
        B.restrict([0])
    with pytest.raises(InputError, match=r"non-empty selection of 0\.\.3"):
        A.restrict([4])
    with pytest.raises(InputError, match="positions holds 2 more than once"):
        A.restrict([0, 2, 2])
    with pytest.raises(InputError, match="mask of 3 entries; 4 are needed"):
        A.restrict([True, False, True])
    with pytest.raises(InputError, match="factor is nan"):
        A * float("nan")
    with pytest.raises(InputError, match="cannot be divided by zero"):
        A / 0
    with pytest.raises(InputError, match="block is 0"):
        A.to_dense(block=0)
    with pytest.raises(InputError, match="a symmetric operator is square"):
        LinearOperator(shape=(2, 3), product=lambda V: V, dtype=torch.float64)
    with pytest.raises(InputError, match="built without its transpose"):
        LinearOperator(shape=(2, 2), product=lambda V: V, dtype=torch.float64, symmetric=False).T  # noqa: B018
    with pytest.raises(InputError, match="they must agree"):
        A @ as_operator(symmetric(4).float())
    with pytest.raises(InputError, match="use one device"):
        A + LinearOperator(
            shape=(4, 4), product=lambda V: V, dtype=torch.float64, device=torch.device("meta")
        )
    for thing in (3.0 * torch.ones(2), "x"):
        with pytest.raises(TypeError):
            A * thing
    with pytest.raises(TypeError):
        A + 1
    with pytest.raises(TypeError):
        A - 1


def test_a_product_of_the_wrong_shape_is_named():
    A = LinearOperator(shape=(3, 3), product=lambda V: V[:2], dtype=torch.float64, name="broken")
    with pytest.raises(InputError, match=r"product of broken gave shape \(2, 1\) for 1 columns"):
        A @ torch.zeros(3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3), r"matrix has shape \(3,\)"),
        (torch.zeros(0, 3), "non-empty"),
        (torch.zeros(2, 2, dtype=torch.complex64), "operators here are real"),
        (torch.tensor([[1.0, 0.0], [float("nan"), 1.0]]), r"matrix\[1, 0\] is not finite"),
        (torch.eye(3).to_sparse(), "layout"),
        ([["a"]], "no dense array"),
    ],
)
def test_plain_matrices_are_checked(bad, message):
    with pytest.raises(InputError, match=message):
        as_operator(bad)


def test_an_operator_stays_itself_and_shows_its_shape():
    A = as_operator(np.eye(3, dtype=int), name="identity")
    assert as_operator(A) is A
    assert repr(A) == "<identity 3 x 3, torch.float64>"


def test_a_matrix_that_does_not_fit_is_forecast():
    A = by_products(symmetric(50))
    with fm.budget(1000), pytest.raises(BudgetError, match="up to 11 x 11 fits"):
        A.to_dense()
