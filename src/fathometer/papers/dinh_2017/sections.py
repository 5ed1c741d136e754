"""Section 5 and the appendices: other coordinates, other inputs, biases, other losses."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fathometer.model import LossSurface, mlp, residual_cnn
from fathometer.papers.dinh_2017.networks import at_a_minimum
from fathometer.papers.item import Outcome, check, item
from fathometer.sharpness import (
    RadialBijection,
    Reparametrization,
    epsilon_sharpness,
    keskar,
    layer_scale,
    many_large_eigenvalues,
    rescalings,
)
from fathometer.work import numpy_generator


@item("section-5.1", "Derivatives in other coordinates; weight normalization", seconds=1)
def section_5_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 5.1: ``H_eta = J' H J`` plus a term of the gradient; the direction v of weight normalization.

    With ``w = s v / |v|`` the factor of v is free: eigenvalues of the block of v go with ``1 / a^2``, so that
    ball sharpness falls as low as one likes, in the whole space and in a random subspace.
    """
    surface = at_a_minimum((3, 4, 2), noise=0.2, seed=seed)
    draw = numpy_generator(seed, "section 5.1")
    A = torch.from_numpy(np.eye(surface.size) + 0.2 * draw.standard_normal((surface.size, surface.size)))

    def forward(theta: Tensor) -> Tensor:
        return torch.linalg.solve(A, torch.sinh(theta))

    def inverse(eta: Tensor) -> Tensor:
        return torch.asinh(A @ eta)

    other = Reparametrization(forward, inverse).apply(surface)
    H = other.hessian().to_dense()
    J = torch.func.jacrev(inverse)(other.theta)
    second = torch.func.jacfwd(torch.func.jacrev(inverse))(other.theta)
    formula = J.T @ surface.hessian().to_dense() @ J + torch.einsum("k,kij->ij", surface.gradient(), second)
    gap = float((H - formula).abs().max() / formula.abs().max())
    normalized = [_weight_normalized(surface, a) for a in (1.0, 10.0, 100.0)]
    norms = [float(torch.linalg.eigvalsh(s.hessian().to_dense()[:12, :12]).abs().max()) for s in normalized]
    fall = [norms[0] / norm for norm in norms[1:]]
    ball = [float(epsilon_sharpness(s.at(s.theta), 0.05, starts=4, seed=seed).value) for s in normalized]
    random = [float(keskar(s, 1e-4, subspace=5, starts=4, seed=seed).value) for s in normalized]
    outputs = float((normalized[2].outputs() - surface.outputs()).abs().max())
    return Outcome(
        checks=(
            check("Hessian in other coordinates", 0.0, gap, gap < 1e-8),
            check("weight normalization keeps the function", 0.0, outputs, outputs < 1e-12),
            check(
                "a factor 10 of v divides its curvature by 100", 100.0, fall[0], abs(fall[0] / 100 - 1) < 1e-6
            ),
            check("and 100 by 10,000", 1e4, fall[1], abs(fall[1] / 1e4 - 1) < 1e-6),
            check(
                "ball sharpness falls with it",
                "decreasing",
                f"{ball[0]:.3g} -> {ball[2]:.3g}",
                ball[0] > ball[1] > ball[2],
            ),
            check(
                "Keskar's in a random subspace too",
                "decreasing",
                f"{random[0]:.3g} -> {random[2]:.3g}",
                random[0] > random[2],
                note="the box grows with the weights, but not as fast as the curvature in v falls",
            ),
        )
    )


def _weight_normalized(surface: LossSurface, factor: float) -> LossSurface:
    """The network with the direction of its first weight as parameter, of norm ``factor``; scale fixed."""
    model = surface.write()
    W = model.fc1.weight.detach()  # type: ignore[union-attr]
    scale = float(W.norm())

    class Direction(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = nn.Parameter(factor * W / W.norm())
            self.rest = nn.Sequential(*list(model.children())[2:])

        def forward(self, x: Tensor) -> Tensor:
            return self.rest(F.linear(x.flatten(1), scale * self.v / self.v.norm()))

    inputs = surface.example_inputs(surface.examples)[0]
    with torch.no_grad():
        targets = model(inputs)
    return LossSurface(Direction().double(), "half_mse", (inputs, targets), parameters="v")


@item("section-5.2", "The size of input gradients depends on the preprocessing", seconds=1)
def section_5_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Section 5.2: ``grad_u f(xi(u)) = grad_x f(xi(u)) dxi/du``, taken at u (the text says at xi(u))."""
    model = mlp((3, 6, 1), seed=seed).double()
    u = torch.from_numpy(numpy_generator(seed, "section 5.2").standard_normal(3))

    def xi(u: Tensor) -> Tensor:
        return torch.sinh(0.5 * u) * torch.tensor([10.0, 1.0, 0.01], dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return model(x[None])[0, 0]

    h = 1e-6
    eye = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        differences = torch.stack([(f(xi(u + h * e)) - f(xi(u - h * e))) / (2 * h) for e in eye])
    chain = torch.func.grad(f)(xi(u)) @ torch.func.jacrev(xi)(u)
    gap = float((differences - chain).detach().abs().max() / chain.detach().abs().max())
    ratio = (chain / torch.func.grad(f)(xi(u))).abs().detach()
    return Outcome(
        checks=(
            check("chain rule against differences", 0.0, gap, gap < 1e-6),
            check(
                "preprocessing changes single gradients by",
                "any factor",
                f"{float(ratio.min()):.2g} to {float(ratio.max()):.2g}",
                float(ratio.max() / ratio.min()) > 100,
            ),
        )
    )


@item("appendix-a", "A local bijection multiplies the Hessian and does nothing elsewhere", seconds=1)
def appendix_a(*, full: bool = False, seed: int = 0) -> Outcome:
    """Appendix A, around a minimum: ``H_eta = (inner / image)^2 H``, the identity outside, determinant."""
    surface = at_a_minimum((3, 3, 2), seed=seed)
    theta, n = surface.theta, surface.size
    outer, inner, image = 0.5, 0.4, 0.004
    bijection = RadialBijection(theta, outer, inner, image)
    H = surface.hessian().to_dense()
    found = bijection.apply(surface).hessian().to_dense()
    factor = (inner / image) ** 2
    gap = float((found - factor * H).abs().max() / (factor * H).abs().max())
    draw = torch.from_numpy(numpy_generator(seed, "appendix a").standard_normal(n))
    draw /= draw.norm()
    far = theta + 1.01 * outer * draw
    moved = float((bijection.to_eta(far) - far).abs().max())
    r = 0.45
    J = bijection.jacobian(theta + r * draw)
    slope = (image - outer) / (inner - outer)
    psi = slope * (r - outer) + outer
    determinant = math.log(slope) + (n - 1) * math.log(psi / r)
    measured = float(torch.linalg.slogdet(J)[1])
    swap = RadialBijection(theta, outer, image, inner)
    inverse = float((swap.to_eta(bijection.to_eta(theta + r * draw)) - theta - r * draw).abs().max())
    return Outcome(
        checks=(
            check("Hessian at the center, over the factor 10,000", 0.0, gap, gap < 1e-9),
            check("identity outside the ball", 0.0, moved, moved == 0.0),
            check("log determinant in the shell", determinant, measured, abs(measured - determinant) < 1e-8),
            check("the inverse is the same map with the radii exchanged", 0.0, inverse, inverse < 1e-12),
        )
    )


@item("appendix-b", "Biases follow their activations", seconds=1)
def appendix_b(*, full: bool = False, seed: int = 0) -> Outcome:
    """Appendix B: bias k is multiplied by ``a_1 ... a_k``; fewer eigenvalues can be driven."""
    surface = at_a_minimum((3, 4, 4, 2), bias=True, examples=200, seed=seed)
    model = surface.write()
    factors = {"fc1": 3.0, "fc2": 0.5, "fc3": 1 / 1.5}
    moved = layer_scale(model, factors, surface.example_inputs())
    product, gaps = 1.0, []
    for name, a in factors.items():
        product *= a
        old, new = model.get_submodule(name).bias, moved.get_submodule(name).bias
        gaps.append(float((new - product * old).abs().max()))  # type: ignore[operator]
    change = float((surface.around(moved).outputs() - surface.outputs()).abs().max())
    with_bias = many_large_eigenvalues(surface, 1e4)
    return Outcome(
        checks=(
            check("biases carry the product of the factors so far", 0.0, max(gaps), max(gaps) < 1e-14),
            check("the function stays", 0.0, change, change < 1e-12),
            check(
                "large eigenvalues, with biases",
                f"at least {with_bias.guaranteed:g}",
                with_bias.measured,
                with_bias.measured >= with_bias.guaranteed,
            ),
        )
    )


@item("appendix-d", "Which losses depend on the representation of the outputs", seconds=1)
def appendix_d(*, full: bool = False, seed: int = 0) -> Outcome:
    """Appendix D: squared error and the earth mover's distance rank by representation, divergences do not."""
    errors = [abs(3.2 - guess) for guess in (2.0, 4.3)]  # the target is 3.2
    other = [abs(3.2**4 - guess**4) for guess in (2.0, 4.3)]
    draw = numpy_generator(seed, "appendix d")
    p, q = (w / w.sum() for w in draw.random((2, 50)))
    order = draw.permutation(50)
    divergence = float((p * np.log(p / q)).sum())
    moved = float((p[order] * np.log(p[order] / q[order])).sum())
    return Outcome(
        checks=(
            check(
                "the better guess by squared error",
                "second",
                "second" if errors[1] < errors[0] else "first",
                errors[1] < errors[0],
            ),
            check(
                "after the bijection y^4",
                "first",
                "first" if other[0] < other[1] else "second",
                other[0] < other[1],
            ),
            check(
                "a divergence does not see a bijection of the outcomes",
                divergence,
                moved,
                abs(moved - divergence) < 1e-12,
            ),
        )
    )


@item("beyond-rescaling", "The same for any network: all rescalings from its graph", seconds=1)
def beyond_rescaling(*, full: bool = False, seed: int = 0) -> Outcome:
    """Definition 5 for a network with skips, convolutions and batch normalization; no layer is named."""
    model = residual_cnn(seed=seed).double().eval()
    x = torch.from_numpy(numpy_generator(seed, "beyond").standard_normal((2, 1, 8, 8)))
    group = rescalings(model, x)
    moved = group.move(seed=seed)
    with torch.no_grad():
        change = float((moved(x) - model(x)).abs().max() / model(x).abs().max())
    old, new = (torch.cat([p.flatten() for p in m.parameters()]) for m in (model, moved))
    share = float((new - old).norm() / old.norm())
    return Outcome(
        checks=(
            check("independent factors", "> 0", group.dimension, group.dimension > 0),
            check("change of the outputs", 0.0, change, change < 1e-12),
            check("share of the weights' norm that moved", "> 0.5", share, share > 0.5),
        )
    )
