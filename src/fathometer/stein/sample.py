"""A sample and its scores, read from whatever holds them and checked once.

Every method of this room starts here: points and scores come as numpy or torch
arrays of shape (n, d), (n,) for one coordinate, or (chain, draw, d), or as an
ArviZ object, and leave as two float64 arrays (n, d). What is not finite, does not
fit or is empty is refused with the place where it was found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from fathometer.errors import InputError
from fathometer.stein.doors import draws_of, is_inference_data

_LARGEST = 1e75  # fourth powers of larger numbers overflow


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Points and scores as float64 arrays.

    Attributes:
        points: (n, d), in the units of the target's variables.
        scores: (n, d), the gradient of the log target density at each point, in 1/units.
        like: A tensor of the caller's kind, or None for numpy; answers go out as the points came in.
    """

    points: Float[np.ndarray, "n d"]
    scores: Float[np.ndarray, "n d"]
    like: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of points n."""
        return len(self.points)

    @property
    def dimension(self) -> int:
        """Number of coordinates d."""
        return self.points.shape[1]

    def out(self, array: np.ndarray) -> Any:
        """``array`` as the caller's kind: numpy, or a tensor on the device of the points."""
        if self.like is None:
            return array
        answer = torch.from_numpy(np.ascontiguousarray(array)).to(self.like.device)
        return answer.to(self.like.dtype) if answer.is_floating_point() else answer


def read_sample(points: Any, scores: Any) -> Sample:
    """Points (n, d) and their scores, checked.

    Args:
        points: (n, d), (n,) or (chain, draw, d), numpy, torch or anything with
            ``__array__``; or an ArviZ ``InferenceData`` or ``DataTree``.
        scores: The same shape; or a function that maps the points (n, d) to scores (n, d).

    Raises:
        InputError: If shapes differ, the sample is empty, or something is not finite.
    """
    like = points.detach() if isinstance(points, torch.Tensor) else None
    x = read_points(points)
    if callable(scores):
        scores = scores(x if like is None else torch.from_numpy(x).to(like.device))
    b = read_points(scores, name="scores")
    if b.shape != x.shape:
        raise InputError(
            f"scores have shape {b.shape} and points {x.shape}; pass one score of the same length for "
            "each point, in the same order."
        )
    return Sample(points=x, scores=b, like=like if like is None or like.is_floating_point() else None)


def read_points(points: Any, *, name: str = "points") -> Float[np.ndarray, "n d"]:
    """An array (n, d) of finite float64 numbers.

    Raises:
        InputError: If it is not numeric, has another number of dimensions, is empty, or
            holds NaN, infinity or numbers beyond 1e75 (the first bad row is named).
    """
    array = draws_of(points) if is_inference_data(points) else as_array(points, name=name)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 3:
        array = array.reshape(-1, array.shape[2])
    if array.ndim != 2:
        raise InputError(
            f"{name} have {array.ndim} dimensions (shape {array.shape}); pass (n, d), (n,) or "
            "(chain, draw, d)."
        )
    if 0 in array.shape:
        raise InputError(
            f"{name} are empty (shape {array.shape}); at least one point of one coordinate is needed."
        )
    refuse_non_finite(array, name)
    if np.abs(array).max() > _LARGEST:
        i, j = np.argwhere(np.abs(array) > _LARGEST)[0]
        raise InputError(
            f"{name} hold {array[i, j]:g} in row {i}, coordinate {j}; beyond {_LARGEST:g} the sums "
            "overflow. Did the sampler diverge? If not, take other units."
        )
    return np.ascontiguousarray(array)


def as_array(values: Any, *, name: str) -> np.ndarray:
    """Float64 numpy copy of real numbers of any kind.

    Raises:
        InputError: If the values are not real numbers in a rectangular array.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().resolve_conj().resolve_neg()
        values = (values.double() if values.is_floating_point() else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} are rows of different lengths; pass a rectangular array.") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} are of type {array.dtype}; real numbers are needed.")
    return array.astype(np.float64)


def refuse_non_finite(array: np.ndarray, name: str) -> None:
    """Raise if a row of ``array`` holds NaN or infinity, and name the first one."""
    bad = ~np.isfinite(array)
    if bad.any():
        at = np.argwhere(bad)[0]
        place = f"row {at[0]}" + (f", coordinate {at[1]}" if array.ndim > 1 else "")
        hint = " Is that point outside the support of the target?" if name == "scores" else ""
        raise InputError(f"{name} hold {array[tuple(at)]} in {place}; every number must be finite.{hint}")


def read_weights(weights: Any, n: int, *, signed: bool = False) -> Float[np.ndarray, " n"]:
    """Weights of the points, summing to one; uniform if None.

    Args:
        weights: (n,) or None.
        n: Number of points.
        signed: Whether negative weights have a meaning.

    Raises:
        InputError: If there is not one finite weight for each point, one is negative, or
            they do not sum to one within 1e-6.
    """
    if weights is None:
        return np.full(n, 1.0 / n)
    w = as_array(weights, name="weights")
    if w.shape != (n,):
        raise InputError(f"weights have shape {w.shape}; pass one for each of the {n} points.")
    refuse_non_finite(w, "weights")
    if not signed and (w < 0).any():
        first = int(np.argmax(w < 0))
        raise InputError(f"weights hold {w[first]:g} in row {first}; they must not be negative.")
    if abs(w.sum() - 1.0) > 1e-6:
        raise InputError(f"weights sum to {w.sum():.6g}; divide them by their sum, so that they sum to 1.")
    return w


def merge_duplicates(
    points: Float[np.ndarray, "n d"], weights: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Equal points become one, their weights are added.

    Returns:
        The position of the first of each group of equal points, the group of every
        point, and the weight of every group. Groups are in the order of first appearance.
    """
    _, first, group = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group = rank[group.reshape(-1)]
    return first[order], group, np.bincount(group, weights=weights, minlength=len(first))


Scores = Callable[[Any], Any]
"""A function that maps points (n, d) to the gradient of the log density (n, d)."""
