"""Theorems 1 to 6 as numbers: the witness of each, and an independent measurement beside it."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from fathometer.papers.dinh_2017.networks import at_a_minimum
from fathometer.papers.item import Check, Outcome, check, item
from fathometer.results import Row, Table
from fathometer.sharpness import (
    constant_in_the_ball,
    disjoint_boxes,
    epsilon_sharpness,
    layer_scale,
    many_large_eigenvalues,
    sharp_norm,
    steep_gradient,
)
from fathometer.work import numpy_generator


def _row(theorem: str, quantity: str, wanted: float, guaranteed: float, measured: float) -> Row:
    return Row(
        theorem=theorem,
        quantity=quantity,
        wanted=wanted,
        guaranteed=guaranteed,
        measured=measured,
        kind="bound",
    )


def _rows(title: str, rows: list[Row]) -> Table:
    return Table(title=title, rows=tuple(rows))


@item(
    "theorem-1",
    "Rectifiers, leaky rectifiers, linear and maxout networks commute with positive factors",
    seconds=1,
)
def theorem_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 1, definition 5: ``a phi(z) = phi(a z)``; two layers with factors a, 1/a compute the same."""
    draw = numpy_generator(seed, "theorem 1")
    x = torch.from_numpy(draw.standard_normal((50, 4)))

    class Maxout(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z.unflatten(1, (-1, 2)).amax(2)

    checks = []
    for name, activation, width in (
        ("rectifier", nn.ReLU(), 6),
        ("leaky rectifier", nn.LeakyReLU(0.2), 6),
        ("linear", nn.Identity(), 6),
        ("maxout", Maxout(), 3),
    ):
        model = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(width, 3)).double()
        worst = 0.0
        for a in (1e-3, 0.5, 7.0, 1e4):
            moved = layer_scale(model, {"0": a, "2": 1.0 / a}, x)
            with torch.no_grad():
                worst = max(worst, float((moved(x) - model(x)).abs().max() / model(x).abs().max()))
        checks.append(check(f"change of the outputs ({name})", 0.0, worst, worst < 1e-12))
    return Outcome(checks=tuple(checks))


@item("theorem-2", "The region of low loss has infinite volume", seconds=1)
def theorem_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 2: boxes of at least one volume, disjoint, and the loss in each no higher than in the first.

    The three cases of the proof (more weights in the first layer, in the second, as many in both).
    Random points of every box are pulled back to the first box, where the network must compute the same.
    """
    rows, checks = [], []
    for widths in ((4, 3, 1), (2, 3, 4), (3, 4, 3)):
        surface = at_a_minimum(widths, seed=seed)
        n1 = widths[0] * widths[1]
        theta, radius, count = surface.theta, 0.05, 40 if full else 12
        found = disjoint_boxes(theta[:n1], theta[n1:], radius, count)
        draw = torch.from_numpy(numpy_generator(seed, "boxes").uniform(-1, 1, (count, surface.size)))
        inside = found.centers + draw * found.half_widths
        scale = found.half_widths / radius
        gap = max(
            abs(float(surface.energy(point)) - float(surface.energy(point / s)))
            for point, s in zip(inside, scale, strict=True)
        )
        name = f"n1 = {n1}, n2 = {surface.size - n1}"
        least = float(found.log_volumes.min() - found.log_volumes[0])
        checks += [
            check(f"{name}: boxes are disjoint", True, found.disjoint(), found.disjoint()),
            check(f"{name}: no box is smaller than the first", ">= 0", least, least >= -1e-9),
            check(f"{name}: the loss is that of the first box", 0.0, gap, gap < 1e-12),
        ]
        rows.append(
            _row(
                "2",
                f"log volume, {name}",
                math.inf,
                float(found.log_volumes[0]) + math.log(count),
                found.value,
            )
        )
    return Outcome(checks=tuple(checks), table=_rows("Volume found by disjoint boxes", rows))


@item("theorem-3", "How gradient and Hessian change under a factor for each layer", seconds=1)
def theorem_3(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 3: ``grad L(T theta) = grad L(theta) D``, ``H(T theta) = D H(theta) D``, at a generic point."""
    widths, alpha = (4, 5, 3, 2), (3.0, 0.25, 1.0 / 0.75)
    surface = at_a_minimum(widths, noise=0.3, seed=seed)
    model = layer_scale(
        surface.write(), {f"fc{i + 1}": a for i, a in enumerate(alpha)}, surface.example_inputs()
    )
    moved = surface.around(model)
    sizes = [a * b for a, b in pairwise(widths)]
    D = torch.cat([torch.full((n,), 1.0 / a, dtype=torch.float64) for n, a in zip(sizes, alpha, strict=True)])
    H, image = surface.hessian().to_dense(), moved.hessian().to_dense()
    gradient = float((moved.gradient() - surface.gradient() * D).abs().max() / moved.gradient().abs().max())
    hessian = float((image - D[:, None] * H * D).abs().max() / image.abs().max())
    return Outcome(
        checks=(
            check("gradient against grad L(theta) D", 0.0, gradient, gradient < 1e-10),
            check("Hessian against D H D", 0.0, hessian, hessian < 1e-10),
        ),
        table=_rows(
            "Relative difference from the formula",
            [_row("3", "gradient", 0.0, 0.0, gradient), _row("3", "Hessian", 0.0, 0.0, hessian)],
        ),
    )


@item("theorem-4", "A spectral norm as large as one likes", seconds=1)
def theorem_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 4: a factor that gives the Hessian any spectral norm; dense eigenvalues confirm.

    The constant of the paper's proof (from the equivalence of norms, and named like the rank) is not
    needed: a positive semidefinite matrix has a spectral norm of at least every diagonal entry.
    """
    surface = at_a_minimum((4, 5, 2), seed=seed)
    rows, checks = [], []
    for wanted in (10.0, 1e3, 1e6, 1e9):
        witness = sharp_norm(surface, wanted)
        assert witness.model is not None
        H = surface.around(witness.model).hessian().to_dense()
        norm = float(torch.linalg.eigvalsh(H).abs().max())
        change = _change(surface, witness.model)
        rows.append(_row("4", "spectral norm", wanted, witness.guaranteed, norm))
        checks.append(
            check(
                f"spectral norm of at least {wanted:g}, outputs kept",
                wanted,
                norm,
                norm >= wanted * (1 - 1e-9) and change < 1e-10,
            )
        )
    return Outcome(checks=tuple(checks), table=_rows("Spectral norm on demand", rows))


@item("theorem-5", "Many large eigenvalues at once", seconds=1)
def theorem_5(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 5: at least ``rank - min_k n_k`` eigenvalues above any threshold; 12, 9 and 6 weights.

    The factor is a vector with an entry for each layer, and the last index of the proof's display is K.
    """
    surface = at_a_minimum((4, 3, 3, 2), examples=200, seed=seed)
    values = torch.linalg.eigvalsh(surface.hessian().to_dense())
    rank = int((values > 1e-9 * values[-1]).sum())
    rows, checks = [], []
    for threshold in (10.0, 1e3, 1e6):
        witness = many_large_eigenvalues(surface, threshold)
        assert witness.model is not None
        found = torch.linalg.eigvalsh(surface.around(witness.model).hessian().to_dense())
        many = int((found > threshold).sum())
        rows.append(_row("5", f"eigenvalues above {threshold:g}", rank - 6, witness.guaranteed, many))
        checks.append(
            check(
                f"eigenvalues above {threshold:g}",
                f"at least {rank} - 6",
                many,
                many >= rank - 6 == witness.guaranteed,
            )
        )
    return Outcome(checks=tuple(checks), table=_rows(f"Large eigenvalues, rank {rank}", rows))


@item("theorem-6", "The loss is not Lipschitz", seconds=1)
def theorem_6(*, full: bool = False, seed: int = 0) -> Outcome:
    """Theorem 6 (appendix C): gradients as long as one likes, and ``|g|^2 = |g_1|^2 / a^2 + a^2 |g_2|^2``."""
    surface = at_a_minimum((4, 5, 2), noise=0.5, seed=seed)
    n1 = 20
    g = surface.gradient()
    rows, checks = [], []
    for wanted in (10.0, 1e4, 1e8):
        witness = steep_gradient(surface, wanted)
        assert witness.model is not None
        a = witness.factors["fc1.weight"]
        formula = math.hypot(float(g[:n1].norm()) / a, float(g[n1:].norm()) * a)
        moved = surface.around(witness.model)
        slope = _difference_slope(moved)
        rows.append(_row("6", "gradient norm", wanted, witness.guaranteed, witness.measured))
        checks.append(
            check(
                f"gradient of at least {wanted:g}",
                wanted,
                witness.measured,
                witness.measured >= wanted * (1 - 1e-9),
            )
        )
        checks.append(
            check(
                f"formula at {wanted:g}",
                formula,
                slope,
                abs(slope / formula - 1) < 1e-3,
                note="by differences",
            )
        )
    return Outcome(checks=tuple(checks), table=_rows("Gradient norm on demand", rows))


@item("section-4.3", "The ball around an equivalent network holds the constant function", seconds=1)
def section_4_3(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 4.3: ``a = eps / |theta_1|`` makes eps-sharpness at least that of the zero function.

    Not shown by the authors, nor here, for Keskar's random subspace.
    """
    surface = at_a_minimum((4, 5, 2), seed=seed)
    before = float(epsilon_sharpness(surface, 0.01, starts=4, seed=seed).value)
    witness = constant_in_the_ball(surface, 0.01)
    assert witness.model is not None
    moved = surface.around(witness.model)
    after = float(epsilon_sharpness(moved, 0.01, starts=4, seed=seed).value)
    zero = float(surface.energy(torch.zeros(surface.size)))  # at a minimum of zero loss
    return Outcome(
        checks=(
            check(
                "the ratio at the point of the sphere is that of the zero function",
                zero,
                witness.measured,
                abs(witness.measured - zero) < 1e-9,
            ),
            check(
                "eps-sharpness is at least as large", zero, after, after >= zero - 1e-9, note="closed ball"
            ),
            check("and was smaller before", "< 1 %", before / after, before < 0.01 * after),
        ),
        table=_rows(
            "Sharpness in a ball of radius 0.01",
            [_row("4.3", "eps-sharpness", zero, witness.guaranteed, after)],
        ),
    )


def _change(surface: Any, model: nn.Module) -> float:
    first, second = surface.outputs(), surface.around(model).outputs()
    return float((second - first).abs().max() / first.abs().max())


def _difference_slope(surface: Any) -> float:
    """Norm of the gradient by central differences, each step in proportion to its weight."""
    theta = surface.theta
    parts = []
    for i in range(len(theta)):
        h = 1e-6 * float(theta[i].abs().clamp(min=1e-12))
        move = torch.zeros_like(theta)
        move[i] = h
        parts.append(float(surface.energy(theta + move) - surface.energy(theta - move)) / (2 * h))
    return float(np.linalg.norm(parts))


THEOREMS = (theorem_2, theorem_3, theorem_4, theorem_5, theorem_6, section_4_3)


@item("theorems", "Theorems 2 to 6 in one table", seconds=2)
def theorems(*, full: bool = False, seed: int = 0) -> Outcome:
    """Every theorem's wish, guarantee and measurement in one table; checks as in the single items."""
    outcomes = [run(full=full, seed=seed) for run in THEOREMS]
    rows: list[Row] = []
    checks: list[Check] = []
    for outcome in outcomes:
        checks += outcome.checks
        rows += outcome.table.rows if outcome.table is not None else ()
    return Outcome(checks=tuple(checks), table=_rows("Theorems 2 to 6 and section 4.3", rows))
