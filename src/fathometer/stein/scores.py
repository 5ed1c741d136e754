"""Scores of a log density by automatic differentiation, and a check of scores of one's own.

A log density here is a function of one point (d,), a torch tensor, that gives one
number; a normalizing constant may be left out. Its score is its gradient.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.sample import as_array, read_points

LogDensity = Callable[[Tensor], Any]


def score(log_density: LogDensity) -> Callable[[Any], Any]:
    """The score of a log density, as a function of points (n, d) or of one point (d,).

    Args:
        log_density: Maps one point (d,), a float64 tensor, to one number, by torch operations.

    Returns:
        A function that gives the scores in the shape and kind (numpy or torch) of its points.
        It raises `InputError` if the log density gives no number or cannot be differentiated.

    >>> import numpy as np
    >>> score(lambda x: -0.5 * (x**2).sum())(np.array([[1.0, -2.0]])).tolist()
    [[-1.0, 2.0]]
    """
    both = value_and_score(log_density)

    def evaluate(points: Any) -> Any:
        x = torch.as_tensor(as_array(points, name="points"))
        flat = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
        answer = both(flat)[1].reshape(x.shape)
        return answer.to(points) if isinstance(points, Tensor) else answer.numpy()

    return evaluate


def value_and_score(log_density: LogDensity) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function from points (n, d) to the log densities (n,) and the scores (n, d).

    All points at once by ``vmap`` where the function allows it, one by one where it does not.
    """
    together = torch.func.vmap(torch.func.grad_and_value(log_density))
    state = {"together": True}

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach()
        if state["together"]:
            try:
                gradient, value = together(x)
                return value.detach().double(), gradient.detach().double()
            except Exception:
                state["together"] = False  # the loop below names what is wrong, if anything is
        pairs = [_one(log_density, point) for point in x]
        return torch.stack([v for v, _ in pairs]), torch.stack([g for _, g in pairs])

    return evaluate


def hessian_product(log_density: LogDensity) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from points and vectors (n, d) to the Hessians of the log density times the vectors (n, d).

    Two sweeps of automatic differentiation a point; no Hessian is formed.
    """

    def one(x: Tensor, v: Tensor) -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(_number(log_density(leaf), leaf), leaf, create_graph=True)
            if not slope.requires_grad:  # the log density is linear in the point
                return torch.zeros_like(v)
            (product,) = torch.autograd.grad(slope, leaf, v, allow_unused=True)
        return torch.zeros_like(v) if product is None else product.double()

    def single(x: Tensor, v: Tensor) -> Tensor:
        return torch.func.vjp(torch.func.grad(log_density), x)[1](v)[0]

    together = torch.func.vmap(single)
    state = {"together": True}

    def evaluate(x: Tensor, v: Tensor) -> Tensor:
        if state["together"]:
            try:
                return together(x.detach(), v).detach().double()
            except Exception:
                state["together"] = False  # the loop names what is wrong, if anything is
        return torch.stack([one(a, b) for a, b in zip(x, v, strict=True)])

    return evaluate


def log_density_values(log_density: LogDensity, x: Tensor) -> Tensor:
    """The log density at each of the points (n, d), without gradients: (n,)."""
    with torch.no_grad():
        return torch.stack([_number(log_density(point.detach()), point).detach().double() for point in x])


def check_score(
    log_density: LogDensity, score: Callable[[Any], Any] | Any, points: Any, *, tolerance: float = 1e-4
) -> float:
    """Compare scores with central differences of the log density, in float64.

    Args:
        log_density: Maps one point (d,), a tensor, to one number; it need not be differentiable
            by torch.
        score: Maps points (n, d) to scores (n, d); or the scores themselves.
        points: (n, d), where to compare; a few are enough.
        tolerance: Largest error allowed, relative to the larger of the score's norm at the point
            and 1 over the size of the point.

    Returns:
        The largest relative error.

    Raises:
        InputError: If an error is beyond the tolerance; the point, the coordinate and both
            numbers are named. Also if shapes do not fit.
    """
    x = read_points(points)
    given = read_points(score(_like(x, points)) if callable(score) else score, name="scores")
    if given.shape != x.shape:
        raise InputError(f"score gives shape {given.shape} for points of shape {x.shape}; they must agree.")
    numeric = _central_differences(log_density, x)
    scale = np.maximum(np.linalg.norm(numeric, axis=1), 1 / np.maximum(1.0, np.abs(x).max(1)))
    errors = np.abs(given - numeric) / scale[:, None]
    i, j = np.unravel_index(int(np.argmax(errors)), errors.shape)
    if not errors[i, j] <= tolerance:
        raise InputError(
            f"score: at point {i}, coordinate {j}, it is {given[i, j]:.8g}, but differences of log_density "
            f"give {numeric[i, j]:.8g} (relative error {errors[i, j]:.2g}). The score is the gradient of "
            "the log density, not of the density or of its negative."
        )
    return float(errors[i, j])


def _central_differences(log_density: LogDensity, x: np.ndarray) -> np.ndarray:
    """Fourth-order differences; the step balances truncation and rounding."""
    numeric = np.empty_like(x)
    for j in range(x.shape[1]):
        step = 1e-3 * np.maximum(1.0, np.abs(x[:, j]))
        values = []
        for times in (-2, -1, 1, 2):
            moved = x.copy()
            moved[:, j] += times * step
            values.append(log_density_values(log_density, torch.from_numpy(moved)).numpy())
        numeric[:, j] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return numeric


def _one(log_density: LogDensity, point: Tensor) -> tuple[Tensor, Tensor]:
    leaf = point.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = _number(log_density(leaf), leaf)
        if not value.requires_grad:
            raise InputError(
                "log_density does not depend on its point through torch operations, so it has no gradient; "
                "write it with torch, or pass scores of your own."
            )
        (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach().double(), gradient.double()


def _number(value: Any, point: Tensor) -> Tensor:
    """The one number a log density gives."""
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if tensor.numel() != 1:
        raise InputError(
            f"log_density gives shape {tuple(tensor.shape)} for one point of shape {tuple(point.shape)}; "
            "one number is needed."
        )
    return tensor.reshape(())


def _like(x: np.ndarray, points: Any) -> Any:
    return torch.from_numpy(x) if isinstance(points, Tensor) else x
