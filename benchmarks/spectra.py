"""Curvature products, eigenpairs, densities and traces against the public tools for them.

Networks and data are made up once and trained a little, so that the Hessian has outliers. Every
contender gets the same weights in float32 and the same data in one batch, on one thread.
"""

from functools import cache

import numpy as np
import torch
from torch import nn

import fathometer as fm
from benchmarks.race import Race
from fathometer.model.embedded import digits

PEERS = ["curvlinops-for-pytorch==3.0.1", "hessian-eigenthings==1.0.0a5", "pyhessian==0.1"]
N = 1792


def perceptron():
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutional():
    def block(i, o):
        return nn.Conv2d(i, o, 3, padding=1, stride=2), nn.ReLU()

    return nn.Sequential(*block(1, 16), *block(16, 32), *block(32, 32), nn.Flatten(), nn.Linear(512, 10))


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


def curvlinops(build):
    from curvlinops import HessianLinearOperator

    model, x, y = trained(build)
    parameters = dict(model.named_parameters())
    try:
        return HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
        )
    except (TypeError, AttributeError):
        return HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(parameters.values()), [(x, y)], check_deterministic=False
        )


def eigenthings(build):
    from hessian_eigenthings import HessianOperator

    model, x, y = trained(build)
    return HessianOperator(
        model, [(x, y)], lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1])
    )


def pyhessian(build):
    from pyhessian import hessian

    model, x, y = trained(build)
    return hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)


def lazily(make, use):
    """Work on a thing that is made in the first call, which the race does not time."""
    made = []

    def work():
        if not made:
            made.append(make())
        return use(made[0])

    return work


def gradients(build, count):
    """As many full-data gradients: the yardstick of the goals."""
    model, x, y = trained(build)
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
    goals = {
        perceptron: "at most 1.45 gradients; 2.2 times curvlinops, 1.7 times hessian-eigenthings",
        convolutional: "at most 2.4 gradients; 1.5 times curvlinops, 1.4 times hessian-eigenthings",
        residual: "at most 2.4 gradients; 1.5 times curvlinops, 1.4 times hessian-eigenthings",
    }
    for build, goal in goals.items():
        v = vector(trained(build)[0])
        yield Race(
            f"One Hessian product, {build.__name__}, {len(v):,} parameters, {N} examples",
            goal,
            lazily(lambda b=build: ours(b).hessian(), lambda A, v=v: A @ v),
            {
                "one gradient": gradients(build, 1),
                "curvlinops": lazily(lambda b=build: curvlinops(b), lambda A, v=v: A @ v),
                "hessian-eigenthings": lazily(lambda b=build: eigenthings(b), lambda A, v=v: A.matvec(v)),
            },
            near,
            repeats=5,
        )


def top(build):
    A = ours(build).hessian()
    return fm.eigenpairs(A, 10, tolerance=1e-4).values


def top_curvlinops(build):
    from scipy.sparse.linalg import eigsh

    A = curvlinops(build)
    return np.sort(eigsh(A.to_scipy(), 10, which="LA", tol=1e-4, return_eigenvectors=False))[::-1].copy()


def top_pyhessian(build):
    values, _ = pyhessian(build).eigenvalues(maxIter=300, tol=1e-4, top_n=10)
    return np.array(values)


def densities():
    build, probes, steps = convolutional, 1, 20
    v = vector(trained(build)[0])

    def quadrature(A):
        from hessian_eigenthings.algorithms import spectral_density

        return spectral_density(A, num_runs=probes, lanczos_steps=steps, seed=0)

    def papyan(build=build):
        from curvlinops.papyan2020traces.spectrum import lanczos_approximate_spectrum

        A = curvlinops(build)
        return lanczos_approximate_spectrum(A, ncv=steps, num_repeats=probes, boundaries=(-5.0, 60.0))

    yield Race(
        f"Spectral density, {probes} probes x {steps} steps, convolutional, {len(v):,} parameters",
        "2 times curvlinops, 1.8 times hessian-eigenthings",
        lambda: fm.spectra.density(ours(build), probes, steps, method="lanczos").mean,
        {
            "curvlinops": lambda: papyan() and None,
            "hessian-eigenthings": lambda: quadrature(eigenthings(build)) and None,
        },
        lambda mine, theirs: f"mean eigenvalue {mine:.4g} (theirs are smoothed curves)",
        repeats=2,
    )


def trace_by_probes(build=perceptron):
    import pyhessian as _  # noqa: F401

    return np.mean(pyhessian(build).trace(maxIter=50, tol=1e-2))


def races():
    """Products, eigenpairs, densities, traces and the exact Gauss-Newton spectrum."""
    yield from products()
    yield Race(
        "Ten largest eigenvalues to a residual of 1e-4, perceptron, 269,322 parameters",
        "1.6 times curvlinops with eigsh; 4 times PyHessian",
        lambda: top(perceptron),
        {
            "curvlinops + eigsh": lambda: top_curvlinops(perceptron),
            "PyHessian": lambda: top_pyhessian(perceptron),
        },
        lambda mine, theirs: near(mine, theirs, 0.05),
        repeats=2,
    )
    yield from densities()
    yield Race(
        "Exact trace, perceptron, 10 classes (PyHessian: an estimate to 1%)",
        "at most 3 gradients",
        lazily(lambda: ours(perceptron), lambda s: fm.spectra.exact_trace(s)["all"].value),
        {"three gradients": gradients(perceptron, 3), "PyHessian, Hutchinson": trace_by_probes},
        lambda mine, theirs: near(mine, {k: v for k, v in theirs.items() if "Hut" in k}, 0.2),
        repeats=5,
    )
    few = 384
    yield Race(
        f"All eigenvalues of the Gauss-Newton matrix, perceptron, {few} examples",
        "at most 450 gradients of these examples",
        lazily(lambda: ours(perceptron, few), lambda s: fm.spectra.gauss_newton_spectrum(s).value[1]),
        {"450 gradients": gradients_of_few(few, 450)},
        lambda mine, theirs: f"largest eigenvalue {mine:.4g}",
        repeats=3,
    )


def gradients_of_few(examples, count):
    def work():
        model, x, y = trained(perceptron, examples)
        for _ in range(count):
            torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))

    return work
