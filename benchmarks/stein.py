"""Stein discrepancies, spanners, thinning and gradients against peers and against plain code."""

from functools import partial

import numpy as np
import torch

import fathometer as fm
from benchmarks.goal import answer, faster, seconds, within
from benchmarks.race import Race
from fathometer.stein.spanner import greedy_spanner

PEERS = ["stein-thinning==0.2.0", "coreax==1.0.0", "msgpack", "autograd", "future"]
KGOF = "kgof 0.1.0 is on no package index: pip install a checkout of wittawatj/kernel-gof, commit 039a95ed"
GOALS = {2: 15, 10: 20, 50: 50}


def races():
    """The goals that were set for this room, and what was asked of it."""
    for d, times in GOALS.items():
        yield _discrepancy(2000, d, times)
    for d, times in GOALS.items():
        yield _large_discrepancy(10_000, d, times)
    yield from (_matrix_products(), _single(), _line(10_000, 0.5), _line(100_000, 6, repeats=2))
    yield from (_spanner(), _thinning(), _bootstrap(), _gradient(), _large())


def draw(n, d, seed=0):
    """A correct sample of N(0, I) and its scores."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x, -x


def _discrepancy(n, d, times):
    x, b = draw(n, d)
    return Race(
        f"IMQ kernel discrepancy, n = {n:,}, d = {d}",
        (faster("stein_thinning (every prefix)", times), faster("NumPy, broadcast", 20)),
        lambda: fm.stein.ksd(x, b).value,
        {
            "stein_thinning (every prefix)": partial(_thinning_ksd, x, b),
            "coreax (JAX)": partial(_coreax, x),
            "NumPy, broadcast": partial(_broadcast, x, b),
            "kgof": partial(_kgof, x),
        },
        _same,
        repeats=3,
    )


def _large_discrepancy(n, d, times, part=2000):
    """The peers are given the first points only: their work grows with the square of the number."""
    x, b = draw(n, d)
    few = f"(on {part:,} points, times {(n // part) ** 2})"
    peers = {
        f"stein_thinning (every prefix) {few}": partial(_thinning_ksd, x[:part], b[:part]),
        f"coreax (JAX) {few}": partial(_coreax, x[:part]),
        f"NumPy, broadcast {few}": partial(_broadcast, x[:part], b[:part]),
    }
    return Race(
        f"IMQ kernel discrepancy, n = {n:,}, d = {d}",
        (faster(f"stein_thinning (every prefix) {few}", times), faster(f"NumPy, broadcast {few}", 20)),
        lambda: fm.stein.ksd(x, b).value,
        peers,
        lambda ours, theirs: "on the first points: " + _same(fm.stein.ksd(x[:part], b[:part]).value, theirs),
        repeats=2,
        shares=dict.fromkeys(peers, (part / n) ** 2),
    )


def _thinning_ksd(x, b):
    from stein_thinning.kernel import make_imq
    from stein_thinning.stein import ksd

    kernel = make_imq(x, "id")
    return float(ksd(lambda i, j: kernel(x[i], x[j], b[i], b[j]), len(x))[-1])


def _kgof(x):
    try:
        import kgof.data
        import kgof.goftest
        import kgof.kernel
    except ImportError as cause:
        raise ImportError(f"{cause}: {KGOF}") from cause

    class Normal:
        def grad_log(self, points):
            return -points

    kernel = kgof.kernel.KIMQ(b=-0.5, c=1.0)
    statistic = kgof.goftest.KernelSteinTest(Normal(), kernel, alpha=0.01, n_simulate=1)
    return float(np.sqrt(statistic.compute_stat(kgof.data.Data(x)) / len(x)))


def _coreax(x):
    import jax
    import jax.numpy as jnp
    from coreax.data import Data
    from coreax.kernels import PCIMQKernel, SteinKernel
    from coreax.metrics import KSD

    jax.config.update("jax_enable_x64", True)
    kernel = SteinKernel(PCIMQKernel(length_scale=float(np.sqrt(0.5))), lambda point: -point)
    data = Data(jnp.asarray(x))
    return float(KSD(kernel).compute(data, data, block_size=512))


def _broadcast(x, b):
    """The formula on whole arrays, rows at a time so that it fits: what one writes first."""
    total = 0.0
    for rows in np.array_split(np.arange(len(x)), max(1, x.size * len(x) // 20_000_000)):
        away, pull = x[rows, None] - x, b[rows, None] - b
        r2 = np.square(away).sum(2)
        base = 1 / np.sqrt(1 + r2)
        cross = (pull * away).sum(2) + x.shape[1]
        total += (base * (b[rows, None] * b).sum(2) + base**3 * cross - 3 * base**5 * r2).sum()
    return float(np.sqrt(total)) / len(x)


def _same(ours, theirs):
    worst = max((abs(value / ours - 1) for value in theirs.values()), default=0.0)
    if worst > 1e-6:
        raise ValueError(f"the values differ by {worst:.1e}: {ours} and {theirs}")
    return f"values agree to {worst:.0e}"


def _matrix_products():
    x, b = draw(8000, 50)
    a, c = torch.from_numpy(x[:4000]), torch.from_numpy(x.T.copy())

    def products():
        # 3 n^2 d floating point operations, the least that the scores and points cost, in three products
        for _ in range(3):
            for rows in a.split(500):
                rows @ c

    return Race(
        "IMQ kernel discrepancy against bare matrix products, n = 8,000, d = 50",
        within("the matrix products alone", 2),  # 3 n^2 d operations
        lambda: fm.stein.ksd(x, b).value,
        {"the matrix products alone": products},
        lambda ours, theirs: "the peer computes no discrepancy; it is the floor",
        yardsticks=("the matrix products alone",),
    )


def _single():
    x, b = draw(6000, 100)
    return Race(
        "the same in float32, n = 6,000, d = 100",
        faster("fathometer, float64", 1.5),
        lambda: fm.stein.ksd(x, b, precision="single").value,
        {"fathometer, float64": lambda: fm.stein.ksd(x, b).value},
        lambda ours, theirs: _same(ours, theirs),
        yardsticks=("fathometer, float64",),
    )


def _line(n, limit, repeats=5):
    x = np.random.default_rng(0).standard_normal(n)
    peers = {"HiGHS, dual simplex, tolerance 1e-10": partial(_simplex, x)} if n <= 10_000 else {}

    def agree(ours, theirs):
        worst = max((abs(value / ours.value - 1) for value in theirs.values()), default=0.0)
        if ours.gap > 1e-9:
            raise ValueError(f"the gap is {ours.gap:.1e}")
        return f"gap {ours.gap:.0e}; the solver's value differs by {worst:.0e}"

    return Race(
        f"univariate graph discrepancy, n = {n:,}",
        (seconds(limit), answer("a gap of at most 1e-9", lambda ours, _: ours.gap, most=1e-9)),
        lambda: fm.stein.graph_discrepancy(x, -x),
        peers,
        agree,
        repeats=repeats if n > 10_000 else 1,
    )


def _simplex(x):
    """The program of neighbors given to a general solver as it stands."""
    from scipy import optimize, sparse

    x = np.sort(x)
    n, h = len(x), np.diff(x)
    eye = sparse.identity(n, format="csr")
    left, right = eye[:-1], eye[1:]
    H = sparse.diags(h)
    rows = [
        sparse.hstack([left - right, 0 * left]),
        sparse.hstack([0 * left, left - right]),
        sparse.hstack([left - right, H @ left]),
        sparse.hstack([left - right, H @ right]),
    ]
    A = sparse.vstack(rows)
    limit = np.concatenate([h, h, h**2 / 2, h**2 / 2])
    cost = np.concatenate([x, -np.ones(n)]) / n
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = optimize.linprog(
        cost, A_ub=sparse.vstack([A, -A]), b_ub=np.concatenate([limit, limit]), bounds=(-1, 1),
        method="highs-ds", options=options,
    )  # fmt: skip
    return -float(found.fun)


def _spanner():
    x, b = draw(2000, 2)
    return Race(
        "graph discrepancy on a 2-spanner, n = 2,000, d = 2, spanner included",
        seconds(10),
        lambda: fm.stein.graph_discrepancy(x, b).value,
        {"the spanner alone": lambda: len(greedy_spanner(x, cutoff=4.0))},
        lambda ours, theirs: "the peer is a part of the work",
        repeats=3,
        yardsticks=("the spanner alone",),
    )


def _thinning():
    x, b = draw(10_000, 10)

    def theirs():
        from stein_thinning.thinning import thin

        return thin(x, b, 500)

    def agree(ours, answers):
        for name, picked in answers.items():
            if not np.array_equal(ours, picked):
                raise ValueError(f"{name} picks other points: {(ours != picked).sum()} of {len(ours)} differ")
        return "the same indices"

    return Race(
        "Stein thinning, 500 of 10,000 points, d = 10",
        faster("stein_thinning", 8),
        lambda: fm.stein.thin(x, b, 500),
        {"stein_thinning": theirs},
        agree,
    )


def _bootstrap():
    x, b = draw(2000, 10)
    signs, matrix = torch.ones(2000, 1000).double(), torch.ones(2000, 2000).double()
    bare = "the discrepancy and the bare product with the signs"
    return Race(
        "test of fit, n = 2,000, 1,000 replicates, d = 10",
        within(bare, 3),
        lambda: fm.stein.goodness_of_fit(x, b, replicates=1000).statistic,
        {bare: lambda: (fm.stein.ksd(x, b), matrix @ signs)},
        lambda ours, theirs: "the peer is a part of the work",
        yardsticks=(bare,),
    )


def _gradient():
    x, _ = draw(400, 5)

    def automatic():
        points = torch.from_numpy(x).requires_grad_()
        away = points[:, None] - points
        scores = -points
        r2 = away.square().sum(2)
        base = (1 + r2).rsqrt()
        cross = ((scores[:, None] - scores) * away).sum(2) + 5
        value = (base * (scores @ scores.T) + base**3 * cross - 3 * base**5 * r2).mean()
        return torch.autograd.grad(value, points)[0].numpy()

    def agree(ours, theirs):
        worst = max((np.abs(g - ours).max() / np.abs(ours).max() for g in theirs.values()), default=0.0)
        if worst > 1e-9:
            raise ValueError(f"the gradients differ by {worst:.1e}")
        return f"gradients agree to {worst:.0e}"

    return Race(
        "gradient of the squared discrepancy by the points, n = 400, d = 5",
        faster("torch, automatic differentiation", 1),
        lambda: fm.stein.ksd_gradient(x, lambda point: -0.5 * (point**2).sum()),
        {"torch, automatic differentiation": automatic},
        agree,
    )


def _large():
    x, b = draw(40_000, 10)

    def agree(ours, theirs):
        low, high = ours.interval
        outside = [name for name, value in theirs.items() if not low <= value <= high]
        if outside:
            raise ValueError(f"the exact value of {', '.join(outside)} is outside [{low:.4g}, {high:.4g}]")
        return f"the exact value is in the interval, {100 * ours.error / ours.value:.1f} percent wide"

    return Race(
        "estimate with a confidence interval of 10 percent, n = 40,000, d = 10",
        (
            faster("fathometer, all pairs", 1),
            answer("an error of at most 10 %", lambda ours, _: 100 * ours.error / ours.value, most=10),
        ),
        lambda: fm.stein.estimate_ksd(x, b, tolerance=0.1),
        {"fathometer, all pairs": lambda: fm.stein.ksd(x, b).value},
        agree,
        repeats=2,
        yardsticks=("fathometer, all pairs",),
    )
