"""The networks of the experiments: one hidden layer without biases, on noise or on small images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from fathometer.model import LossSurface
from fathometer.model.embedded import digits
from fathometer.work import generator, numpy_generator

ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[..., Any], Callable[..., Any]]] = {
    "tanh": (nn.Tanh, np.tanh, lambda z, a: 1.0 - a * a),
    "relu": (nn.ReLU, lambda z: np.maximum(z, 0.0), lambda z, a: (z > 0).astype(float)),
    "linear": (nn.Identity, lambda z: z, lambda z, a: np.ones_like(z)),
}


def shallow(x: np.ndarray, y: np.ndarray, weights: np.ndarray, hidden: int, activation: str) -> LossSurface:
    """The surface of half the mean squared residual at flat ``weights``: first layer, then second."""
    lower, upper = nn.Linear(x.shape[1], hidden, bias=False), nn.Linear(hidden, y.shape[1], bias=False)
    net = nn.Sequential(lower, ACTIVATIONS[activation][0](), upper).double()
    surface = LossSurface(net, "half_mse", (torch.from_numpy(x), torch.from_numpy(y)))
    return surface.at(torch.from_numpy(weights))


def noise(width: int, aspect_ratio: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian inputs and targets (m, width), and weights: m = 2 width / aspect ratio, rounded."""
    random = numpy_generator(seed, "memorize", width)
    m = round(2 * width / aspect_ratio)
    x, y = random.standard_normal((2, m, width))
    return x, y, random.standard_normal(2 * width**2) / np.sqrt(width)


def memorizing(width: int, aspect_ratio: float, activation: str = "tanh") -> Callable[[int], LossSurface]:
    """A factory of networks that memorize noise, for `critical_points`."""

    def surface(seed: int) -> LossSurface:
        return shallow(*noise(width, aspect_ratio, seed), width, activation)

    return surface


def trained(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, hidden: int, activation: str, iterations: int
) -> tuple[float, np.ndarray]:
    """Energy and weights after some iterations of L-BFGS."""
    _, function, slope = ACTIVATIONS[activation]
    split = hidden * x.shape[1]

    def value(w: np.ndarray) -> tuple[float, np.ndarray]:
        W, V = w[:split].reshape(hidden, -1), w[split:].reshape(-1, hidden)
        z = x @ W.T
        a = function(z)
        e = a @ V.T - y
        back = (e @ V) * slope(z, a)
        return 0.5 * float(np.mean(e**2)), np.concatenate([(back.T @ x).ravel(), (e.T @ a).ravel()]) / e.size

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": 30, "gtol": 1e-9, "ftol": 0.0}
    found = minimize(value, weights, jac=True, method="L-BFGS-B", options=options)
    return float(found.fun), found.x


def small_images(count: int, seed: int) -> np.ndarray:
    """Digits pooled to 4 x 4 and whitened (count, 16)."""
    images, _, _, _ = digits()
    x = torch.nn.functional.avg_pool2d(images, 2).flatten(1).double()
    x = x[torch.randperm(len(x), generator=generator(seed, "images"))[:count]].numpy()
    x = x - x.mean(0)
    _, _, Vt = np.linalg.svd(x, full_matrices=False)
    return x @ Vt.T / (x @ Vt.T).std(0)
