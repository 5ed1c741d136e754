"""The trainer behind the embedded networks: ``python -m fathometer.model.training``.

Adam on mini-batches in float32, then L-BFGS on all data in float64 with the network as it
is measured (evaluation mode), until the gradient is small. The loss has a finite minimum:
squared error, or cross-entropy with smoothed labels; plain cross-entropy on data that the
network separates has its infimum at infinity, where every curvature tends to zero.

Where L-BFGS crawls (the residual network: curvatures over many decades), further rounds of it
run in coordinates u = L' theta with L L' the damped Gauss-Newton matrix at the start of the
round, and end at the point of least gradient that they saw. The damping keeps them near: the
floor of the loss lies far off, in flat directions, and the network there reads 95% of the test
images instead of 99%.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from fathometer.model.embedded import RECIPES, SMOOTHING, Recipe, digits
from fathometer.model.replica import unchanged_random_state
from fathometer.model.surface import LossSurface
from fathometer.work import generator, threads


def train(
    recipe: Recipe, *, epochs: int, polish: int, dampings: Sequence[float] = (), seed: int = 0
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a network on the digits; return it (float32, evaluation mode) and its card.

    Args:
        recipe: Architecture and loss.
        epochs: Passes of Adam over the training data, batches of 64.
        polish: Iterations of L-BFGS afterwards.
        dampings: Of the Gauss-Newton matrices, one for each further round; for cross-entropy.
        seed: Of the order of the batches.
    """
    x, y, x_test, y_test = digits()
    model, targets = recipe.build(), recipe.targets(y)
    with unchanged_random_state():
        _adam(model, recipe, x, targets, epochs, seed)
    surface = LossSurface(model.eval(), recipe.loss(), (x, targets)).double()
    theta, steps = _polished(surface, polish)
    for damping in dampings:
        theta, more = _refined(surface, theta, x, damping)
        steps += more
    model = LossSurface(model, recipe.loss(), (x, targets)).write(theta)
    card = {
        "title": recipe.title,
        "parameters": surface.size,
        "examples": surface.examples,
        "loss": "half the mean squared error"
        if recipe.squared
        else f"cross-entropy, labels smoothed by {SMOOTHING}",
        "train accuracy": _accuracy(model, x, y),
        "test accuracy": _accuracy(model, x_test, y_test),
        "energy": float(surface.energy(theta)),
        "gradient norm": float(surface.gradient(theta).norm()),
        "training": f"Adam, {epochs} epochs; L-BFGS, {steps} iterations",
        "data": "Optical Recognition of Handwritten Digits (UCI), 8 x 8, 1,438 for training, 359 for testing",
    }
    return model, card


def _adam(model: nn.Module, recipe: Recipe, x: Tensor, targets: Tensor, epochs: int, seed: int) -> None:
    shuffle = generator(seed, "training order")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=shuffle).split(64):
            outputs = model(x[rows])
            loss = (
                F.mse_loss(outputs, targets[rows]) / 2
                if recipe.squared
                else F.cross_entropy(outputs, targets[rows], label_smoothing=SMOOTHING)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _polished(surface: LossSurface, iterations: int) -> tuple[Tensor, int]:
    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        return float(surface.energy(theta)), np.asarray(surface.gradient(theta))

    options = {"maxiter": iterations, "maxfun": 3 * iterations, "ftol": 0.0, "gtol": 1e-10, "maxcor": 50}
    found = minimize(value, surface.theta.numpy(), jac=True, method="L-BFGS-B", options=options)
    # the checkpoint is float32, so the card describes that point
    return torch.from_numpy(found.x).float().double(), int(found.nit)


def _refined(surface: LossSurface, theta: Tensor, x: Tensor, damping: float) -> tuple[Tensor, int]:
    """The point of least gradient of 100 steps of L-BFGS in the coordinates of the Gauss-Newton matrix."""
    G = gauss_newton_matrix(surface.write(theta).float(), x)
    L = np.linalg.cholesky(G.numpy() + damping * np.eye(len(G), dtype=np.float32))
    base, best = theta.numpy(), (float(surface.gradient(theta).norm()), theta.numpy())

    def value(u: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        at = base + solve_triangular(L, u, lower=True, trans=1)
        slope = np.asarray(surface.gradient(at))
        best = min(best, (float(np.linalg.norm(slope)), at), key=lambda found: found[0])
        return float(surface.energy(at)), solve_triangular(L, slope, lower=True)

    options = {"maxiter": 100, "maxfun": 200, "ftol": 0.0, "gtol": 1e-12, "maxcor": 40}
    found = minimize(value, np.zeros_like(base), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(best[1]).float().double(), int(found.nit)


def gauss_newton_matrix(model: nn.Module, x: Tensor, chunk: int = 48) -> Tensor:
    """The Gauss-Newton matrix (P, P) of the mean cross-entropy, from the Jacobians of the examples."""
    leaves = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def scores(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, parameters, (one[None],))[0]

    size = sum(leaf.numel() for leaf in leaves.values())
    total = torch.zeros(size, size, dtype=x.dtype)
    for part in x.split(chunk):
        jacobians = vmap(jacrev(scores), in_dims=(None, 0))(leaves, part)
        J = torch.cat([jacobians[name].flatten(2) for name in leaves], dim=2)
        chances = vmap(scores, in_dims=(None, 0))(leaves, part).softmax(1)
        # diag(p) - p p' = A' A with A = diag(sqrt(p)) (I - 1 p')
        A = chances.sqrt()[:, :, None] * (torch.eye(chances.shape[1], dtype=x.dtype) - chances[:, None, :])
        rows = (A @ J).flatten(0, 1)
        total.addmm_(rows.T, rows)
    return total / len(x)


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


PLANS: dict[str, dict[str, Any]] = {
    "digits-mlp": {"epochs": 60, "polish": 4000},
    "digits-mlp-squared": {"epochs": 60, "polish": 4000},
    "digits-cnn": {"epochs": 20, "polish": 1000, "dampings": (1e-2, 0.3)},
}


def main(folder: Path, names: list[str]) -> None:
    """Train the named networks and write their checkpoints."""
    with threads(1):
        for name in names:
            model, card = train(RECIPES[name], **PLANS[name])
            metadata = {"card": json.dumps(card)}
            save_file(model.state_dict(), folder / f"{name}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main(Path(__file__).parent / "data", sys.argv[1:] or list(RECIPES))
