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


class KeyBias(Attention):
    """The softmax does not see the bias of the keys: it may have any scale."""

    def __init__(self, fused=True):
        super().__init__(fused)
        self.k = nn.Linear(4, 4)


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


class Shifted(nn.Module):
    """A rectifier, then a number that no factor can follow, and a clip at another one."""

    def forward(self, x):
        return (F.relu(x) + 0.5).clamp(min=0.6)


class Ranked(nn.Module):
    """Features in order of their size, twice."""

    def forward(self, x):
        return torch.topk(torch.sort(F.leaky_relu(x), descending=True)[0], 3, dim=-1)[0]


class Recurrent(nn.Module):
    """Rectified features into gates, twice through a cell."""

    def __init__(self, layer):
        super().__init__()
        self.features, self.layer, self.out = nn.Linear(4, 3), layer, nn.LazyLinear(2)

    def forward(self, x):
        h = F.relu(self.features(x))
        if isinstance(self.layer, nn.LSTMCell):
            state = self.layer(h[:, 0])
            return self.out(self.layer(h[:, 1], state)[0])
        return self.out(self.layer(h)[0])


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
    "ranked": (lambda: nn.Sequential(nn.Linear(3, 4), Ranked(), nn.Linear(3, 2)), X2),
    "shifted": (lambda: mlp(Shifted), X2),
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
    "key bias": (KeyBias, X3),
    "key bias by hand": (lambda: KeyBias(fused=False), X3),
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
    "recurrent": (lambda: Recurrent(nn.LSTM(3, 2, 2, batch_first=True, bidirectional=True)), X3),
    "recurrent without bias": (lambda: Recurrent(nn.GRU(3, 2, bias=False)), X3),
    "recurrent cell": (lambda: Recurrent(nn.LSTMCell(3, 2)), X3),
    "words": (Words, TOKENS),
    "tied words": (lambda: Words(tied=True), TOKENS),
}


class BasicBlock(nn.Module):
    def __init__(self, ins, outs, stride):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs)
        self.c2, self.n2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs)
        self.skip = nn.Sequential()
        if stride != 1 or ins != outs:
            self.skip = nn.Sequential(nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs))

    def forward(self, x):
        h = F.relu(self.n1(self.c1(x)), inplace=True)
        return F.relu(self.n2(self.c2(h)) + self.skip(x))


def resnet18():
    """He et al. 2016, 18 layers, 1,000 classes."""
    layers = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    ins = 64
    for outs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(ins, outs, stride), BasicBlock(outs, outs, 1)]
        ins = outs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def convolution(ins, outs, kernel=1, stride=1, groups=1, clip=True):
    conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outs), *([nn.ReLU6()] if clip else []))


class InvertedResidual(nn.Module):
    def __init__(self, ins, outs, stride, expand):
        super().__init__()
        wide = ins * expand
        first = [convolution(ins, wide)] if expand != 1 else []
        self.body = nn.Sequential(
            *first, convolution(wide, wide, 3, stride, wide), convolution(wide, outs, clip=False)
        )
        self.adds = stride == 1 and ins == outs

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


def mobilenet_v2():
    """Sandler et al. 2018, table 2, 1,000 classes."""
    layers, ins = [convolution(3, 32, 3, 2)], 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    for expand, outs, count, stride in (*table, (6, 320, 1, 1)):
        for i in range(count):
            layers.append(InvertedResidual(ins, outs, stride if i == 0 else 1, expand))
            ins = outs
    tail = (convolution(320, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
    return nn.Sequential(*layers, *tail, nn.Linear(1280, 1000))


class Dense(nn.Module):
    def __init__(self, ins, growth=32):
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(ins), nn.Conv2d(ins, 4 * growth, 1, bias=False)
        self.n2, self.c2 = (
            nn.BatchNorm2d(4 * growth),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x):
        return torch.cat([x, self.c2(F.relu(self.n2(self.c1(F.relu(self.n1(x))))))], 1)


def densenet121():
    """Huang et al. 2017, table 1, 1,000 classes."""
    layers = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    width = 64
    for i, count in enumerate((6, 12, 24, 16)):
        for _ in range(count):
            layers.append(Dense(width))
            width += 32
        if i < 3:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
            layers.append(nn.AvgPool2d(2, 2))
            width //= 2
    tail = (nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *tail, nn.Linear(width, 1000))


class PackedBlock(nn.Module):
    """Pre-norm transformer block with packed queries, keys and values."""

    def __init__(self, width, heads, causal=False, project=nn.Linear):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = project(width, 3 * width), project(width, width)
        self.up, self.down = project(width, 4 * width), project(4 * width, width)

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(self.n1(x)).split(width, dim=-1)
        q, k, v = (t.reshape(n, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class VisionTransformer(nn.Module):
    """ViT-tiny (Touvron et al. 2021): width 192, 12 blocks, 3 heads, 1,000 classes."""

    def __init__(self, side=32):
        super().__init__()
        self.patch = nn.Conv2d(3, 192, 16, 16)
        self.cls = nn.Parameter(torch.randn(1, 1, 192))
        self.places = nn.Parameter(torch.randn(1, (side // 16) ** 2 + 1, 192))
        self.blocks = nn.Sequential(*[PackedBlock(192, 3) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 1000)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class Conv1D(nn.Module):
    """The linear layer of GPT-2: transposed weight, ``addmm`` on flattened tokens."""

    def __init__(self, ins, outs):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(ins, outs) / ins**0.5),
            nn.Parameter(torch.randn(outs)),
        )

    def forward(self, x):
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], -1)


class Bert(nn.Module):
    """Post-norm block with separate projections, words, places and segments."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.words, self.places = nn.Embedding(6, width), nn.Embedding(6, width)
        self.n0, self.n1, self.n2 = (nn.LayerNorm(width) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down, self.head = nn.Linear(width, 16), nn.Linear(16, width), nn.Linear(width, 3)

    def forward(self, tokens):
        n, length = tokens.shape
        x = self.n0(self.words(tokens) + self.places(torch.arange(length)))
        q, k, v = (f(x).view(n, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-1, -2)) / (x.shape[-1] // self.heads) ** 0.5
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.n1(x + self.o(mixed))
        return self.head(self.n2(x + self.down(F.gelu(self.up(x))))[:, 0])


class Llama(nn.Module):
    """RMSNorm, rotary grouped-query attention, gated units."""

    def __init__(self, width=8):
        super().__init__()
        self.words = nn.Embedding(6, width)
        self.n1, self.n2, self.n3 = (nn.RMSNorm(width, eps=1e-6) for _ in range(3))
        self.q, self.k, self.v, self.o = (
            nn.Linear(width, m, bias=False) for m in (width, width // 2, width // 2, width)
        )
        self.gate, self.up = (nn.Linear(width, 12, bias=False) for _ in range(2))
        self.down, self.head = nn.Linear(12, width, bias=False), nn.Linear(width, 6, bias=False)

    def forward(self, tokens):
        n, length = tokens.shape
        x = self.words(tokens)
        h = self.n1(x)
        q, k, v = (f(h).view(n, length, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        angle = torch.arange(length, dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
        cos, sin = (torch.cat([f, f], dim=-1) for f in (angle.cos(), angle.sin()))

        def turn(t):
            a, b = t.chunk(2, dim=-1)
            return t * cos + torch.cat([-b, a], dim=-1) * sin

        k, v = (t.repeat_interleave(2, dim=1) for t in (turn(k), v))
        mixed = F.scaled_dot_product_attention(turn(q), k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(n, length, -1))
        h = self.n2(x)
        return self.head(self.n3(x + self.down(F.silu(self.gate(h)) * self.up(h))))


class Gpt2(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.words, self.block = nn.Embedding(6, width), PackedBlock(width, 2, True, Conv1D)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 6, bias=False)

    def forward(self, tokens):
        return self.head(self.norm(self.block(self.words(tokens))))
