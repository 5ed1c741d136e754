"""Small networks of the kinds people train: a perceptron, a residual CNN, a transformer.

Their initial weights come from a seed and leave the global random state alone.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fathometer.errors import InputError
from fathometer.model.replica import unchanged_random_state
from fathometer.work import check_seed

Module = TypeVar("Module", bound=nn.Module)
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def mlp(
    widths: Sequence[int] = (64, 32, 32, 10),
    *,
    activation: Literal["relu", "tanh", "gelu"] = "relu",
    bias: bool = True,
    seed: int = 0,
) -> nn.Sequential:
    """A multilayer perceptron: ``flatten``, then ``fc1``, ``act1``, ``fc2``, ... by name.

    Args:
        widths: Numbers of inputs, hidden units of each layer, and outputs.
        activation: Between the layers.
        bias: Whether the layers have one.
        seed: Of the initial weights (torch's default distribution).

    Raises:
        InputError: If there are fewer than two widths, one is not positive, or the
            activation is unknown.

    >>> [name for name, _ in mlp((4, 3, 2)).named_children()]
    ['flatten', 'fc1', 'act1', 'fc2']
    """
    if len(widths) < 2 or any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
        raise InputError(
            f"widths is {tuple(widths)}; give inputs, hidden units and outputs, one or more each."
        )
    if activation not in _ACTIVATIONS:
        raise InputError(f"activation is {activation!r}; pass one of {', '.join(_ACTIVATIONS)}.")

    def build() -> nn.Sequential:
        net = nn.Sequential()
        net.add_module("flatten", nn.Flatten())
        for i in range(1, len(widths)):
            net.add_module(f"fc{i}", nn.Linear(widths[i - 1], widths[i], bias=bias))
            if i < len(widths) - 1:
                net.add_module(f"act{i}", _ACTIVATIONS[activation]())
        return net

    return _seeded(build, seed)


def residual_cnn(width: int = 8, classes: int = 10, *, seed: int = 0) -> "ResidualCNN":
    """A `ResidualCNN` with initial weights from ``seed``.

    Raises:
        InputError: If width or classes is not positive.
    """
    _check_positive(width=width, classes=classes)
    return _seeded(lambda: ResidualCNN(width, classes), seed)


def transformer(
    width: int = 32, heads: int = 4, blocks: int = 1, classes: int = 10, *, seed: int = 0
) -> "RowTransformer":
    """A `RowTransformer` of ``blocks`` blocks for ``classes`` classes, with initial weights from ``seed``.

    Raises:
        InputError: If a number is not positive, or the heads do not divide the width.
    """
    _check_positive(width=width, heads=heads, blocks=blocks, classes=classes)
    if width % heads:
        raise InputError(f"width is {width} and heads {heads}; the heads must divide the width.")
    return _seeded(lambda: RowTransformer(width, heads, blocks, classes), seed)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalization, added to a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU()
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        """Images in, images out; halved by stride 2."""
        inner = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return self.act(inner + self.shortcut(x))


class ResidualCNN(nn.Module):
    """Stem, two residual blocks, mean over positions, linear classifier; for grey images."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.block1 = ResidualBlock(width, width, 1)
        self.block2 = ResidualBlock(width, 2 * width, 2)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n classes"]:
        """Class scores of grey images."""
        x = self.block2(self.block1(self.act(self.norm(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class AttentionBlock(nn.Module):
    """Pre-norm transformer block: fused self-attention, then a two-layer perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        """Tokens in, tokens out."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        return x + self.down(self.act(self.up(self.norm2(x))))


class RowTransformer(nn.Module):
    """Reads the 8 rows of an 8 x 8 image as tokens."""

    def __init__(self, width: int, heads: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.Sequential(*[AttentionBlock(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n classes"]:
        """Class scores of grey images."""
        tokens = self.embed(x.flatten(0, 1)) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def _seeded(build: Callable[[], Module], seed: int) -> Module:
    with unchanged_random_state():
        torch.manual_seed(check_seed(seed))
        return build()


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{name} is {number!r}; a whole number, one or more, is needed.")
