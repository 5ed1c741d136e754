"""Curvature products, eigenpairs, densities and traces against the public tools for them.

Networks and data are made up once and trained a little, so that the Hessian has outliers. Every
contender gets the same weights in float32 and the same data in one batch, on one thread.
"""

from functools import cache

import numpy as np
import torch
from torch import nn

import fathometer as fm
from benchmarks.goal import faster, seconds, within
from benchmarks.networks import convolutional, perceptron
from benchmarks.race import Race
from fathometer.model.embedded import digits

PEERS = ["curvlinops-for-pytorch==3.0.1", "hessian-eigenthings==1.0.0a5", "pyhessian==0.1"]
N = 1024


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def residual():
    stem = nn.Conv2d(1, 16, 3, padding=1, stride=2)
    return nn.Sequential(
        stem, nn.ReLU(), Residual(16), Residual(16), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(144, 10)
    )


def small():
    return nn.Sequential(
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(49, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@cache
def trained(build, examples=N):
    """(model, x, y), after some epochs of Adam on the embedded digits."""
    images, classes, _, _ = digits()
    chosen = torch.arange(examples) % len(images)
    x, y = nn.functional.interpolate(images[chosen], size=(28, 28)), classes[chosen]
    x = x.flatten(1) if build is perceptron else x
    torch.manual_seed(0)
    model = build()
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(20):
        for rows in torch.arange(examples).split(256):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            adam.step()
    return model, x, y


def vector(model):
    size = sum(p.numel() for p in model.parameters())
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def ours(build, examples=N):
    model, x, y = trained(build, examples)
    return fm.LossSurface(model, "cross_entropy", (x, y), chunk=examples)


def curvlinops(build, examples=N):
    from curvlinops import HessianLinearOperator

    model, x, y = trained(build, examples)
    parameters = dict(model.named_parameters())
    try:
        return HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
        )
    except (TypeError, AttributeError):
        return HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(parameters.values()), [(x, y)], check_deterministic=False
        )


def eigenthings(build, examples=N):
    from hessian_eigenthings import HessianOperator

    model, x, y = trained(build, examples)
    return HessianOperator(
        model, [(x, y)], lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1])
    )


def pyhessian(build, examples=N):
    from pyhessian import hessian

    model, x, y = trained(build, examples)
    return hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)


def lazily(make, use):
    """Work on a thing that is made in the first call, which the race does not time."""
    made = []

    def work():
        if not made:
            made.append(make())
        return use(made[0])

    return work


def gradients(build, count, examples=N):
    """As many full-data gradients: the yardstick of the goals."""
    model, x, y = trained(build, examples)
    parameters = list(model.parameters())

    def work():
        for _ in range(count):
            torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)

    return work


def near(mine, theirs, tolerance=1e-3):
    """How far the peers' arrays are from ours, relatively; raises beyond the tolerance."""
    gaps = {}
    for name, found in theirs.items():
        if found is None:
            continue
        a, b = (np.asarray(torch.as_tensor(t).detach().double().ravel()) for t in (mine, found))
        gaps[name] = float(np.linalg.norm(a - b) / np.linalg.norm(a))
        if gaps[name] > tolerance:
            raise ValueError(f"{name} differs by {gaps[name]:.2g}")
    return "relative difference " + ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items())


def products():
    goals = {perceptron: (1.45, 2.2, 1.7), convolutional: (2.4, 1.5, 1.4), residual: (2.4, 1.5, 1.4)}
    for build, (most, one, other) in goals.items():
        v = vector(trained(build)[0])
        yield Race(
            f"One Hessian product, {build.__name__}, {len(v):,} parameters, {N} examples",
            (within("one gradient", most), faster("curvlinops", one), faster("hessian-eigenthings", other)),
            lazily(lambda b=build: ours(b).hessian(), lambda A, v=v: A @ v),
            {
                "one gradient": gradients(build, 1),
                "curvlinops": lazily(lambda b=build: curvlinops(b), lambda A, v=v: A @ v),
                "hessian-eigenthings": lazily(lambda b=build: eigenthings(b), lambda A, v=v: A.matvec(v)),
            },
            near,
            repeats=5,
            yardsticks=("one gradient",),
        )


def top(check=True):
    A = ours(perceptron).hessian()
    return fm.eigenpairs(A, 10, tolerance=1e-4, check=check).values


def top_curvlinops():
    from scipy.sparse.linalg import eigsh

    A = curvlinops(perceptron)
    return np.sort(eigsh(A.to_scipy(), 10, which="LA", tol=1e-4, return_eigenvectors=False))[::-1].copy()


def top_curvlinops_measured():
    """The same with vectors and one product for each, which says how large the residuals are, as ours are."""
    from scipy.sparse.linalg import eigsh

    A = curvlinops(perceptron)
    values, vectors = eigsh(A.to_scipy(), 10, which="LA", tol=1e-4)
    V = torch.from_numpy(vectors)
    residuals = (torch.as_tensor(A @ V) - V * torch.from_numpy(values)).norm(dim=0)
    if bool((residuals > 1e-4 * torch.from_numpy(values)).any()):
        raise ValueError("a residual is above 1e-4")
    return np.sort(values)[::-1].copy()


def top_pyhessian():
    """It stops when a value changes by less than 1e-4 of itself, which leaves residuals of up to 1e-2."""
    values, _ = pyhessian(perceptron).eigenvalues(maxIter=100, tol=1e-4, top_n=10)
    return np.array(values)


def densities():
    """The peers are given a fifth of the probes; curvlinops is told the ends of the spectrum."""
    probes, steps, part, examples = 50, 100, 10, 512
    size = len(vector(trained(small, examples)[0]))
    few = f"({part} probes, times {probes // part})"

    @cache
    def ends():
        A = ours(small, examples).hessian()
        return tuple(float(fm.eigenpairs(A, 1, which=side).values[0]) for side in ("smallest", "largest"))

    def quadrature():
        from hessian_eigenthings.algorithms import spectral_density

        found = spectral_density(eigenthings(small, examples), num_runs=part, lanczos_steps=steps, seed=0)
        return mean(found.grid, found.density)

    def papyan():
        from curvlinops.papyan2020traces.spectrum import lanczos_approximate_spectrum

        A = curvlinops(small, examples)
        return mean(*lanczos_approximate_spectrum(A, ncv=steps, num_repeats=part, boundaries=ends()))

    def agree(mine, theirs):
        spread = (ends()[1] - ends()[0]) / 100
        for name, value in theirs.items():
            if abs(value - mine) > spread:
                raise ValueError(f"{name}: mean eigenvalue {value:.4g}, ours {mine:.4g}")
        found = ", ".join(f"{name} {value:.4g}" for name, value in theirs.items())
        return f"mean eigenvalue: ours {mine:.4g}, {found} (smoothed) in a spectrum {100 * spread:.3g} wide"

    ends()
    peers = {f"curvlinops {few}": papyan, f"hessian-eigenthings {few}": quadrature}
    yield Race(
        f"Spectral density, {probes} probes x {steps} steps, small perceptron, {size:,} parameters, "
        f"{examples} examples",
        tuple(faster(name, times) for name, times in zip(peers, (2, 1.8), strict=True)),
        lambda: fm.spectra.density(ours(small, examples), probes, steps, method="lanczos").mean,
        peers,
        agree,
        repeats=2,
        shares=dict.fromkeys(peers, part / probes),
    )


def mean(grid, curve):
    """Mean of a density given on a grid."""
    grid, curve = (np.asarray(torch.as_tensor(t).detach().double()) for t in (grid, curve))
    return float((grid * curve).sum() / curve.sum())


def races():
    """Products, eigenpairs, densities, traces and the exact Gauss-Newton spectrum."""
    yield from products()
    yield Race(
        f"Ten largest eigenvalues to a residual of 1e-4, perceptron, 269,322 parameters, {N} examples",
        (faster("curvlinops + eigsh", 1.6), faster("PyHessian (residuals to 1e-2)", 4)),
        top,
        {
            "curvlinops + eigsh": top_curvlinops,
            "curvlinops + eigsh, residuals measured": top_curvlinops_measured,
            "PyHessian (residuals to 1e-2)": top_pyhessian,
        },
        lambda mine, theirs: near(mine, theirs, 0.05),
        repeats=3,
        note="37 products: 20 of the search, ten measure the residuals and seven look for eigenvalues that "
        "a single start vector misses, at a confidence of 0.999. eigsh takes 22 and does neither.",
    )
    yield Race(
        "The same ten with their residuals, and no search for missed ones (30 products against 32)",
        faster("curvlinops + eigsh, residuals measured", 1.6),
        lambda: top(check=False),
        {"curvlinops + eigsh, residuals measured": top_curvlinops_measured},
        lambda mine, theirs: near(mine, theirs, 0.05),
        repeats=3,
    )
    yield from densities()
    yield Race(
        f"Exact trace, perceptron, 10 classes, {N} examples (PyHessian: an estimate)",
        within("three gradients", 1),
        lazily(lambda: ours(perceptron), lambda s: fm.spectra.exact_trace(s)["all"].value),
        {"three gradients": gradients(perceptron, 3), "PyHessian, 50 probes": trace_by_probes},
        lambda mine, theirs: near(mine, {k: v for k, v in theirs.items() if "probes" in k}, 0.2),
        repeats=3,
        yardsticks=("three gradients",),
    )
    yield law_densities()
    examples, bare = 384, "450 gradients (45, times 10)"
    yield Race(
        f"All eigenvalues of the Gauss-Newton matrix, perceptron, {examples} examples",
        within(bare, 1),
        lazily(lambda: ours(perceptron, examples), lambda s: fm.spectra.gauss_newton_spectrum(s).value[1]),
        {bare: gradients(perceptron, 45, examples)},
        lambda mine, theirs: f"largest eigenvalue {mine:.4g}; the peer is a yardstick",
        repeats=3,
        shares={bare: 0.1},
        yardsticks=(bare,),
    )


def law_densities(points=10_001):
    """The yardstick solves the cubic of the law at every point, by the eigenvalues of companion matrices."""
    law = fm.spectra.WishartPlusWigner(energy=0.1, aspect_ratio=0.5)
    x = np.linspace(-2.0, 4.0, points)

    def companions():
        eps, phi = 0.1, 0.5
        lead = 2 * eps * phi
        M = np.zeros((points, 3, 3))
        M[:, 1, 0] = M[:, 2, 1] = 1.0
        M[:, 0, 2], M[:, 1, 2], M[:, 2, 2] = 1 / lead, -(x + phi - 1) / lead, (2 * eps + x * phi) / lead
        return -np.linalg.eigvals(M).imag.min(1) / np.pi

    def agree(mine, theirs):
        gap = float(np.abs(mine - theirs["companion matrices"]).max())
        if gap > 1e-6:
            raise ValueError(f"densities differ by {gap:.2g}")
        return f"largest difference {gap:.1e}"

    return Race(
        f"{points:,} densities of the law Wishart + Wigner",
        seconds(0.1),
        lambda: law.pdf(x),
        {"companion matrices": companions},
        agree,
        repeats=5,
    )


def trace_by_probes():
    return np.mean(pyhessian(perceptron).trace(maxIter=50, tol=0.0))
