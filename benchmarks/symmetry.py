"""Races of the symmetry room: finding ties, computing tied layers, searching for symmetries."""

import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.goal import faster, megabytes, seconds
from benchmarks.race import Race
from fathometer.symmetry import Action, TiedLinear, network_automorphisms, tie

PEERS = ["emlp==1.0.3", "jax", "jaxlib", "optax", "pynauty==2.8.8.1"]
# By hand: AutoEquiv is in its repository only; symm-learning 0.8.1 (escnn 1.0.11, lie-learn, py3nj, pymanopt)
# goes in without its dependencies, which ask for an older numpy, and py3nj needs a Fortran compiler.

SIDE, CHANNELS, BATCH = 256, 8, 64


def races() -> Iterator[Race]:
    """Ties, the lazy engine, layers, searches."""
    yield from ties()
    yield from lazy()
    yield from hand_written()
    yield against_symm_learning()
    yield from against_dense()
    yield from searches()


# -- finding the ties


def ties() -> Iterator[Race]:
    """Dense designs against a recursive fill, a graph library and a constraint solver."""
    for count, (name, make) in enumerate(LARGE.items(), 1):
        # a graph library needs 2 GB and seconds: once
        peers = {"scipy connected_components": lambda make=make: _components(make())} if count == 3 else {}
        yield Race(
            title=f"Ties of {name} on 4096 x 4096 pairs ({count} generators)",
            goal=(seconds(0.5), megabytes(6 * 4096**2 / 2**20)),  # 6 bytes a pair
            ours=lambda make=make: make().tying().labels,
            peers=peers,
            agree=_same_partition,
            repeats=3,
        )
    recursive = {
        "AutoEquiv": lambda: _autoequiv(Action.cyclic(256)),
        "recursive fill on arrays": lambda: recursive_fill(Action.cyclic(256)),
    }
    yield Race(
        title=f"Ties of Z_256, {TIMES} times",
        goal=faster("AutoEquiv", 200),
        ours=lambda: _often(lambda: Action.cyclic(256)),
        peers=recursive,
        agree=_same_partition,
        shares=dict.fromkeys(recursive, 1 / TIMES),
    )
    for name, make in (
        ("Z_16", lambda: Action.cyclic(16)),
        ("Z_48", lambda: Action.cyclic(48)),
        ("D_32", lambda: Action.dihedral(32)),
        ("p4m on 6 x 6", lambda: Action.grid(6, 6, rotations=True, flips=True)),
    ):
        yield Race(
            title=f"Ties of {name}, {TIMES} times, against a constraint solver",
            goal=() if name == "Z_16" else faster("emlp basis solve", 1e4),
            ours=lambda make=make: _often(make),
            peers={"emlp basis solve": lambda make=make: _emlp_basis(make())},
            agree=_same_dimension,
            shares={"emlp basis solve": 1 / TIMES},
            repeats=1 if name != "Z_16" else 3,
        )


TIMES = 100
"""How often we find small ties, action and all, while a peer does it once: one takes some 20 us."""

LARGE = {
    "Z_4096": lambda: Action.cyclic(4096),
    "D_4096": lambda: Action.dihedral(4096),
    "Z_128 x D_32": lambda: Action.product(Action.cyclic(128), Action.dihedral(32)),
    "D_64 x D_64": lambda: Action.product(Action.dihedral(64), Action.dihedral(64)),
}


def _often(make: Callable[[], Action]) -> np.ndarray:
    for _ in range(TIMES - 1):
        make().tying()
    return make().tying().labels


def _autoequiv(action: Action) -> np.ndarray:
    """The real one, from its repository (it is in no registry); its colors as a matrix (outputs, inputs)."""
    core = importlib.import_module("autoequiv.core")
    inputs, outputs = ([p.tolist() for p in side] for side in (action.inputs, action.outputs))
    found = core.create_colored_matrix(inputs, outputs)
    n, m = action.sizes
    return np.array([[found[i, j] for i in range(n)] for j in range(m)])


def _components(action: Action) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, m = action.sizes
    pair = np.arange(n * m, dtype=np.int32).reshape(m, n)
    images = [pair[b][:, a].ravel() for a, b in action.generators]
    source = np.tile(pair.ravel(), len(images))
    ones = np.ones(len(source), dtype=np.int8)
    graph = coo_array((ones, (source, np.concatenate(images))), shape=(n * m, n * m))
    return connected_components(graph, directed=False)[1].reshape(m, n)


def recursive_fill(action: Action) -> np.ndarray:
    """Depth-first search by recursion over index pairs, in plain Python."""
    n, m = action.sizes
    labels = np.full((m, n), -1)
    pairs = [(a.tolist(), b.tolist()) for a, b in action.generators]

    def visit(i: int, j: int, color: int) -> None:
        if labels[i, j] < 0:
            labels[i, j] = color
            for a, b in pairs:
                visit(b[i], a[j], color)

    limit, count = sys.getrecursionlimit(), 0
    sys.setrecursionlimit(max(limit, 20_000))
    try:
        for i in range(m):
            for j in range(n):
                if labels[i, j] < 0:
                    visit(i, j, count)
                    count += 1
    finally:
        sys.setrecursionlimit(limit)
    return labels


def _emlp_basis(action: Action) -> int:
    """Dimension of the equivariant maps, by emlp's solver on the generators as matrices."""
    reps, groups = _emlp()
    n = action.sizes[0]
    matrices = np.stack([np.eye(n)[:, p] for p in action.inputs])

    class Given(groups.Group):
        def __init__(self) -> None:
            self.discrete_generators = matrices
            super().__init__()

    rep = reps.T(1)(Given())
    reps.Rep.solcache.clear()  # solutions are remembered by the group's name
    return int((rep >> rep).equivariant_basis().shape[-1])


def _emlp() -> tuple[Any, Any]:
    """emlp without its layers: they need a library that current jax has left behind."""
    if "emlp" not in sys.modules:
        found = importlib.util.find_spec("emlp")
        if found is None:
            raise ImportError("No module named 'emlp'")
        package = types.ModuleType("emlp")
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules["emlp"] = package
    return importlib.import_module("emlp.reps"), importlib.import_module("emlp.groups")


def _same_partition(ours: np.ndarray, answers: dict[str, Any]) -> str:
    for name, other in answers.items():
        joint = np.unique(np.stack([ours.ravel(), np.asarray(other).ravel()]), axis=1)
        if joint.shape[1] != ours.max() + 1 or len(np.unique(joint[1])) != joint.shape[1]:
            raise AssertionError(f"{name} finds another partition")
    return f"{ours.max() + 1} orbits, the same partition"


def _same_dimension(ours: np.ndarray, answers: dict[str, Any]) -> str:
    count = int(ours.max()) + 1
    for name, other in answers.items():
        if other != count:
            raise AssertionError(f"{name} finds {other} dimensions, we {count}")
    return f"{count} dimensions"


# -- without a table


def lazy() -> Iterator[Race]:
    """10^10 index pairs; no peer can, so the known counts are the answer to agree with."""
    half = 158  # a distance on the torus is two numbers 0..158, in either order
    for title, make, count in (
        ("S_316 on ordered pairs, 10^10 pairs", lambda: Action.tuples(316, 2), 15),
        ("316 x 316 torus with turns and flips", _torus, (half + 1) * (half + 2) // 2),
        ("Z_100000", lambda: Action.cyclic(100_000), 100_000),
    ):
        yield Race(
            title=f"Lazy ties of {title}",
            goal=(seconds(0.5 if title == "Z_100000" else 2), megabytes(300)),
            ours=lambda make=make: make().tying(lazy=True).num_orbits,
            peers={},
            agree=lambda ours, _, count=count: _equal(ours, count),
            repeats=3,
        )


def _torus() -> Action:
    return Action.grid(316, 316, rotations=True, flips=True)


def _equal(found: Any, expected: Any) -> str:
    if found != expected:
        raise AssertionError(f"found {found}, expected {expected}")
    return f"{found}, as known"


# -- layers


def _step(module: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor]) -> Callable[[], Any]:
    """Forward and backward; the outputs are the answer."""
    u = torch.randn(module(x).shape, generator=torch.Generator().manual_seed(1))

    def run() -> Tensor:
        for p in (*parameters, x):
            p.grad = None
        y = module(x)
        y.backward(u)
        return y.detach()

    return run


def _signal(n: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, CHANNELS, n, generator=g).requires_grad_()


def _close(ours: Tensor, answers: dict[str, Any]) -> str:
    size = float(ours.abs().max())
    gaps = [float((ours - other).abs().max()) / size for other in answers.values()]
    if gaps and max(gaps) > 1e-4:
        raise AssertionError(f"outputs differ by {max(gaps):.2g}")
    return f"outputs within {max(gaps, default=0.0):.1g} of the largest"


def hand_written() -> Iterator[Race]:
    """The same function by the best layer one would write by hand, weights copied over."""
    for name, make, write in (
        ("Z_256", Action.cyclic(SIDE), convolution_by_hand),
        ("S_256", Action.symmetric(SIDE), set_by_hand),
        ("S_16 on pairs", Action.tuples(16, 2), pairs_by_hand),
    ):
        layer = TiedLinear(make, CHANNELS, CHANNELS, bias=False)
        x = _signal(make.sizes[0])
        peers = {}
        for title, function in write(layer).items():
            weight = layer.weight.detach().clone().requires_grad_()
            peers[title] = _step(lambda x, f=function, w=weight: f(w, x), x, [weight])
        yield Race(
            title=f"Training step of a layer tied to {name}, against layers written by hand",
            goal=tuple(faster(title, 0.9) for title in peers),
            ours=_step(layer, x, [layer.weight]),
            peers=peers,
            agree=_close,
            repeats=15,
        )


def convolution_by_hand(layer: TiedLinear) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Circular convolution: transforms by autograd, and Conv1d with a full circular kernel."""
    del layer

    def fourier(w: Tensor, x: Tensor) -> Tensor:
        X, W = torch.fft.rfft(x), torch.fft.rfft(w.flip(2).roll(1, 2))
        return torch.fft.irfft(torch.einsum("bif,oif->bof", X, W), n=x.shape[2])

    def conv1d(w: Tensor, x: Tensor) -> Tensor:
        return nn.functional.conv1d(torch.cat([x, x[:, :, :-1]], 2), w)

    return {"rfft, einsum, irfft": fourier, "circular Conv1d": conv1d}


def set_by_hand(layer: TiedLinear) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Deep Sets: the element and the sum; weight 0 is the diagonal, weight 1 the rest."""
    del layer

    def deep_sets(w: Tensor, x: Tensor) -> Tensor:
        return (w[:, :, 0] - w[:, :, 1]) @ x + w[:, :, 1] @ x.sum(2, keepdim=True)

    def fused(w: Tensor, x: Tensor) -> Tensor:
        own = (w[:, :, 0] - w[:, :, 1]).expand(len(x), -1, -1)
        return torch.baddbmm(w[:, :, 1] @ x.sum(2, keepdim=True), own, x)

    return {"Deep Sets, two products": deep_sets, "Deep Sets, baddbmm": fused}


def pairs_by_hand(layer: TiedLinear) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The 15 operations on pairs (Maron et al. 2019), channels mixed at the lowest order."""
    n = 16
    units = torch.eye(n * n, dtype=torch.float64)
    features = torch.stack([_fifteen(e.reshape(n, n)) for e in units], dim=-1)
    indicators = torch.stack([(torch.from_numpy(layer.tying.labels) == k).double() for k in range(15)])
    # orbit weights to weights of the operations
    change = torch.linalg.lstsq(features.reshape(15, -1).T, indicators.reshape(15, -1).T).solution.float()

    def operations(w: Tensor, x: Tensor) -> Tensor:
        c = torch.einsum("oik,sk->soi", w, change)
        X = x.reshape(*x.shape[:2], n, n)
        diagonal, rows, columns = X.diagonal(dim1=2, dim2=3), X.sum(3), X.sum(2)
        trace, total = diagonal.sum(2, keepdim=True), rows.sum(2, keepdim=True)
        y = torch.einsum("oi,bixy->boxy", c[0], X) + torch.einsum("oi,biyx->boxy", c[1], X)
        down = torch.cat([diagonal, rows, columns], 1)
        by_row = torch.cat([c[5], c[6], c[7]], 1) @ down
        by_column = torch.cat([c[8], c[9], c[10]], 1) @ down
        everywhere = c[13] @ trace + c[14] @ total
        on_diagonal = torch.cat([c[2], c[3], c[4]], 1) @ down + c[11] @ trace + c[12] @ total
        y = y + by_row[..., None] + (by_column + everywhere)[:, :, None] + torch.diag_embed(on_diagonal)
        return y.flatten(2)

    return {"15 operations, lowest order first": operations}


def _fifteen(X: Tensor) -> Tensor:
    """The 15 operations on one matrix, in the order that `pairs_by_hand` uses."""
    n = len(X)
    d, r, c, one = X.diagonal(), X.sum(1), X.sum(0), torch.ones(n, dtype=X.dtype)
    t, s = d.sum() * one, r.sum() * one
    rows = [torch.diag(v) for v in (d, r, c)] + [v[:, None].expand(n, n) for v in (d, r, c)]
    rows += [v[None, :].expand(n, n) for v in (d, r, c)] + [torch.diag(v) for v in (t, s)]
    return torch.stack([X, X.T, *rows, t[:, None].expand(n, n), s[:, None].expand(n, n)]).flatten(1)


def against_symm_learning() -> Race:
    """The same layer as symm-learning's, weights taken from it; its matrix comes from irreducible parts."""
    n, action = 64, Action.cyclic(64)
    x = _signal(n)
    try:
        theirs = _symm_learning(n)
    except ImportError as cause:
        missing = str(cause)
        layer = TiedLinear(action, CHANNELS, CHANNELS, bias=False)

        def peer() -> Any:
            raise ImportError(missing)
    else:
        dense = nn.Linear(CHANNELS * n, CHANNELS * n, bias=False)
        with torch.no_grad():
            dense.weight.copy_(theirs.weight)
        layer = tie(dense, action)
        flat = lambda x: theirs(x.flatten(1)).unflatten(1, (CHANNELS, -1))  # noqa: E731
        peer = _step(flat, x, list(theirs.parameters()))
    return Race(
        title=f"Training step tied to Z_{n}: {CHANNELS} channels, batch {BATCH}, against symm-learning",
        goal=faster("symm-learning", 20),
        ours=_step(layer, x, [layer.weight]),
        peers={"symm-learning": peer},
        agree=_close,
        repeats=11,
    )


def _symm_learning(n: int) -> Any:
    """Its linear layer on copies of the regular representation of Z_n.

    A library for rotations in space that it loads but does not need for finite groups is compiled
    for another numpy: an empty module stands for it.
    """
    names = ("", ".representations", ".representations.SO3", ".representations.SO3.wigner_d")
    for name in names:
        module = types.ModuleType("lie_learn" + name)
        module.__path__ = []
        sys.modules.setdefault(module.__name__, module)
    sys.modules["lie_learn" + names[-1]].__dict__.setdefault("wigner_D_matrix", None)
    torch.manual_seed(0)
    groups = importlib.import_module("escnn.group")
    layers = importlib.import_module("symm_learning.nn")
    copies = groups.directsum([groups.CyclicGroup(n).regular_representation] * CHANNELS)
    return layers.eLinear(copies, copies, bias=False)


def against_dense() -> Iterator[Race]:
    """Every kind of action, against an untied layer of the same size."""
    S = Action.symmetric
    structured = {
        "Z_256": Action.cyclic(256),
        "D_256": Action.dihedral(256),
        "S_256": S(256),
        "S_16 on pairs": Action.tuples(16, 2),
        "S_16 x S_16": Action.product(S(16), S(16)),
        "S_16 wr S_16": Action.wreath(S(16), S(16)),
        "16 x 16 torus": Action.grid(16, 16),
        "16 x 16 torus, turns and flips": Action.grid(16, 16, rotations=True, flips=True),
    }
    small = {
        "quarter turns of 16 x 16": Action.grid(16, 16, translations=False, rotations=True),
        "quarter turns of 15 x 15": Action.grid(15, 15, translations=False, rotations=True),
        "a mirror of 256": Action([list(range(256))[::-1]]),
        "edges of 23 points": Action.subsets(23, 2),
        "triples of 6 points": Action.tuples(6, 3),
        "weights of 6-8-8-6": Action.weight_space([6, 8, 8, 6]),
        "thirds of 255": Action.product(Action.cyclic(3), Action.trivial(85)),
        "fifths of 255": Action.product(Action.cyclic(5), Action.trivial(51)),
        "thirds of 255 -> 99": Action(_thirds(255), _thirds(99)),
        "S_8 on pairs": Action.tuples(8, 2),
        "S_32": S(32),
        "Z_16": Action.cyclic(16),  # the calls decide
        "three of 256 points": Action([[1, 2, 0, *range(3, 256)]]),
        "no group at all": Action.trivial(256),
    }
    for actions, times in ((structured, 5), (small, 0.95)):
        for name, action in actions.items():
            layer = TiedLinear(action, CHANNELS, CHANNELS, bias=False)
            dense, x = layer.to_dense(), _signal(action.sizes[0])
            flat = lambda x, dense=dense: dense(x.flatten(1)).unflatten(1, (CHANNELS, -1))  # noqa: E731
            yield Race(
                title=f"Training step tied to {name}: {CHANNELS} channels, batch {BATCH} "
                f"({layer.kernel.kind})",
                goal=faster("nn.Linear", times),
                ours=_step(layer, x, [layer.weight]),
                peers={"nn.Linear": _step(flat, x, [dense.weight])},
                agree=_close,
                repeats=11,
            )


def _thirds(n: int) -> list[np.ndarray]:
    """One turn of every three neighbors."""
    return [np.arange(n).reshape(-1, 3)[:, [1, 2, 0]].ravel()]


# -- searches


def searches() -> Iterator[Race]:
    """All symmetries of structures and of networks."""
    yield Race(
        title="Symmetries of the dense design of D_64, by search",
        goal=faster("pynauty", 1),
        ours=lambda: _search(_bare(64)),
        peers={"pynauty": lambda: _nauty(_bare(64))},
        agree=lambda ours, answers: _all_equal(ours, answers),
    )
    five = [Action.symmetric(64)] * 5
    yield Race(
        title="Symmetries of five layers of S_64, hidden units included",
        goal=seconds(5),
        ours=lambda: network_automorphisms(five).order,
        peers={},
        agree=lambda ours, _: _equal(ours, math.factorial(64)),
        repeats=3,
    )


def _bare(n: int) -> np.ndarray:
    return Action.dihedral(n).tying().labels


def _search(labels: np.ndarray) -> int:
    from fathometer.symmetry import Tying

    return Tying(labels).automorphisms().order


def _nauty(labels: np.ndarray) -> int:
    """The order by nauty, on layers of the binary digits of the colors."""
    import pynauty

    m, n = labels.shape
    size, bits = m + n, int(labels.max() + 1).bit_length()
    neighbors: dict[int, list[int]] = {}
    for bit in range(bits):
        for i in range(size):
            above = [(bit + 1) * size + i] if bit + 1 < bits else []
            neighbors[bit * size + i] = above
        for i, j in zip(*np.nonzero((labels + 1) >> bit & 1), strict=True):
            neighbors[bit * size + int(i)].append(bit * size + m + int(j))
    cells = [
        set(range(bit * size + a, bit * size + b)) for bit in range(bits) for a, b in ((0, m), (m, size))
    ]
    graph = pynauty.Graph(size * bits, adjacency_dict=neighbors, vertex_coloring=cells)
    _, mantissa, exponent, *_ = pynauty.autgrp(graph)
    return round(mantissa * 10**exponent)


def _all_equal(ours: int, answers: dict[str, Any]) -> str:
    for name, other in answers.items():
        if other != ours:
            raise AssertionError(f"{name} finds {other}, we {ours}")
    return f"{ours} symmetries"
