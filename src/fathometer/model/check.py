"""Is what automatic differentiation returns the derivative of this loss?

Not always: an embedding with a padding index returns a gradient that leaves a row out,
custom backward passes contain mistakes, and some kernels have wrong second derivatives.
So every kind of operator is tried once, on a few examples, in float64:

1. the gradient along a random direction against a central difference of the energy;
2. the Hessian (or the Jacobian of the outputs) times that direction against a central
   difference of gradients (outputs), parameter by parameter;
3. the symmetry of the Hessian, also in the model's own type.

The trial is made at a point shifted by a thousandth at random, so that an activation that
sits exactly on the kink of a rectifier raises no false alarm, with steps from 1e-5 down to
1e-9: a rectifier that happens to switch within one step does not within a smaller one.
A failure must repeat at three points. Cost: about six gradients of four examples.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fathometer.errors import CapabilityError
from fathometer.model.batches import Loader
from fathometer.model.curvature import HessianGraph, JacobianGraph, example_graph, output_graph
from fathometer.model.losses import rows_of
from fathometer.model.problem import Problem
from fathometer.work import allowance, generator

EXAMPLES = 4
STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-4, 1e-3)
TOLERANCE = 1e-4
TRIES = 3


class Checks:
    """Which operators of a surface have been tried; shared by all points of the surface."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()
        self._done: set[str] = set()

    def hessian(self, problem: Problem, theta: Tensor) -> None:
        """Try the gradient and the Hessian, unless that was done before.

        Raises:
            CapabilityError: If a check fails; the message says which and by how much.
        """
        self._once("Hessian", problem, theta, _try_hessian)

    def jacobian(self, problem: Problem, theta: Tensor) -> None:
        """Try the Jacobian behind Gauss-Newton and Fisher matrices, unless that was done before.

        Raises:
            CapabilityError: If the check fails; the message says by how much.
        """
        self._once("Jacobian", problem, theta, _try_jacobian)

    def _once(
        self, what: str, problem: Problem, theta: Tensor, attempt: Callable[[Problem, Tensor, int], str]
    ) -> None:
        if what in self._done:
            return
        batch = problem.batches[0]
        batch = batch if problem.objective.opaque else rows_of(batch, slice(0, EXAMPLES))
        with problem.replica.running():
            if what == "Hessian":
                few = Loader([batch], problem.space.device, None)
                _try_symmetry(replace(problem, batches=few), theta)
            fine = _in_double(problem, batch)
            if isinstance(fine, str):
                self.notes = (*self.notes, f"{what}: not compared with differences in float64 ({fine}).")
            else:
                failures = []
                for number in range(TRIES):
                    failure = attempt(fine, _shifted(theta.double(), number), number)
                    if not failure:
                        break
                    failures.append(failure)
                if len(failures) == TRIES:
                    raise CapabilityError(
                        f"{failures[0]} Automatic differentiation returns something else than the derivative "
                        "of this loss: look for a custom backward pass, detach(), or an embedding with "
                        "padding_idx. check=False skips this test."
                    )
        self._done.add(what)


def _in_double(problem: Problem, batch: Any) -> Problem | str:
    """The problem on one batch in float64, or why that cannot be."""
    if 4 * 8 * problem.space.size > allowance() // 2:
        return "a copy in float64 would not fit the memory budget"
    fine = replace(
        problem,
        replica=problem.replica.to(torch.float64),
        space=problem.space.to(torch.float64),
        batches=Loader([batch], problem.space.device, torch.float64),
    )
    try:
        with torch.no_grad():
            fine.evaluate(
                fine.leaves(torch.zeros(fine.space.size, device=fine.space.device, dtype=torch.float64)),
                fine.batches[0],
            )
    except (RuntimeError, TypeError) as cause:  # a model that insists on its own type
        return f"the model does not run in it: {str(cause).splitlines()[0]}"
    return fine


def _scale(theta: Tensor) -> float:
    return float(theta.square().mean().sqrt()) + 1e-3


def _shifted(theta: Tensor, number: int) -> Tensor:
    return theta + 1e-3 * _scale(theta) * _draw(theta, "shift", number)


def _draw(theta: Tensor, *path: str | int) -> Tensor:
    normal = torch.randn(len(theta), generator=generator(0, "check", *path), dtype=torch.float64)
    return normal.to(theta)


def _try_hessian(problem: Problem, theta: Tensor, number: int) -> str:
    v = _scale(theta) * _draw(theta, "direction", number)
    space = problem.space
    graph = HessianGraph.record(problem, theta, 0)
    image = space.flatten(graph.product(space.split(v)))
    slope = problem.gradient(problem.leaves(theta), 0)

    def both(point: Tensor) -> tuple[Tensor, Tensor]:
        leaves = problem.leaves(point)
        return problem.finite(leaves, 0)[0].detach(), problem.gradient(leaves, 0)

    energy = abs(float(both(theta)[0])) + 1e-300
    first, second = [], []
    for step in STEPS:
        (up, up_slope), (down, down_slope) = both(theta + step * v), both(theta - step * v)
        error = abs(float((up - down) / (2 * step) - slope @ v))
        first.append(error / (float((slope * v).norm()) + _noise(energy, step)))
        second.append(
            _worst(problem, (up_slope - down_slope) / (2 * step), image, _noise(float(slope.norm()), step))
        )
        if min(first) <= TOLERANCE and min(second)[0] <= TOLERANCE:
            return ""
    if min(first) > TOLERANCE:
        return (
            f"The gradient fails against central differences of the energy by {min(first):.2g} of its size "
            f"(allowed {TOLERANCE:g})."
        )
    error, name = min(second)
    return (
        f"The Hessian fails against central differences of the gradient by {error:.2g} of its size in {name} "
        f"(allowed {TOLERANCE:g})."
    )


def _try_jacobian(problem: Problem, theta: Tensor, number: int) -> str:
    v = _scale(theta) * _draw(theta, "direction", number)
    record = example_graph if problem.objective.opaque else output_graph
    graph: JacobianGraph = record(problem, theta, 0)
    image = graph.push(problem.space.split(v))
    values = problem.each if problem.objective.opaque else problem.outputs

    def at(point: Tensor) -> Tensor:
        with torch.no_grad():
            return values(problem.leaves(point, differentiable=False), problem.batches[0])

    size, errors = float(graph.values.detach().norm()), []
    for step in STEPS:
        difference = (at(theta + step * v) - at(theta - step * v)) / (2 * step)
        errors.append(float((difference - image).norm()) / (float(difference.norm()) + _noise(size, step)))
        if min(errors) <= TOLERANCE:
            return ""
    return (
        f"The Jacobian fails against central differences of the outputs by {min(errors):.2g} of its size "
        f"(allowed {TOLERANCE:g})."
    )


def _try_symmetry(problem: Problem, theta: Tensor) -> None:
    """Test u'Hv = v'Hu at the point itself, in the model's own type."""
    space = problem.space
    graph = HessianGraph.record(problem, theta, 0)
    u, v = _draw(theta, "left"), _draw(theta, "right")
    Hu, Hv = (space.flatten(graph.product(space.split(w))) for w in (u, v))
    error, size = abs(float(u @ Hv - v @ Hu)), float(Hu.norm() + Hv.norm())
    allowed = 10 * torch.finfo(space.dtype).eps ** 0.5
    if error > allowed * size:
        raise CapabilityError(
            f"The Hessian is not symmetric: u'Hv and v'Hu differ by {error / size:.2g} of their size "
            f"(allowed {allowed:.2g}). An operation of the model has a wrong second derivative; check=False "
            "skips this test."
        )


def _noise(size: float, step: float) -> float:
    """What rounding does to a central difference, on the scale that TOLERANCE multiplies."""
    return 1e3 * torch.finfo(torch.float64).eps * size / (step * TOLERANCE)


def _worst(problem: Problem, found: Tensor, image: Tensor, noise: float) -> tuple[float, str]:
    """Largest error of a parameter tensor, relative to its own size or 1e-3 of the whole."""
    whole = float(found.norm())
    errors = [
        (
            float((found[at] - image[at]).norm()) / (float(found[at].norm()) + 1e-3 * whole + noise + 1e-300),
            name,
        )
        for name, at in problem.space.slices.items()
    ]
    return max(errors)
