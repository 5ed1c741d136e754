"""Sections 2 and 4 on networks: the two parts of the Hessian, their freeness, and what the laws miss."""

from typing import Any

import numpy as np
import torch

from fathometer.drawing import Axis, Line, Panel, Picture, Points
from fathometer.model import LossSurface
from fathometer.papers.item import Outcome, check, item
from fathometer.papers.pennington_bahri_2017.networks import memorizing, noise, shallow, small_images, trained
from fathometer.results import Row, Table
from fathometer.spectra import MarchenkoPastur, WishartPlusReluResidual, WishartPlusWigner, free_sum
from fathometer.work import numpy_generator


def _parts(surface: LossSurface) -> tuple[np.ndarray, np.ndarray]:
    """H0 and H1 of the paper's loss, which sums over outputs, divided by the mean eigenvalue of H0."""
    H0 = surface.gauss_newton().to_dense()
    H1 = surface.hessian().to_dense() - H0
    mean = float(H0.trace()) / len(H0)
    return H0.numpy() / mean, H1.numpy() / mean


def _gap(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov distance of two lists of eigenvalues."""
    x = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(part), x, side="right") / len(part) for part in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _law_gap(law: Any, values: np.ndarray) -> float:
    values = np.sort(values)
    return float(np.abs(law.cdf(values) - (np.arange(len(values)) + 0.5) / len(values)).max())


def _turned(H1: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Q H1 Q' for a Haar orthogonal Q."""
    Q, R = np.linalg.qr(random.standard_normal(H1.shape))
    Q = Q * np.sign(np.diag(R))
    return Q @ H1 @ Q.T


@item(
    "section-2-parts",
    "The Hessian as Gauss-Newton part plus residual part, energy and aspect ratio",
    seconds=2,
)
def parts(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 2, equations for H0 and H1, on a tanh network of width 6, entry by entry.

    H0 from the Jacobian of all outputs, H1 from the second derivatives of every output weighted by
    its residual; the energy is half the mean squared residual, and the Hessian is that of n energies.
    """
    n, phi = 8 if full else 6, 0.5
    surface = memorizing(n, phi)(seed)
    x, y, w = (torch.from_numpy(part) for part in noise(n, phi, seed))

    def outputs(theta: torch.Tensor) -> torch.Tensor:
        W, V = theta[: n * n].view(n, n), theta[n * n :].view(n, n)
        return (torch.tanh(x @ W.T) @ V.T).flatten()

    e = outputs(w) - y.flatten()
    J: Any = torch.autograd.functional.jacobian(outputs, w)
    curved: Any = torch.autograd.functional.hessian(lambda t: outputs(t) @ e, w)
    m = len(x)
    H0, H1 = J.T @ J / m, curved / m
    G, H = n * surface.gauss_newton().to_dense(), n * surface.hessian().to_dense()
    size = float(H.abs().max())
    energy = abs(float(surface.energy()) - 0.5 * float(e.square().mean()))
    ratio = surface.size / y.numel()
    gaps = [float((A - B).abs().max()) / size for A, B in ((H0, G), (H0 + H1, H))]
    return Outcome(
        checks=(
            check("H0 = J'J/m is the Gauss-Newton matrix", "equal", gaps[0], gaps[0] < 1e-12),
            check("H = H0 + H1 with the residuals' second derivatives", "equal", gaps[1], gaps[1] < 1e-12),
            check("energy = half the mean squared residual", "equal", energy, energy < 1e-12),
            check(
                "phi = parameters / scalar targets = 2 n/m", 2 * n / m, ratio, abs(ratio - 2 * n / m) < 1e-12
            ),
        )
    )


@item("figure-1", "Are the two parts of the Hessian freely independent? A trained autoencoder", seconds=12)
def figure_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 1: eigenvalues of H0 + H1 beside those of H0 + Q H1 Q' for random rotations Q.

    A ReLU autoencoder with 20 hidden units and no biases, trained on 150 images of 4 x 4 grey levels,
    whitened: digits of 8 x 8 pooled to 4 x 4, in place of the paper's CIFAR-10 images. The yardstick is
    the distance between two rotations.
    """
    x = small_images(150, seed)
    random = numpy_generator(seed, "autoencoder")
    start = random.standard_normal(2 * 16 * 20) / 4
    energy, weights = trained(x, x, start, 20, "relu", 30)
    H0, H1 = _parts(shallow(x, x, weights, 20, "relu"))
    true = np.linalg.eigvalsh(H0 + H1)
    draws = [np.linalg.eigvalsh(H0 + _turned(H1, random)) for _ in range(10 if full else 3)]
    free = np.sort(np.concatenate(draws))
    gap, null = _gap(true, free), max(_gap(draw, free) for draw in draws)
    measured = free_sum(np.linalg.eigvalsh(H0), np.linalg.eigvalsh(H1))
    predicted = float(np.abs(measured.cdf(free[::20]) - (np.arange(len(free))[::20] + 0.5) / len(free)).max())
    marchenko = _law_gap(MarchenkoPastur(640 / (150 * 16)), np.linalg.eigvalsh(H0))
    x_axis = Axis(label="eigenvalue / mean of H0", scale="signed_log", threshold=0.1)
    share = (np.arange(len(true)) + 0.5) / len(true)
    marks = (
        Line(x=true, y=share, label="H0 + H1"),
        Line(x=free, y=(np.arange(len(free)) + 0.5) / len(free), label="H0 + Q H1 Q'", dash=True),
    )
    picture = Picture(
        title="Freeness of the two parts of a Hessian",
        caption=f"Autoencoder of {len(true)} weights at energy {energy:.3g}: {gap:.3f} apart at most; "
        f"two rotations differ by {null:.3f}.",
        panels=(Panel(marks=marks, x=x_axis, y=Axis(label="share of eigenvalues below")),),
    )
    return Outcome(
        checks=(
            check(
                "H0 + H1 has nearly the spectrum of H0 + Q H1 Q'",
                "agree",
                gap,
                gap < 0.08,
                f"Kolmogorov distance; two rotations differ by {null:.3f}",
            ),
            check(
                "the free sum of the two measured spectra predicts the rotated ones",
                "not in the paper",
                predicted,
                predicted < 0.03,
                "subordination, no rotation drawn",
            ),
            check(
                "what fails on a network is Marchenko-Pastur for H0, not freeness",
                "assumed",
                marchenko,
                marchenko > 5 * gap,
                "outliers of the mean activation, zero modes of the scale symmetry",
            ),
        ),
        pictures=(picture,),
    )


def _judged(rows: list[Row], n: int) -> Outcome:
    """The claims about networks of width n."""
    variance = max(abs(r.variance / r.law_variance - 1) for r in rows)
    free = max(abs(r.free_sum - r.index) for r in rows)
    relu = max(abs(r.relu_law - r.index) for r in rows)
    marchenko = min(r.marchenko_pastur for r in rows)
    zeros = {r.zero_modes for r in rows}
    marks = tuple(
        Points(x=np.array([r.index for r in rows]), y=np.array([r[name] for r in rows]), label=label)
        for name, label in (
            ("free_sum", "free sum of the measured parts"),
            ("relu_law", "ReLU law"),
            ("general_law", "general law"),
        )
    )
    ends = np.array([0.0, 0.4])
    panel = Panel(
        marks=(*marks, Line(x=ends, y=ends, label="true")),
        x=Axis(label="index of the network's Hessian"),
        y=Axis(label="index predicted"),
    )
    return Outcome(
        checks=(
            check(
                "H1 has the variance eps phi / 2 of the law", "equal", variance, variance < 0.15, "relative"
            ),
            check(
                "the free sum of measured H0 and H1 predicts the index",
                "not in the paper",
                free,
                free < 0.04,
            ),
            check(
                "closer than the law that takes H0 for Marchenko-Pastur",
                "not in the paper",
                relu,
                relu > free,
            ),
            check("H0 is far from Marchenko-Pastur", "assumed", marchenko, marchenko > 0.1, "least distance"),
            check(
                "H0 has one exact zero for each hidden unit",
                n,
                str(sorted(zeros)),
                zeros == {n},
                "scale symmetry",
            ),
        ),
        table=Table(title="a ReLU network beside the laws", rows=tuple(rows)),
        pictures=(
            Picture(
                title="The index of ReLU networks, predicted three ways",
                caption=f"Networks of width {n} with Gaussian weights, data and residuals.",
                panels=(panel,),
            ),
        ),
    )


@item("figure-4", "A ReLU network with Gaussian weights beside the ReLU law", seconds=6)
def figure_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 4.2 on networks that fulfil its assumptions on weights, data and residuals.

    Width 24 (16 by default); targets are outputs plus Gaussian residuals of the wanted energy. H1 has the
    variance and shape of the law; H0 is not Marchenko-Pastur, so the index is the law's only in kind. The
    free sum of the *measured* parts comes closest.
    """
    n, rows = (24 if full else 16), []
    for phi, eps in ((0.25, 0.1), (0.5, 0.4), (0.75, 0.8)):
        x, y, w = noise(n, phi, seed)
        surface = shallow(x, y, w, n, "relu")
        outputs = surface.outputs().numpy()
        residuals = numpy_generator(seed, "residuals").standard_normal(outputs.shape) * np.sqrt(2 * eps)
        H0, H1 = _parts(shallow(x, outputs - residuals, w, n, "relu"))
        natural = n * float(surface.gauss_newton().to_dense().trace()) / len(H0)
        energy = eps / natural**2
        law, general = WishartPlusReluResidual(energy, phi), WishartPlusWigner(energy, phi)
        values = [np.linalg.eigvalsh(H) for H in (H0, H1, H0 + H1)]
        total = free_sum(values[0], values[1])
        index = float((values[2] < -1e-9).mean())
        rows.append(
            Row(
                aspect_ratio=phi,
                energy=energy,
                variance=float((values[1] ** 2).mean()),
                law_variance=energy * phi / 2,
                marchenko_pastur=_law_gap(MarchenkoPastur(phi), values[0]),
                zero_modes=int((np.abs(values[0]) < 1e-9).sum()),
                index=index,
                free_sum=total.index(),
                relu_law=law.index(),
                general_law=general.index(),
                shape=_law_gap(law, values[2]),
            )
        )
    return _judged(rows, n)
