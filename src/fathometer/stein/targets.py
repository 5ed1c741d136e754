"""What samplers aim at: a log density, or a posterior made of many terms.

    log p(theta) = log_prior(theta) + sum over the examples i of log_likelihood(theta, i)

A posterior gives its terms one batch at a time, which is what samplers with stochastic
gradients (Welling & Teh 2011) and sequential tests need. The posterior of a loss surface is

    log p(theta) = - examples / temperature * energy(theta) - precision / 2 * |theta - center|^2

with the mean loss ``energy``: for a loss that is a negative log-likelihood (cross entropy, half
mean squared error at unit noise), temperature 1 is the Bayesian posterior under a Gaussian prior.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fathometer.errors import InputError
from fathometer.stein.scores import LogDensity, hessian_product, log_density_values, value_and_score

Terms = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Density:
    """A log density known as a whole.

    Attributes:
        both: Maps points (k, d) to the log densities (k,) and scores (k, d).
        bend: Maps points and vectors (k, d) to the Hessians of the log density times the vectors.
        dimension: Number of coordinates, or None if it is not known.
    """

    both: Callable[[Tensor], tuple[Tensor, Tensor]]
    bend: Callable[[Tensor, Tensor], Tensor] | None = None
    dimension: int | None = None
    examples: int = 1


class Posterior:
    """A log density that is a prior and a sum of terms, one for each example.

    Args:
        log_prior: Maps one point (d,), a float64 tensor, to one number.
        log_likelihood: Maps one point (d,) and row numbers (m,) to the m terms of those examples.
        examples: Number of examples N.

    Raises:
        InputError: If ``examples`` is not a whole number, one or more.

    >>> data = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> posterior = Posterior(
    ...     lambda t: -0.5 * (t**2).sum(), lambda t, rows: -0.5 * (data[rows] - t) ** 2, examples=2
    ... )
    >>> posterior.both(torch.zeros(1, 1, dtype=torch.float64))[1].tolist()
    [[4.0]]
    """

    dimension: int | None = None

    def __init__(self, log_prior: LogDensity, log_likelihood: Terms, examples: int) -> None:
        if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
            raise InputError(f"examples is {examples!r}; a whole number, one or more, is needed.")
        self.examples = examples
        self._prior, self._log_prior = value_and_score(log_prior), log_prior
        self._likelihood = log_likelihood
        rows = torch.arange(examples)

        def whole(t: Tensor) -> Tensor:
            return torch.as_tensor(log_prior(t)).reshape(()) + log_likelihood(t, rows).sum()

        self._whole = value_and_score(whole)
        self._bend = hessian_product(whole)
        summed = torch.func.grad(lambda t, rows: log_likelihood(t, rows).sum())
        self._batch_gradient = torch.func.vmap(summed, in_dims=(0, 0))
        single = torch.func.grad(lambda t, row: log_likelihood(t, row.reshape(1)).sum())
        self._each_gradient = torch.func.vmap(single, in_dims=(None, 0))

    def both(self, x: Float[Tensor, "k d"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"]]:
        """Log densities and scores at points ``x``, over all examples."""
        return self._whole(x)

    def bend(self, x: Float[Tensor, "k d"], v: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """The Hessians of the log density at points ``x``, times vectors ``v``."""
        return self._bend(x, v)

    def prior(self, x: Float[Tensor, "k d"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"]]:
        """Log densities and scores of the prior at points ``x``."""
        return self._prior(x)

    def log_prior(self, x: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
        """Log densities of the prior at points ``x``, without scores."""
        return log_density_values(self._log_prior, x)

    def terms(self, x: Float[Tensor, " d"], rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The terms of the examples ``rows`` at one point ``x``."""
        with torch.no_grad():
            return self._likelihood(x, rows).reshape(len(rows)).double()

    def batch_gradient(self, x: Float[Tensor, "k d"], rows: Int[Tensor, "k m"]) -> Float[Tensor, "k d"]:
        """The gradient at points ``x`` of the sum of the terms of ``rows``, other examples for each point."""
        return self._batch_gradient(x, rows).detach().double()

    def each_gradient(self, x: Float[Tensor, " d"], rows: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """The gradient of each of the terms of ``rows`` at one point ``x``."""
        return self._each_gradient(x, rows).detach().double()


class SurfacePosterior(Posterior):
    """The posterior of a loss surface (see the module).

    Args:
        surface: A loss surface: ``energy(theta)``, ``gradient(theta)``, ``losses(theta)``,
            ``select(rows)``, ``examples``, ``size``.
        temperature: Divides the log-likelihood; below 1 the posterior is sharper.
        precision: Of the Gaussian prior, in 1/units of theta squared; 0 for a flat one.
        center: (P,) mean of the prior; zero by default.

    Raises:
        InputError: If temperature is not positive, precision is negative, or center has another
            length than theta.
    """

    def __init__(
        self, surface: Any, *, temperature: float = 1.0, precision: float = 1.0, center: Any = None
    ) -> None:
        if not temperature > 0:
            raise InputError(f"temperature is {temperature:g}; it must be positive.")
        if not precision >= 0:
            raise InputError(f"precision is {precision:g}; it must not be negative.")
        self.surface, self.temperature, self.precision = surface, float(temperature), float(precision)
        self.examples, self.dimension = int(surface.examples), int(surface.size)
        middle = torch.zeros(self.dimension) if center is None else torch.as_tensor(center)
        if middle.shape != (self.dimension,):
            raise InputError(
                f"center has shape {tuple(middle.shape)}; the surface has {self.dimension} parameters."
            )
        self.center = middle.detach().double()

    def both(self, x: Float[Tensor, "k P"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "k P"]]:
        """Log densities and scores at points ``x``, over all examples."""
        value, gradient = self.prior(x)
        scale = self.examples / self.temperature
        energy = torch.stack([_read(self.surface.energy(self._theta(point))) for point in x])
        slope = torch.stack([_read(self.surface.gradient(self._theta(point))) for point in x])
        return value - scale * energy, gradient - scale * slope

    def bend(self, x: Float[Tensor, "k P"], v: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        """The Hessians of the log density at points ``x``, times vectors ``v``."""
        scale = self.examples / self.temperature
        products = [
            _read(self.surface.hessian(self._theta(point)) @ vector.to(self.surface.theta))
            for point, vector in zip(x, v, strict=True)
        ]
        return -scale * torch.stack(products) - self.precision * v

    def prior(self, x: Float[Tensor, "k P"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "k P"]]:
        """Log densities and scores of the Gaussian prior at points ``x``."""
        away = x.detach() - self.center
        return -0.5 * self.precision * away.square().sum(1), -self.precision * away

    def log_prior(self, x: Float[Tensor, "k P"]) -> Float[Tensor, " k"]:
        """Log densities of the Gaussian prior at points ``x``."""
        return self.prior(x)[0]

    def terms(self, x: Float[Tensor, " P"], rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Minus the losses of the examples ``rows`` at the point ``x``, over the temperature."""
        return -_read(self.surface.select(rows).losses(self._theta(x))) / self.temperature

    def batch_gradient(self, x: Float[Tensor, "k P"], rows: Int[Tensor, "k m"]) -> Float[Tensor, "k P"]:
        """The gradient at points ``x`` of the sum of the terms of ``rows``, other examples for each point."""
        slopes = [
            _read(self.surface.select(at).gradient(self._theta(point)))
            for point, at in zip(x, rows, strict=True)
        ]
        return -torch.stack(slopes) * (rows.shape[1] / self.temperature)

    def each_gradient(self, x: Float[Tensor, " P"], rows: Int[Tensor, " m"]) -> Float[Tensor, "m P"]:
        """The gradient of each of the terms of ``rows`` at one point ``x``."""
        return torch.cat([self.batch_gradient(x[None], row.reshape(1, 1)) for row in rows])

    def _theta(self, point: Tensor) -> Tensor:
        return point.to(self.surface.theta)


def _read(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def read_target(target: Any) -> Density | Posterior:
    """A target of a sampler: a posterior, a loss surface (with the defaults), or a log density.

    Raises:
        InputError: If it is none of them.
    """
    if isinstance(target, Density | Posterior):
        return target
    if all(hasattr(target, name) for name in ("energy", "gradient", "examples", "theta")):
        return SurfacePosterior(target)
    if callable(target):
        return Density(both=value_and_score(target), bend=hessian_product(target))
    raise InputError(
        f"target is a {type(target).__name__}; pass a log density (a function of one point), "
        "a Posterior, or a LossSurface."
    )


def read_posterior(target: Any) -> Posterior:
    """A target made of terms; a log density is a single term under a flat prior.

    Raises:
        InputError: If it is no target.
    """
    found = read_target(target)
    if isinstance(found, Posterior):
        return found
    if isinstance(target, Density):
        raise InputError("target is a Density; pass the log density itself, or a Posterior.")

    def term(point: Tensor, _: Tensor) -> Tensor:
        return torch.as_tensor(target(point)).reshape(1)

    return Posterior(lambda point: 0.0 * point.sum(), term, 1)
