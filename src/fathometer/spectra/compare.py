"""A measured spectrum beside what random matrix theory says at the same energy and aspect ratio.

The laws speak of the energy (half the mean squared residual over all scalar targets), of the
aspect ratio phi (parameters per scalar target), and of the Hessian H = H0 + H1 of the loss that
sums half the squared residuals over the outputs of an example and averages over examples
(the loss of Pennington & Bahri 2017). Their ``scale`` is the mean eigenvalue s of the Gauss-Newton part H0 of
that Hessian. Dividing H by s leaves a law with scale 1 at the energy divided by s^2: that is
what is compared. Distances between distribution functions do not depend on such a choice.

`compare` also measures each assumption on its own: is H0 Marchenko-Pastur, and has H1 the
variance that the law gives it?
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fathometer.calculus.stieltjes import Law
from fathometer.drawing.picture import Picture
from fathometer.errors import CapabilityError, InputError, TheoryWarning
from fathometer.linalg import LinearOperator, frobenius_norm, trace
from fathometer.model import LossSurface
from fathometer.model.exact_diagonal import gauss_newton_diagonal
from fathometer.model.slopes import output_slopes
from fathometer.results import Estimate, Result, Row, Table
from fathometer.spectra.critical import critical_energy
from fathometer.spectra.density import (
    DEFAULT_STEPS,
    EXACT_LIMIT,
    SpectralDensity,
    density,
    fits_dense,
    of_eigenvalues,
)
from fathometer.spectra.free_sum import free_sum
from fathometer.spectra.laws import (
    MarchenkoPastur,
    WishartPlusReluResidual,
    WishartPlusWigner,
    check_positive,
)
from fathometer.types import Kind

SQUARED = {"mse": 0.5, "half_mse": 1.0}
_GRID = 4001


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """A measured spectrum beside both laws, in the units of the laws.

    Attributes:
        density: The measured spectrum of the normalized Hessian.
        gauss_newton: That of the normalized Gauss-Newton part, or None where P is too large to have it.
        residual: That of the normalized residual part, or None.
        freeness: Kolmogorov distance of the measured spectrum from the free sum of the two measured
            parts, or NaN: the error of the assumption that their eigenvectors are independent.
        energy: Half the mean squared residual over all scalar targets.
        aspect_ratio: P over the number of scalar targets.
        scale: Mean eigenvalue of the normalized Gauss-Newton part.
        natural_scale: Mean eigenvalue of the Gauss-Newton part of the paper's loss.
        normalization: Factor from the surface's Hessian to the normalized one.
        residual_variance: Mean square of the eigenvalues of the normalized residual part.
        gradient_norm: Norm of the surface's gradient; the laws are about points where it is zero.
        rows: One `Row` a law: ``law``, ``ks`` (largest gap of the distribution functions),
            ``wasserstein`` (mean distance of quantiles), ``index`` by the law, ``critical_energy``,
            ``residual_variance`` by the law, ``outliers_above`` and ``outliers_below`` (measured
            eigenvalues outside the law's bands, finite size allowed for).
        measured_index: Share of measured eigenvalues below zero.
        outliers: Measured eigenvalues above the upper edge of the first law.
        notes: How the numbers were converted and what does not fit the theory, one sentence each.
    """

    density: SpectralDensity
    gauss_newton: SpectralDensity | None
    residual: SpectralDensity | None
    freeness: float
    energy: float
    aspect_ratio: float
    scale: float
    natural_scale: float
    normalization: float
    residual_variance: float
    gradient_norm: float
    rows: tuple[Row, ...]
    measured_index: float
    outliers: np.ndarray
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """Kolmogorov distance to the general law."""
        return self.rows[0].ks

    @property
    def kind(self) -> Kind:
        """That of the measured density."""
        return self.density.kind

    @property
    def error(self) -> float:
        """Half width of the widest bracket of the measured distribution function."""
        return self.density.error

    @property
    def normalized_energy(self) -> float:
        """The energy in the units of the normalized Hessian: times (scale / natural scale)^2."""
        return self.energy * (self.scale / self.natural_scale) ** 2

    def laws(self) -> dict[str, Law]:
        """The laws at the normalized energy and the aspect ratio."""
        return laws_at(self.normalized_energy, self.aspect_ratio, self.scale)

    def table(self) -> Table:
        """The distances as a table."""
        return Table(
            title=f"spectrum beside theory at energy {self.energy:.4g}, aspect ratio {self.aspect_ratio:.4g}",
            rows=self.rows,
            notes=self.notes,
        )

    def picture(self) -> Picture:
        """The measured spectrum with the laws drawn over it."""
        from fathometer.spectra.pictures import comparison_picture

        return comparison_picture(self)

    def __str__(self) -> str:
        return str(self.table())


def compare(
    surface: Any,
    *,
    scale: float = 1.0,
    probes: int = 10,
    steps: int | None = None,
    seed: int = 0,
    known: SpectralDensity | None = None,
    max_products: int = 3000,
) -> Comparison:
    """Put the spectrum of a surface's Hessian beside the laws at its energy and aspect ratio.

    Args:
        surface: A `LossSurface` around the point in question.
        scale: Mean eigenvalue that the Gauss-Newton part is normalized to.
        probes: Random probes, where P is too large to diagonalize; as in `density`.
        steps: Nodes of each probe.
        seed: Of the probes.
        known: The spectrum of the surface's Hessian, where it has been measured already.
        max_products: Where to stop the sampling of the Gauss-Newton trace and of the residual part's
            variance, if they have not come to 1 % before.

    Returns:
        Densities, distances and the assumptions measured one by one.

    Raises:
        InputError: If the surface is none, its loss has no outputs, its Gauss-Newton part is zero,
            or ``known`` is not a spectrum of P eigenvalues.

    Warns:
        TheoryWarning: If the loss is not a squared error: the energy is then half the mean square of the
            slopes of the loss in the outputs, and the Gauss-Newton part carries weights the laws ignore.
    """
    check_positive("scale", scale)
    if not hasattr(surface, "gauss_newton"):
        raise InputError(f"surface is a {type(surface).__name__}; pass a LossSurface.")
    energy, targets, to_paper, notes = energy_of(surface)
    P = surface.size
    if known is not None and known.size != P:
        raise InputError(f"known is {known}; a spectrum of the surface's {P} x {P} Hessian is needed.")
    limit = min(EXACT_LIMIT, probes * (steps or DEFAULT_STEPS))
    exact = known is None and limit >= P and fits_dense(3 * P)
    if exact:
        (measured, gauss_newton, residual), factor, variance = _dense(surface, scale)
    else:
        measured, factor, variance, sampled = _sketched(
            surface, scale, (probes, steps, seed), known, max_products
        )
        gauss_newton = residual = None
        notes += sampled
    natural = scale * to_paper / factor
    phi, normalized = P / targets, energy * (scale / natural) ** 2
    notes += [
        f"The paper's Hessian is {to_paper:g} times the surface's, its Gauss-Newton mean {natural:.6g}.",
        f"Divided so that this mean is {scale:g}, the energy that enters the laws is {normalized:.6g}.",
    ]
    if phi >= 1:
        notes.append("Aspect ratio 1 or more: the critical energy is zero.")
    freeness, parts = _parts(measured, gauss_newton, residual, MarchenkoPastur(phi, scale))
    notes += parts
    upper = laws_at(normalized, phi, scale)["wigner"].support()[-1][1]
    nodes = (
        measured.points[0] if measured.kind == "exact" else np.union1d(measured.rules[0, 0], measured.known)
    )
    return Comparison(
        density=measured,
        gauss_newton=gauss_newton,
        residual=residual,
        freeness=freeness,
        energy=energy,
        aspect_ratio=phi,
        scale=scale,
        natural_scale=natural,
        normalization=factor,
        residual_variance=variance,
        gradient_norm=float(torch.linalg.vector_norm(surface.gradient().double())),
        rows=_rows(measured, normalized, phi, scale),
        measured_index=float(measured.cdf(np.nextafter(0.0, -1.0))),
        outliers=nodes[nodes > upper + _edge_width(upper, P)],
        notes=tuple(notes),
    )


def _parts(
    measured: SpectralDensity,
    gauss_newton: SpectralDensity | None,
    residual: SpectralDensity | None,
    law: MarchenkoPastur,
) -> tuple[float, list[str]]:
    """How far the measured parts are from being free, and what is to be said of them."""
    if gauss_newton is None or residual is None:
        return math.nan, []
    gap, freeness = ks_distance(gauss_newton, law), free_sum(gauss_newton, residual).distance(measured)
    return freeness, [
        f"The Gauss-Newton part alone is {gap:.3f} (Kolmogorov) from Marchenko-Pastur.",
        f"The free sum of the two measured parts is {freeness:.3f} (Kolmogorov) from the whole.",
    ]


def laws_at(energy: float, phi: float, scale: float) -> dict[str, Law]:
    """Both laws of the paper."""
    return {
        "wigner": WishartPlusWigner(energy, phi, scale),
        "relu": WishartPlusReluResidual(energy, phi, scale),
    }


def energy_of(surface: Any) -> tuple[float, int, float, list[str]]:
    """Energy, number of scalar targets, factor from the surface's loss to the paper's, and notes on them.

    Warns:
        TheoryWarning: If the loss is not a squared error.
    """
    loss = surface.loss
    if loss in SQUARED:
        word = "half the loss" if loss == "mse" else "the loss itself"
        to_paper = SQUARED[loss] * surface.count / surface.examples
        energy = float(surface.energy()) * SQUARED[loss]
        return energy, round(surface.count), to_paper, [f"Energy: {word} ({loss})."]
    slopes = output_slopes(surface).double()
    warnings.warn(
        f"the laws are about squared errors; for {loss} the energy is half the mean square of the slopes of "
        "the loss in the outputs, and the curvature of the loss in the outputs is left out of the theory.",
        TheoryWarning,
        stacklevel=3,
    )
    note = (
        f"Energy: half the mean square of the {slopes.numel()} slopes of {loss} in the outputs, no residuals."
    )
    return float(0.5 * slopes.square().mean()), slopes.numel(), 1.0, [note]


def _dense(surface: Any, scale: float) -> tuple[list[SpectralDensity], float, float]:
    """The three spectra from matrices in float64, the factor, and the variance of the residual part."""
    exact = surface.double()
    H0 = exact.gauss_newton().to_dense()
    H = exact.hessian().to_dense()
    factor = _factor(float(H0.trace()), len(H0), scale)
    variance = float((H - H0).square().sum()) * factor**2 / len(H0)
    parts = {"Hessian": H, "Gauss-Newton part": H0, "residual part": H - H0}
    spectra = [
        of_eigenvalues(
            snapped(torch.linalg.eigvalsh(0.5 * (M + M.T)).numpy() * factor),
            like=M,
            name=f"normalized {name}",
        )
        for name, M in parts.items()
    ]
    return spectra, factor, variance


def _sketched(
    surface: Any,
    scale: float,
    quadrature: tuple[int, int | None, int],
    known: SpectralDensity | None,
    max_products: int,
) -> tuple[SpectralDensity, float, float, list[str]]:
    """Measured spectrum, factor, variance of the residual part, and how far the sampled ones came."""
    H, H0 = surface.hessian(), surface.gauss_newton()
    P, seed = H.shape[0], quadrature[2]
    total = _gauss_newton_trace(surface, H0, seed, max_products)
    factor = _factor(float(total.value), P, scale)
    norm = frobenius_norm(factor * (H - H0), seed=seed, max_products=max_products)
    variance = float(norm.value) ** 2 / P
    notes = [
        f"Sampled: {what}, with a relative standard error of {share * float(found.error) / found.value:.1%}."
        for what, found, share in (
            ("the mean of the Gauss-Newton part", total, 1),
            ("the variance of the residual part", norm, 2),
        )
        if found.kind == "estimate" and found.value
    ]
    if known is None:
        known = density(H, *quadrature, method="lanczos")
    name = "normalized Hessian"
    if known.kind == "exact":
        values = snapped(np.asarray(known.points[0]) * factor)
        return of_eigenvalues(values, like=values, name=name), factor, variance, notes
    return known.scaled(factor, name), factor, variance, notes


def _gauss_newton_trace(surface: Any, H0: LinearOperator, seed: int, max_products: int) -> Estimate:
    """Exact where the layers allow a structured pass, else sampled."""
    if isinstance(surface, LossSurface):
        try:
            found = float(gauss_newton_diagonal(surface).sum())
            return Estimate(value=found, kind="exact", error=0.0)
        except (CapabilityError, InputError):
            pass
    return trace(H0, seed=seed, max_products=max_products)


def _factor(total: float, P: int, scale: float) -> float:
    if not total > 0:
        raise InputError(
            f"the trace of the Gauss-Newton part is {total:.3g}; the laws are normalized by it, so it must "
            "be positive. Does the loss depend on the parameters here?"
        )
    return scale * P / total


def snapped(values: np.ndarray) -> np.ndarray:
    """Eigenvalues with those that are zero up to rounding set to zero, where the laws have their atoms."""
    small = len(values) * np.finfo(float).eps * np.abs(values).max(initial=0.0)
    return np.where(np.abs(values) <= small, 0.0, values)


def _rows(measured: SpectralDensity, energy: float, phi: float, scale: float) -> tuple[Row, ...]:
    rows = []
    for name, law in laws_at(energy, phi, scale).items():
        low, high = law.support()[0][0], law.support()[-1][1]
        margin = _edge_width(high - low, measured.size)
        rows.append(
            Row(
                law=name,
                ks=ks_distance(measured, law),
                wasserstein=wasserstein_distance(measured, law),
                index=law.index(),
                critical_energy=float(critical_energy(phi, name, scale)),  # type: ignore[arg-type]
                residual_variance=law.free_cumulant(2) - MarchenkoPastur(phi, scale).free_cumulant(2),
                outliers_above=measured.size * (1.0 - float(measured.cdf(high + margin))),
                outliers_below=measured.size * float(measured.cdf(low - margin)),
            )
        )
    return tuple(rows)


def _edge_width(span: float, P: int) -> float:
    """How far the edge of a matrix of size P strays: a few Tracy-Widom widths."""
    return 3.0 * abs(span) * P ** (-2.0 / 3.0)


def ks_distance(measured: SpectralDensity, law: Law) -> float:
    """Largest gap between the measured distribution function and the law's."""
    nodes, _ = measured.points
    x = np.unique(np.concatenate([nodes, [edge for band in law.support() for edge in band]]))
    gap = np.abs(law.cdf(x) - measured.cdf(x)).max()
    atom = np.zeros_like(x)
    for position, mass in law.atoms():
        atom[x == position] = mass
    before = np.abs(law.cdf(x) - atom - measured.cdf(np.nextafter(x, -np.inf))).max()
    return float(max(gap, before))


def wasserstein_distance(measured: SpectralDensity, law: Law) -> float:
    """Area between the measured distribution function and the law's, in units of the eigenvalues."""
    nodes, _ = measured.points
    low, high = law.support()[0][0], law.support()[-1][1]
    fine = np.linspace(min(low, nodes[0]), max(high, nodes[-1]), _GRID)
    x = np.unique(np.concatenate([nodes, fine, [edge for band in law.support() for edge in band]]))
    middle = 0.5 * (x[1:] + x[:-1])
    return float(np.abs(law.cdf(middle) - measured.cdf(middle)) @ np.diff(x))
