"""A target of one's own for ``fathometer stein``: a log density of one point, in torch.

    python examples/my_target.py       # writes draws of a correct and of a biased sampler
    fathometer stein good_draws.npz --log-density examples/my_target.py:log_density
    fathometer stein biased_draws.npz --log-density examples/my_target.py:log_density

The density is banana-shaped: ``x`` is normal, and ``y`` is normal around ``x**2``.
"""

import numpy as np


def log_density(point):
    x, y = point
    return -0.5 * x**2 - 0.5 * (y - x**2) ** 2


def draws(count=500, bias=0.0, seed=0):
    """Independent draws (n, 2); with a bias, their second coordinate is shifted."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    return np.stack([x, x**2 + rng.normal(size=count) + bias], axis=1)


if __name__ == "__main__":
    np.savez("good_draws.npz", points=draws())
    np.savez("biased_draws.npz", points=draws(bias=0.5))
