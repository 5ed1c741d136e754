"""A network's loss as a function of one flat parameter vector.

`LossSurface` joins a model, a loss and data, and is then a plain function on R^P: energy,
gradient, and second derivatives as linear operators. The model is copied, never touched;
the data is cut on a fixed grid of chunks; sums run in float64 and are shared over the
processes of `torch.distributed` if it is initialized, with the same bits on any number.

The surface is that of the model in evaluation mode: dropout off, batch normalization with
its running statistics. `LossSurface.notes` lists what that changed.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fathometer.errors import CapabilityError, InputError
from fathometer.linalg import LinearOperator
from fathometer.model import curvature
from fathometer.model.batches import LARGEST_CHUNK, Arrays, arranged
from fathometer.model.check import Checks
from fathometer.model.losses import length, objective, rows_of
from fathometer.model.params import ParamSpace
from fathometer.model.problem import Problem, fitting, saved_bytes
from fathometer.model.replica import Replica, unwrapped
from fathometer.work import check_seed, chunk_size, reduce_chunks


class LossSurface:
    """Mean loss of a model over data, as a function of its parameters.

    Args:
        model: Any module with trainable parameters. It is copied and left alone.
        loss: ``"cross_entropy"``, ``"mse"`` (torch's mean over all scalars), ``"half_mse"``
            (half of that), an ``nn.CrossEntropyLoss`` or ``nn.MSELoss``, a callable
            ``(outputs, targets)``, or a callable ``(model, batch)``; the latter is told by
            its first parameter's name: ``model``, ``module``, ``net`` or ``network``.
            Callables return the loss of each example, shape (n,), or their mean;
            ``loss(model, batch)`` may return (mean, count).
        data: ``(inputs, targets)`` as tensors or numpy arrays with examples along the first
            dimension (``inputs`` may be a tuple or a dictionary of them, passed on as
            positional or keyword arguments), or something that yields batches in the same
            order every time, such as a list or a ``DataLoader`` with ``shuffle=False``.
            Floats are converted to the model's type, except in opaque batches.
        parameters: Names or globs of the parameters to include; the rest is constant.
        chunk: Examples at a time for whole arrays; "auto" forecasts the memory of a
            Hessian product and fits the budget, at most 1024. Batches of a loader are
            never cut. The value does not depend on it beyond rounding; the bits do.

    Attributes:
        theta: The point (P,), a flat copy in the order of `ParamSpace`.
        size: P.
        examples: N.
        names: Parameter names, in order.
        space: The `ParamSpace`.
        count: What the mean divides by: N; with "mse" the number of scalar targets; with
            "cross_entropy" the targets that are not ignored (their weights, if given).
        loss: Name of the loss.
        chunk: Examples of a chunk; 0 where the batches of a loader are the chunks.
        notes: What differs from the model as it was given, one sentence each.

    Raises:
        InputError: If model, loss and data do not fit together, the data can be read only
            once or changes between two readings, the loss is random or no mean over
            examples, or parameters are on several devices.
        BudgetError: If not even one example fits the memory budget.

    >>> x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]])
    >>> surface = LossSurface(nn.Linear(1, 1, bias=False), "mse", (x, y)).at([2.0])
    >>> surface.energy(), surface.gradient(), surface.hessian().to_dense()
    (tensor(10.), tensor([10.]), tensor([[5.]]))
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        data: Any,
        *,
        parameters: str | Iterable[str] | None = None,
        chunk: int | Literal["auto"] = "auto",
    ) -> None:
        if chunk != "auto" and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
            raise InputError(f"chunk is {chunk!r}; pass a number of examples, one or more, or 'auto'.")
        kind = objective(loss)
        original, _ = unwrapped(model)
        space = ParamSpace(original, parameters)
        replica = Replica(model)
        replica.freeze_others(space.names)
        batches = arranged(data, kind, space, chunk)
        self._problem = Problem(replica, space, kind, batches)
        self._theta = space.read(original)
        if not torch.isfinite(self._theta).all():
            bad = int((~torch.isfinite(self._theta)).nonzero()[0])
            raise InputError(f"parameter {space.owner(bad)} is {self._theta[bad].item()}; it must be finite.")
        self._checks = Checks()
        with replica.running():
            self._probe()
            self._bytes = self._forecast()
            if isinstance(batches, Arrays) and chunk == "auto":
                fixed, each = self._bytes
                fitting = chunk_size(batches.examples, each, fixed=int(fixed), what="a Hessian product")
                self._replace(batches=batches.cut(min(fitting, LARGEST_CHUNK)))
            self._count()

    @property
    def theta(self) -> Float[Tensor, " P"]:
        """The point, a copy."""
        return self._theta.clone()

    @property
    def space(self) -> ParamSpace:
        """The parameters as a flat vector."""
        return self._problem.space

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return self.space.size

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in order."""
        return self.space.names

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return self._examples

    @property
    def count(self) -> float:
        """What the mean divides by."""
        return self._problem.count

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self._problem.objective.name

    @property
    def chunk(self) -> int:
        """Examples of a chunk; 0 where the batches of a loader are the chunks."""
        return self._problem.batches.chunk if isinstance(self._problem.batches, Arrays) else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What differs from the model as it was given."""
        return (*self._problem.replica.notes, *self._checks.notes)

    @overload
    def energy(self, theta: np.ndarray) -> Float[np.ndarray, ""]: ...
    @overload
    def energy(self, theta: Tensor | Sequence[float] | None = None) -> Float[Tensor, ""]: ...
    def energy(self, theta: Any = None) -> Any:
        """Mean loss at ``theta`` (P,), by default at the surface's own point; 0-d.

        Raises:
            InputError: If theta has another shape or is not finite, or the loss is not.
        """
        point = self._point(theta)
        problem = self._problem
        with problem.replica.running(), torch.no_grad():
            leaves = problem.leaves(point, differentiable=False)
            (total,) = reduce_chunks(
                lambda i: problem.finite(leaves, i)[0], range(len(problem.batches)), what="energy"
            )
        return _like((total / problem.count).to(self.space.dtype), theta)

    @overload
    def gradient(self, theta: np.ndarray) -> Float[np.ndarray, " P"]: ...
    @overload
    def gradient(self, theta: Tensor | Sequence[float] | None = None) -> Float[Tensor, " P"]: ...
    def gradient(self, theta: Any = None) -> Any:
        """Gradient of the mean loss at ``theta`` (P,); zero for parameters that the loss does not use.

        Raises:
            InputError: As `energy`, or if the gradient is not finite.
        """
        point = self._point(theta)
        problem = self._problem
        with problem.replica.running():
            (total,) = reduce_chunks(
                lambda i: problem.gradient(problem.leaves(point), i),
                range(len(problem.batches)),
                what="gradient",
            )
        return _like((total / problem.count).to(self.space.dtype), theta)

    @overload
    def losses(self, theta: np.ndarray) -> Float[np.ndarray, " N"]: ...
    @overload
    def losses(self, theta: Tensor | Sequence[float] | None = None) -> Float[Tensor, " N"]: ...
    def losses(self, theta: Any = None) -> Any:
        """Loss of each example (N,) at ``theta`` (P,); their sum over `count` is the energy.

        Raises:
            InputError: If the loss returns only means of opaque batches.
        """
        return _like(self._joined(self._problem.each, theta), theta)

    @overload
    def outputs(self, theta: np.ndarray) -> np.ndarray: ...
    @overload
    def outputs(self, theta: Tensor | Sequence[float] | None = None) -> Tensor: ...
    def outputs(self, theta: Any = None) -> Any:
        """Outputs (N, ...) of the model for all examples at ``theta`` (P,).

        Raises:
            InputError: If the loss takes (model, batch), or outputs are no tensors.
        """
        if self._problem.objective.opaque:
            raise InputError(f"the loss {self.loss} takes (model, batch); the outputs are its own affair.")
        return _like(self._joined(self._problem.outputs, theta), theta)

    def hessian(self, theta: Any = None, *, check: bool = True) -> LinearOperator:
        """The Hessian (P, P) at ``theta``, by reverse over reverse on kept graphs.

        Args:
            theta: The point (P,), by default the surface's own.
            check: Compare gradient and Hessian with differences, and test the symmetry,
                on a few examples in float64; once for all points of this surface.

        Raises:
            CapabilityError: If the check fails, or an operation has no second derivative.
        """
        point, problem = self._point(theta), self._problem
        if check:
            self._checks.hessian(problem, point)
        return self._operator(lambda i: curvature.HessianGraph.record(problem, point, i), "Hessian")

    def gauss_newton(self, theta: Any = None, *, check: bool = True) -> LinearOperator:
        """The Gauss-Newton part H0 = J' S J of the Hessian (P, P), never negative for convex losses.

        J is the Jacobian of the outputs at ``theta`` (P,), S the Hessian of the mean loss in the
        outputs; ``check`` as in `hessian`.

        Raises:
            InputError: If the loss takes (model, batch), or the outputs are not one tensor.
            CapabilityError: As `hessian`.
        """
        point, problem = self._point(theta), self._problem
        with problem.replica.running():
            first = curvature.output_graph(problem, point, 0)  # refuses at once what has no outputs
        del first
        if check:
            self._checks.jacobian(problem, point)
        return self._operator(lambda i: curvature.output_graph(problem, point, i), "Gauss-Newton matrix")

    def residual(self, theta: Any = None, *, check: bool = True) -> LinearOperator:
        """H1 = H - H0 (P, P) at ``theta``: what the network itself adds; ``check`` as in `hessian`."""
        return self.hessian(theta, check=check) - self.gauss_newton(theta, check=check)

    def fisher(
        self,
        theta: Any = None,
        kind: Literal["exact", "empirical", "sampled"] = "exact",
        seed: int = 0,
        *,
        check: bool = True,
    ) -> LinearOperator:
        """A Fisher matrix (P, P): the mean over examples of outer products of score vectors.

        With s_i the gradient of the loss of example i (summed over its pieces) and n the
        `count`, it is (1/n) sum_i E[s_i s_i'], on the scale of the Hessian.

        Args:
            theta: The point (P,), by default the surface's own.
            kind: "exact": the expectation over targets from the model's own predictions
                (softmax; or a normal distribution of variance 1/2 for "mse", 1 for
                "half_mse"), which is then the Gauss-Newton matrix. "empirical": no
                expectation, the targets of the data; not the Fisher matrix, and much
                smaller near a minimum. "sampled": one target an example, drawn with
                ``seed`` and its place in the data; its mean over seeds is the exact one.
            seed: For "sampled".
            check: As in `hessian`.

        Raises:
            InputError: If ``kind`` is none of these; if "exact" or "sampled" is asked of a
                loss that is not known to be a likelihood; if "empirical" is asked of a
                loss(model, batch) that returns only means.
        """
        point, problem = self._point(theta), self._problem
        if kind not in ("exact", "empirical", "sampled"):
            raise InputError(f"kind is {kind!r}; pass 'exact', 'empirical' or 'sampled'.")
        check_seed(seed)
        if kind != "empirical" and problem.objective.likelihood is None:
            raise InputError(
                f"the loss {self.loss} (with smoothed or weighted targets, or a loss of one's own) is not "
                f"known to be the negative log of a distribution of targets, so its {kind} Fisher matrix is "
                "undefined; use kind='empirical' or gauss_newton()."
            )
        if kind == "exact":
            return self.gauss_newton(point, check=check)
        if check:
            self._checks.jacobian(problem, point)
        if kind == "empirical":
            with problem.replica.running():
                curvature.example_graph(problem, point, 0)
            return self._operator(lambda i: curvature.example_graph(problem, point, i), "empirical Fisher")
        return self._operator(
            lambda i: curvature.sampled_graph(problem, point, i, seed), "sampled Fisher matrix"
        )

    def at(self, theta: Any) -> "LossSurface":
        """The same surface around another point ``theta`` (P,)."""
        return self._variant(theta=self._point(theta))

    def select(self, rows: Any) -> "LossSurface":
        """The surface of some of the examples: a mini-batch.

        Args:
            rows: Positions of the examples (k,), a slice, or a mask (N,); of a loader the batches
                are counted through, and the examples stay in its order.

        Raises:
            InputError: If batches are of a kind of their own, or nothing is selected.
        """
        if self._problem.objective.opaque:
            raise InputError("the loss takes whole batches, which cannot be cut; pass fewer batches as data.")
        batches = self._problem.batches
        everything = torch.arange(self.examples, device=self.space.device)
        try:
            chosen = everything[
                rows if isinstance(rows, slice) else torch.as_tensor(rows).to(everything.device)
            ]
        except (IndexError, TypeError, ValueError) as cause:
            raise InputError(f"rows do not select from {self.examples} examples ({cause}).") from cause
        chosen = chosen.reshape(-1)
        if not len(chosen):
            raise InputError(f"rows select none of the {self.examples} examples; at least one is needed.")
        other = self._variant(batches=batches.select(chosen))
        other._count()
        return other

    def double(self) -> "LossSurface":
        """The same surface in float64: model, point and data."""
        problem = self._problem
        return self._variant(
            replica=problem.replica.to(torch.float64),
            space=problem.space.to(torch.float64),
            batches=problem.batches.to(problem.space.device, torch.float64),
            theta=self._theta.double(),
        )

    def around(self, model: nn.Module) -> "LossSurface":
        """The same loss and data around another ``model`` of the same architecture.

        Unlike `at`, this also takes the module's buffers, such as running means.

        Raises:
            InputError: If its parameters have other names or shapes.
        """
        space = ParamSpace(unwrapped(model)[0], self.names)
        if space.names != self.names or space.size != self.size:
            raise InputError(
                f"model has the parameters {', '.join(space.names[:4])}, ... ({space.size} numbers); this "
                f"surface has {', '.join(self.names[:4])}, ... ({self.size})."
            )
        replica = Replica(model)
        replica.freeze_others(self.names)
        theta = space.read(unwrapped(model)[0]).to(self.space.dtype)
        return self._variant(replica=replica.to(self.space.dtype), theta=theta)

    def example_inputs(self, count: int = 2) -> tuple[Any, ...]:
        """The first ``count`` inputs, as the positional arguments of the model.

        Raises:
            InputError: If the loss takes (model, batch), or the model takes keywords.
        """
        if self._problem.objective.opaque:
            raise InputError(f"the loss {self.loss} takes (model, batch); pass example_inputs for the model.")
        batches, parts = self._problem.batches, []
        for i in range(len(batches)):
            parts.append(rows_of(batches[i][0], slice(0, count)))
            count -= length(parts[-1])
            if count <= 0:
                break
        if isinstance(parts[0], dict):
            raise InputError("the model takes keyword arguments; wrap it to take positional ones.")
        columns = zip(*(p if isinstance(p, tuple | list) else (p,) for p in parts), strict=True)
        return tuple(torch.cat(column) if len(parts) > 1 else column[0] for column in columns)

    def write(self, theta: Any = None) -> nn.Module:
        """A copy of the model with its parameters at ``theta``, with its modes as it was given."""
        model = self._problem.replica.restored()
        self.space.write(self._point(theta), model)
        return model

    def __repr__(self) -> str:
        return f"<LossSurface: {self.loss} of {self.examples} examples, P = {self.size}, {self.space.dtype}>"

    def _point(self, theta: Any) -> Tensor:
        """``theta`` checked, as (P,) in the surface's type; its own point if None."""
        return self._theta if theta is None else self.space.point(theta)

    def _operator(self, record: Any, name: str) -> LinearOperator:
        fixed, each = self._bytes
        problem = self._problem
        size = self.chunk or max(1, self._examples // len(problem.batches))
        return curvature.operator(problem, record, name=name, bytes_per_chunk=fixed + each * size)

    def _joined(self, part: Any, theta: Any) -> Tensor:
        """``part`` of every chunk without derivatives, joined along the examples."""
        point, problem = self._point(theta), self._problem
        with problem.replica.running(), torch.no_grad():
            leaves = problem.leaves(point, differentiable=False)
            found = [part(leaves, problem.batches[i]) for i in range(len(problem.batches))]
        for value in found:
            if not isinstance(value, Tensor):
                raise InputError(f"the model returned a {type(value).__name__}; outputs() needs one tensor.")
        return torch.cat(found)

    def _variant(self, **changes: Any) -> "LossSurface":
        """A surface that differs in some parts; ``theta`` or fields of the problem."""
        other = LossSurface.__new__(LossSurface)
        other.__dict__.update(self.__dict__)
        other._theta = changes.pop("theta", self._theta)
        if changes:
            other._replace(**changes)
        return other

    def _replace(self, **changes: Any) -> None:
        self._problem = Problem(**{**self._problem.__dict__, **changes})

    def _probe(self) -> None:
        """Evaluate a few examples twice: shapes must fit, and the loss must not be random."""
        problem = self._problem
        batch = self._few(8)
        with torch.no_grad(), fitting(batch):
            leaves = problem.leaves(self._theta, differentiable=False)
            first, again = (problem.evaluate(leaves, batch)[0].item() for _ in range(2))
            if abs(first - again) > 1e3 * torch.finfo(self.space.dtype).eps * abs(first):
                raise InputError(
                    f"the loss is random: {first:.8g} and {again:.8g} on the same examples. Dropout modules "
                    "are switched off here; look for functional dropout with training=True, or drawn noise."
                )
            if not problem.objective.opaque:
                problem.objective.audit(problem.outputs(leaves, batch), batch[1])

    def _few(self, count: int) -> Any:
        """The first examples; a whole batch where batches cannot be cut."""
        batch = self._problem.batches[0]
        return batch if self._problem.objective.opaque else rows_of(batch, slice(0, count))

    def _forecast(self) -> tuple[float, float]:
        """Bytes of a recorded Hessian: a fixed part, and what each example adds."""
        problem = self._problem

        def measured(batch: Any) -> float:
            def build() -> None:
                leaves = problem.leaves(self._theta)
                total, _ = problem.evaluate(leaves, batch)
                curvature.first_derivatives(total, leaves, create_graph=True)

            try:
                return float(saved_bytes(build))
            except CapabilityError:  # no second derivative: the user may still want the gradient
                return 0.0

        fixed = 6.0 * self.size * self.space.dtype.itemsize
        first = self._few(1)
        if problem.objective.opaque:
            return fixed, 1.5 * measured(first) / max(1, length(first))
        more = self._few(3)
        extra = length(more[0]) - 1
        if not extra:
            return fixed, 1.5 * measured(first)
        one, several = measured(first), measured(more)
        each = max(0.0, several - one) / extra
        return fixed + max(0.0, one - each), 1.5 * each

    def _count(self) -> None:
        """Go through the data once for N and the denominator of the mean."""
        problem = self._problem
        count, examples = 0.0, 0
        with problem.replica.running(), torch.no_grad():
            leaves = problem.leaves(self._theta, differentiable=False)
            for i in range(len(problem.batches)):
                batch = problem.batches[i]
                if problem.objective.opaque:
                    added = problem.evaluate(leaves, batch)[1]
                    examples += round(added)
                else:
                    added = problem.objective.count(batch[1])
                    examples += length(batch[0])
                count += added
        if not count > 0:
            raise InputError("every target is ignored; the mean loss of no examples is undefined.")
        self._examples = examples
        self._replace(count=count)


def _like(value: Tensor, given: Any) -> Any:
    """As numpy where the question was asked in numpy."""
    return value.cpu().numpy() if isinstance(given, np.ndarray) else value
