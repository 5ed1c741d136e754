"""Small modules of every kind, for tests of several rooms."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.a, self.b, self.out = (
            nn.Linear(3, 5),
            nn.Linear(5, 4),
            nn.Linear(4, 5),
            nn.Linear(5, 2),
        )

    def forward(self, x):
        h = F.relu(self.inp(x))
        return self.out(h + self.b(F.relu(self.a(h))))


class Concat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(3, 2), nn.Linear(6, 2)

    def forward(self, x):
        return self.out(torch.cat([F.relu(self.a(x)), F.leaky_relu(self.b(x), 0.1)], dim=1))


class Shared(nn.Module):
    """One square layer used twice."""

    def __init__(self, bias=False):
        super().__init__()
        self.inp, self.mid, self.out = nn.Linear(3, 4), nn.Linear(4, 4, bias=bias), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(F.relu(self.mid(F.relu(self.mid(F.relu(self.inp(x)))))))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class SquaredRelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.b(F.relu(self.a(x)).square())


class Attention(nn.Module):
    """Two heads, no key bias (a key bias is invisible to the softmax)."""

    def __init__(self, fused=True):
        super().__init__()
        self.q, self.k, self.v, self.o = (
            nn.Linear(4, 4),
            nn.Linear(4, 4, bias=False),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
        )
        self.fused = fused

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = (f(x).view(n, length, 2, 2).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-1, -2) / 2**0.5).softmax(-1) @ v
        return x + self.o(mixed.transpose(1, 2).reshape(n, length, 4))


class GroupedQuery(nn.Module):
    """Four query heads share two key and value heads."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(4, m, bias=False) for m in (8, 4, 4, 4))
        self.o = nn.Linear(8, 4)

    def forward(self, x):
        n, length, _ = x.shape
        q = self.q(x).view(n, length, 4, 2).transpose(1, 2)
        k, v = (
            f(x).view(n, length, 2, 2).transpose(1, 2).repeat_interleave(2, dim=1) for f in (self.k, self.v)
        )
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, 8))


class Rotary(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(4, 4, bias=False) for _ in range(4))

    def forward(self, x):
        length = x.shape[1]
        angle = torch.arange(length, dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
        cos, sin = (torch.cat([f, f], dim=-1) for f in (angle.cos(), angle.sin()))

        def turn(t):
            a, b = t.chunk(2, dim=-1)
            return t * cos + torch.cat([-b, a], dim=-1) * sin

        return self.o(F.scaled_dot_product_attention(turn(self.q(x)), turn(self.k(x)), self.v(x)))


class LoRA(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = (
            nn.Linear(4, 3),
            nn.Linear(4, 2, bias=False),
            nn.Linear(2, 3, bias=False),
        )

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class ConvolutionalResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.c2, self.n2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.out = nn.Linear(3 * 4, 2)

    def forward(self, x):
        h = F.relu(self.n1(self.c1(x)))
        h = F.max_pool2d(F.relu(h + self.n2(self.c2(h))), 2)
        return self.out(h.flatten(1))


class Functional(nn.Module):
    """Weights that are used through a transpose, an added table and a gain."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3))
        self.table = nn.Parameter(torch.randn(5, 4))
        self.gain = nn.Parameter(torch.randn(4))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(F.relu((x @ self.w.T + self.table) * self.gain))


class Forgetful(nn.Module):
    """A layer that is never used."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


class Words(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.table = nn.Embedding(6, 3)
        self.mix = nn.Linear(3, 3)
        self.head = nn.Linear(3, 6, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(F.relu(self.mix(self.table(tokens))))


def mlp(activation=nn.ReLU):
    return nn.Sequential(nn.Linear(3, 5), activation(), nn.Linear(5, 4), activation(), nn.Linear(4, 2))


def images(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


X2, X3, X4 = torch.randn(6, 3), torch.randn(2, 5, 4), torch.randn(3, 1, 4, 4)
TOKENS = torch.arange(12).reshape(2, 6) % 6

# name -> (factory, example input)
CASES = {
    "mlp": (mlp, X2),
    "leaky": (lambda: mlp(lambda: nn.LeakyReLU(0.2)), X2),
    "linear network": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), X2),
    "tanh": (lambda: mlp(nn.Tanh), X2),
    "relu6": (lambda: mlp(nn.ReLU6), X2),
    "gelu": (lambda: mlp(nn.GELU), X2),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2)), X2),
    "residual": (Residual, X2),
    "concat": (Concat, X2),
    "shared": (Shared, X2),
    "shared with bias": (lambda: Shared(bias=True), X2),
    "gated": (Gated, X2),
    "squared relu": (SquaredRelu, X2),
    "attention": (Attention, X3),
    "attention by hand": (lambda: Attention(fused=False), X3),
    "grouped query": (GroupedQuery, X3),
    "rotary": (Rotary, X3),
    "LoRA": (LoRA, X3),
    "layer norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), X2),
    "rms norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4, eps=1e-2), nn.Linear(4, 2)), X2),
    "batch norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)), X2),
    "group norm": (lambda: images(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4, eps=0.5), nn.ReLU()), X4),
    "convolution": (lambda: images(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)), X4),
    "grouped": (lambda: images(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2), nn.ReLU()), X4),
    "depthwise": (lambda: images(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, groups=3), nn.ReLU()), X4),
    "transposed": (lambda: images(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 2), nn.ReLU()), X4),
    "convolutional residual": (ConvolutionalResidual, X4),
    "functional": (Functional, torch.randn(4, 5, 3)),
    "unused layer": (Forgetful, X2),
    "words": (Words, TOKENS),
    "tied words": (lambda: Words(tied=True), TOKENS),
}
