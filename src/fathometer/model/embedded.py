"""Real data and trained networks that come with the package.

1,797 handwritten digits (see ``data/README.md`` for source and licence) and networks
trained on them to a point where the gradient of the loss is small, so that curvature
there means something. `fathometer.model.training` makes them anew.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor, nn

from fathometer.errors import InputError
from fathometer.model.architectures import mlp, residual_cnn
from fathometer.model.surface import LossSurface

TEST_EVERY = 5
SMOOTHING = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A trained network with all that a measurement needs.

    Attributes:
        name: Its name.
        model: The network, float32, in evaluation mode; a new copy in every bundle.
        loss: What it minimizes, as `LossSurface` takes it.
        data: Training inputs and targets, as `LossSurface` takes them.
        test: Test inputs and integer classes.
        card: Facts about it: title, parameters, accuracies, energy, gradient norm, source.
    """

    name: str
    model: nn.Module
    loss: Any
    data: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    card: dict[str, Any]

    def surface(self, **options: Any) -> LossSurface:
        """The `LossSurface` of model, loss and training data; options are passed on."""
        return LossSurface(self.model, self.loss, self.data, **options)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an embedded network is built; training starts from it, loading fills it."""

    title: str
    build: Any
    squared: bool = False

    def loss(self) -> Any:
        """The loss as `LossSurface` takes it."""
        return "half_mse" if self.squared else nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss compares outputs with: classes, or one-hot rows."""
        return nn.functional.one_hot(labels, 10).float() if self.squared else labels


RECIPES = {
    "digits-mlp": Recipe(title="Rectifier perceptron 64-32-32-10, cross-entropy", build=mlp),
    "digits-mlp-squared": Recipe(
        title="Tanh perceptron 64-32-10, squared error",
        build=lambda: mlp((64, 32, 10), activation="tanh"),
        squared=True,
    ),
    "digits-cnn": Recipe(title="Residual CNN with batch normalization, cross-entropy", build=residual_cnn),
}


def digits() -> tuple[
    Float[Tensor, "1438 1 8 8"], Int[Tensor, " 1438"], Float[Tensor, "359 1 8 8"], Int[Tensor, " 359"]
]:
    """The embedded digits: training images and classes, test images and classes.

    Grey levels are in [0, 1]. Every fifth image is for testing.

    >>> [tuple(part.shape) for part in digits()]
    [(1438, 1, 8, 8), (1438,), (359, 1, 8, 8), (359,)]
    """
    images, labels = _arrays()
    x = torch.from_numpy(images.copy())[:, None].float() / 16
    y = torch.from_numpy(labels.copy()).long()
    test = torch.arange(len(y)) % TEST_EVERY == TEST_EVERY - 1
    return x[~test], y[~test], x[test], y[test]


def embedded(name: str = "digits-mlp") -> Bundle:
    """A trained network by name: "digits-mlp", "digits-mlp-squared" or "digits-cnn".

    Raises:
        InputError: If there is no network of that name.
    """
    if name not in RECIPES:
        raise InputError(f"name is {name!r}; the embedded networks are {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    model = recipe.build().eval()
    with (
        as_file(_folder() / f"{name}.safetensors") as path,
        safe_open(path, framework="pt") as file,
    ):
        model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        card = json.loads(file.metadata()["card"])
    x, y, x_test, y_test = digits()
    return Bundle(
        name=name,
        model=model,
        loss=recipe.loss(),
        data=(x, recipe.targets(y)),
        test=(x_test, y_test),
        card=card,
    )


def _folder() -> Any:
    return files("fathometer.model") / "data"


@cache
def _arrays() -> tuple[np.ndarray, np.ndarray]:
    with as_file(_folder() / "digits.npz") as path, np.load(path, allow_pickle=False) as archive:
        return archive["images"], archive["labels"]
