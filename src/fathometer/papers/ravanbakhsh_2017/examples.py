"""The structures the paper names: Figure 1, and a gallery of groups, tied matrices and graphs."""

import itertools
import math
import warnings

import numpy as np

from fathometer.drawing import Axis, HeatMap, Panel, Picture
from fathometer.errors import TheoryWarning
from fathometer.papers.item import Check, Outcome, check, item
from fathometer.results import Row, Table
from fathometer.symmetry import Action, Automorphisms, Tying

HEIGHT, WIDTH = 4, 5


def pixels() -> np.ndarray:
    """The numbers of the pixels of the 4 x 5 image of Figure 1."""
    return np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def as_captioned() -> Action:
    """Figure 1 by its caption: shifts on both sides, and up-down flips that leave the outputs alone."""
    shift, flip = np.roll(pixels(), 1, axis=1).ravel(), pixels()[::-1].ravel()
    turn = np.roll(np.arange(WIDTH), 1)
    return Action([shift, flip], [turn, np.arange(WIDTH)], name="shifts and up-down flips")


def dihedral() -> Action:
    """Figure 1 as D_5: shifts and left-right reflections on both sides."""
    shift, flip = np.roll(pixels(), 1, axis=1).ravel(), pixels()[:, ::-1].ravel()
    turn = np.roll(np.arange(WIDTH), 1)
    return Action([shift, flip], [turn, np.arange(WIDTH)[::-1]], name="D_5 on image and outputs")


def symmetries_of(tying: Tying) -> Automorphisms:
    """All symmetries; that a 2-transitive group collapses is the point here, not a surprise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TheoryWarning)
        return tying.automorphisms()


def structure_row(name: str, structure: Action | Tying) -> Row:
    """What the paper would write under a drawing: weights, group, symmetries, uniqueness."""
    tying = structure.tying() if isinstance(structure, Action) else structure
    found = symmetries_of(tying)
    n, m = tying.sizes
    return Row(
        structure=name,
        inputs=n,
        outputs=m,
        weights=tying.num_orbits,
        biases=tying.num_bias_orbits,
        group=found.group_order,
        symmetries=found.order,
        unique=found.unique,
        why=found.reason.partition(";")[0],
        kind="exact",
        error=0.0,
    )


def same(claim: str, published: object, found: object, note: str = "") -> Check:
    """A check of exact equality."""
    return check(claim, published, found, published == found, note)


@item("figure-1", "A dihedral group on a 4 x 5 image and five outputs", seconds=1)
def figure_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 1: Cayley diagram, the action on an image, the structure and its bipartite drawing.

    The caption speaks of D_5, of circular shifts and of flips that do not change the outputs. Flips
    that commute with the shifts make Z_5 x Z_2 instead, and D_5 has no action on the outputs by
    shifts alone; both readings are built. Only the second is unique.
    """
    caption, true = as_captioned(), dihedral()
    rows = [structure_row(action.name, action) for action in (caption, true)]
    checks = (
        same("Reading 1: shifts and up-down flips", (10, 10), (caption.order, rows[0].weights)),
        same(
            "Reading 1 is equivariant to more than its group: flips of one column alone",
            10 * 2**9,
            rows[0].symmetries,
            "the flip leaves the outputs alone, so each of the five columns may flip by itself",
        ),
        same("Reading 2, D_5 on both sides: order and weights", (10, 12), (true.order, rows[1].weights)),
        same("Reading 2 is unique: as many symmetries as group elements", 10, rows[1].symmetries),
    )
    pictures = [on_image(true)]
    for action in (caption, true):
        pictures += [action.picture(), action.tying().picture()]
    table = Table(title="The two readings of Figure 1", rows=tuple(rows))
    return Outcome(checks=checks, table=table, pictures=tuple(pictures))


def on_image(action: Action) -> Picture:
    """What each generator does to an example image."""
    image = np.where(np.isin(pixels(), (0, 1, 5, 6, 7, 10)), 1.0 + pixels() / 20, 0.0)
    panels = []
    for name, perm in (("the image", np.arange(image.size)), *zip("12", action.inputs, strict=False)):
        moved = np.empty(image.size)
        moved[perm] = image.ravel()
        heat = HeatMap(
            values=moved.reshape(HEIGHT, WIDTH), x_range=(-0.5, WIDTH - 0.5), y_range=(-0.5, HEIGHT - 0.5)
        )
        title = name if name == "the image" else f"after generator {int(name) - 1}"
        panels.append(Panel(marks=(heat,), y=Axis(reverse=True), title=title, equal=True))
    return Picture(
        title="The action on an example input",
        caption="Generator 0 shifts the columns around, generator 1 reflects the image.",
        panels=tuple(panels),
        columns=3,
    )


@item("convolutions", "Circular convolution, its mirror image, and narrow kernels", seconds=1)
def convolutions(*, full: bool = False, seed: int = 0) -> Outcome:
    """Cyclic groups: dense, sparse and minimal designs, and shifts in opposite directions."""
    n = 12 if full else 7
    index = np.arange(n)
    circle = Action.cyclic(n)
    reverse = Action([(index + 1) % n], [(index - 1) % n], name=f"reverse convolution({n})")
    toeplitz = circle.tying().labels[0][(index[None] - index[:, None]) % n]
    hankel = reverse.tying().labels[0][(index[None] + index[:, None]) % n]
    element = (index + 1) % n
    narrow = circle.tying("sparse", [(element, element)])
    repaired = circle.tying("sparse")
    return Outcome(
        checks=(
            same("Z_n: the matrix is circulant", True, bool((circle.tying().labels == toeplitz).all())),
            same("Opposite shifts: Hankel-circulant", True, bool((reverse.tying().labels == hankel).all())),
            same("Both have n weights", (n, n), (circle.tying().num_orbits, reverse.tying().num_orbits)),
            same(
                "One generator alone is a permutation matrix, symmetric under all of S_n",
                math.factorial(n),
                narrow.automorphisms().order,
                "a generating set is not enough for a unique sparse design; the identity must be added",
            ),
            same("With the identity (a kernel of width 2) it is unique", n, repaired.automorphisms().order),
        ),
        table=Table(
            title="Convolutions",
            rows=(
                structure_row("circular", circle),
                structure_row("reverse", reverse),
                structure_row("sparse, {1}", narrow),
                structure_row("sparse, {0, 1}", repaired),
            ),
        ),
        pictures=(circle.tying().picture(), reverse.tying().picture(), repaired.picture(), circle.picture()),
    )


@item("rotations", "Quarter turns and reflections of an image", seconds=2)
def rotations(*, full: bool = False, seed: int = 0) -> Outcome:
    """C_4 and D_4 on square images: the counts of weights and biases are Burnside's."""
    published = {(5, False): (157, 7), (6, False): (324, 9), (5, True): (91, 6)}
    rows, checks, pictures = [], [], []
    for (side, flips), counts in published.items():
        action = Action.grid(side, side, translations=False, rotations=True, flips=flips)
        row = structure_row(action.name, action)
        rows.append(row)
        name = f"{'D_4' if flips else 'C_4'} on {side} x {side}"
        checks.append(same(f"{name}: weights and biases", counts, (row.weights, row.biases)))
        checks.append(same(f"{name}: unique", True, row.unique))
        pictures.append(action.tying().picture())
    pictures.append(Action.grid(3, 3, translations=False, rotations=True, flips=True).picture())
    return Outcome(
        checks=tuple(checks), table=Table(title="Turned images", rows=tuple(rows)), pictures=tuple(pictures)
    )


@item("sets", "Set layers, nested sets, pairs and arrays", seconds=3)
def sets(*, full: bool = False, seed: int = 0) -> Outcome:
    """S_n (Deep Sets), wreath products (nested sets), pairs (graphs), products (arrays)."""
    S = Action.symmetric
    n = 9 if full else 5
    cases = {
        f"S_{n}": (S(n), 2),
        "S_3 wr S_4": (Action.wreath(S(3), S(4)), 3),
        "S_2 wr S_2 wr S_2": (Action.wreath(Action.wreath(S(2), S(2)), S(2)), 4),
        "S_3 x S_4 (array)": (Action.product(S(3), S(4)), 4),
        "S_5 on pairs": (Action.tuples(5, 2), 15),
        "S_3 on pairs": (Action.tuples(3, 2), 14),
        "S_5 on edges": (Action.subsets(5, 2), 3),
        "S_5, edges to points": (Action.subsets(5, 2, outputs=S(5)), 2),
    }
    rows = [structure_row(name, action) for name, (action, _) in cases.items()]
    pairs = zip(rows, cases.values(), strict=True)
    checks = [same(f"{r.structure}: weights", k, r.weights) for r, (_, k) in pairs]
    checks += [same(f"{r.structure}: unique", True, r.unique) for r in rows]
    chosen = (f"S_{n}", "S_3 wr S_4", "S_3 x S_4 (array)", "S_5 on pairs")
    return Outcome(
        checks=tuple(checks),
        table=Table(title="Sets of sets", rows=tuple(rows)),
        pictures=tuple(cases[name][0].tying().picture() for name in chosen),
    )


@item("group-convolutions", "Regular actions, cosets and tori", seconds=3)
def group_convolutions(*, full: bool = False, seed: int = 0) -> Outcome:
    """A regular action gives the group matrix; pixels are cosets, and their filters isotropic."""
    D, A4 = Action.dihedral(5), Action.alternating(4)
    lifted = Action.grid(4, 4, rotations=True, outputs=Action.regular(Action.grid(4, 4, rotations=True)))
    cases = {
        "D_5 regular": (Action.regular(D), 10, True),
        "A_4 regular": (Action.regular(A4), 12, True),
        "D_5 on 5 cosets": (Action.cosets(D, [D.inputs[1]]), 3, True),
        "p4m, 6 x 6 torus": (Action.grid(6, 6, rotations=True, flips=True), 10, True),
        "p4, pixels to p4": (lifted, 16, True),
    }
    rows = [structure_row(name, action) for name, (action, *_) in cases.items()]
    checks = []
    for row, (_, weights, unique) in zip(rows, cases.values(), strict=True):
        checks += [
            same(f"{row.structure}: weights", weights, row.weights),
            same(f"{row.structure}: unique", unique, row.unique),
        ]
    pictures = [cases["p4m, 6 x 6 torus"][0].tying().picture()]
    for name in ("D_5 regular", "A_4 regular"):
        pictures += [cases[name][0].picture(), cases[name][0].tying().picture()]
    return Outcome(
        checks=tuple(checks),
        table=Table(title="Homogeneous spaces", rows=tuple(rows)),
        pictures=tuple(pictures),
    )


@item("graphs", "Graph convolution against the automorphisms of a graph", seconds=2)
def graphs(*, full: bool = False, seed: int = 0) -> Outcome:
    """Identity and adjacency have the symmetries of the graph; its dense design has more weights."""
    published = {
        "Petersen": (kneser(5, 2), 120, 3),
        "cycle of 7": (_cycle(7), 14, 4),
        "dodecahedron": (_lcf(20, [10, 7, 4, -4, -7, 10, -4, 7, -7, 4]), 120, 6),
        "Heawood": (_lcf(14, [5, -5]), 336, 4),
        "path of 5": (np.eye(5, k=1, dtype=int) + np.eye(5, k=-1, dtype=int), 2, 13),
        "Frucht": (_lcf(12, [-5, -2, -4, 2, 5, -2, 2, 5, -2, -5, 4, 2]), 1, 144),
    }
    rows, checks, pictures = [], [], []
    for name, (adjacency, order, weights) in published.items():
        action = Action.graph(adjacency)
        plain = Tying(np.where(np.eye(len(adjacency), dtype=int) == 1, 0, np.where(adjacency == 1, 1, -1)))
        rows.append(structure_row(f"{name}, all orbits", action))
        rows.append(structure_row(f"{name}, identity and adjacency", plain))
        checks += [
            same(f"{name}: automorphisms of the graph", order, action.order),
            same(f"{name}: weights of the dense design", weights, action.tying().num_orbits),
            same(f"{name}: symmetries of identity and adjacency", order, plain.automorphisms().order),
        ]
        if name in ("Petersen", "cycle of 7"):
            pictures += [plain.picture(), action.tying().picture()]
    return Outcome(
        checks=tuple(checks), table=Table(title="Graphs", rows=tuple(rows)), pictures=tuple(pictures)
    )


def kneser(n: int, k: int) -> np.ndarray:
    """Subsets joined when disjoint; (5, 2) is the Petersen graph."""
    nodes = list(itertools.combinations(range(n), k))
    return np.array([[int(not set(a) & set(b)) for b in nodes] for a in nodes])


def _cycle(n: int) -> np.ndarray:
    return np.roll(np.eye(n, dtype=int), 1, 0) + np.roll(np.eye(n, dtype=int), -1, 0)


def _lcf(n: int, jumps: list[int]) -> np.ndarray:
    """A cubic graph by its LCF notation: a ring, and a chord of the given jump at every node."""
    graph = _cycle(n)
    for i in range(n):
        j = (i + jumps[i % len(jumps)]) % n
        graph[i, j] = graph[j, i] = 1
    return graph
