"""The six figures. The paper prints no parameters; ours are stated in each caption."""

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import root_scalar

from fathometer.drawing import Axis, Band, Line, Panel, Picture, Points, Rule
from fathometer.papers.dinh_2017.networks import product_surface
from fathometer.papers.item import Outcome, check, item
from fathometer.sharpness import (
    PowerBijection,
    RadialBijection,
    constant_in_the_ball,
    disjoint_boxes,
    epsilon_sharpness,
    layer_scale,
)

EPS = 0.25
BLUE, RED = 0, 1


def wavy(theta: np.ndarray | float) -> np.ndarray:
    """A loss of one parameter with several minima."""
    theta = np.asarray(theta, dtype=np.float64)
    return 1.3 + 0.01 * theta**2 - np.cos(1.7 * theta)


def _axis(label: str, low: float, high: float) -> Axis:
    return Axis(label=label, limits=(low, high))


@item("figure-1", "Flatness is a width at a height, sharpness a height at a width", seconds=1)
def figure_1(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 1: one loss of one parameter; the height eps gives a width, the width 2 eps a height.

    The loss is free in the paper; ours is a cosine in a bowl, with eps = 0.25.
    """
    grid = np.linspace(-4.0, 4.0, 2001 if full else 801)
    floor = float(wavy(0.0))
    rim = [
        root_scalar(lambda t: wavy(t) - floor - EPS, bracket=ends).root for ends in ((-1.5, 0.0), (0.0, 1.5))
    ]
    inside = np.linspace(rim[0], rim[1], 4001)[1:-1]
    near = np.linspace(-EPS, EPS, 4001)
    sharpness = float(wavy(near).max() - floor) / (1.0 + floor)
    above = grid[(grid > rim[0]) & (grid < rim[1])]
    low = int((wavy(grid) < floor + EPS).sum())
    picture = Picture(
        title="Flatness and sharpness of one minimum",
        caption=(
            f"The set around the minimum on which the loss rises by less than {EPS} is {rim[1] - rim[0]:.3g} "
            f"wide (flatness); within {EPS} of it it rises by {sharpness * (1 + floor):.3g} (sharpness)."
        ),
        panels=(
            Panel(
                marks=(
                    Band(
                        x=above, lower=wavy(above), upper=np.full_like(above, floor + EPS), label="height eps"
                    ),
                    Line(x=grid, y=wavy(grid), label="loss"),
                    Rule(x=-EPS, label="width 2 eps"),
                    Rule(x=EPS),
                ),
                x=_axis("parameter", -4, 4),
                y=Axis(label="loss"),
            ),
        ),
    )
    return Outcome(
        checks=(
            check(
                "the loss is below the height everywhere inside and at it on the rim",
                "rim at eps",
                f"{float(wavy(rim[1]) - floor):.6g}",
                bool((wavy(inside) < floor + EPS).all()) and abs(float(wavy(rim[0])) - floor - EPS) < 1e-9,
            ),
            check(
                "only the component counts: the loss is as low in other places too",
                "elsewhere too",
                f"{low - len(above)} points of the grid",
                low > len(above),
            ),
            check("sharpness is positive at a minimum", "> 0", sharpness, sharpness > 0),
        ),
        pictures=(picture,),
    )


def _levels(values: tuple[float, ...]) -> tuple[Line, ...]:
    x = np.geomspace(0.15, 8.0, 300)
    return tuple(Line(x=x, y=c / x, label=f"product {c:g}", color=i) for i, c in enumerate(values))


@item("figure-2", "Level curves of one unit: the product of its two weights", seconds=1)
def figure_2(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 2: observationally equivalent parameters of a network with one hidden unit are hyperbolas."""
    surface = product_surface()
    model = surface.write()
    steps = np.geomspace(0.2, 5.0, 41 if full else 9)
    places = [
        surface.around(layer_scale(model, {"fc1": a, "fc2": 1.0 / a}, surface.example_inputs()))
        for a in steps
    ]
    points = np.array([place.theta.numpy() for place in places])
    worst = max(float(place.energy()) for place in places)
    x = np.geomspace(0.15, 8.0, 300)
    band = Band(x=x, lower=0.9 / x, upper=1.1 / x, label="loss at most 0.005")
    dots = Points(x=points[:, 0], y=points[:, 1], label="equivalent networks", color=5)
    picture = Picture(
        title="Networks that compute the same",
        caption="Weights of a network with one hidden unit. Along a curve the function does not change.",
        panels=(
            Panel(
                marks=(band, *_levels((0.5, 1.0, 2.0, 3.0)), dots),
                x=_axis("first weight", 0, 6),
                y=_axis("second weight", 0, 6),
                equal=True,
            ),
        ),
    )
    product = points.prod(1)
    return Outcome(
        checks=(
            check(
                "the transformation moves along a curve of constant product",
                1.0,
                float(product.mean()),
                bool(np.allclose(product, 1.0, rtol=1e-12)),
            ),
            check("the loss is constant along the curve", 0.0, worst, worst < 1e-24),
        ),
        pictures=(picture,),
    )


@item("figure-3", "Infinitely many disjoint boxes of one volume in a region of low loss", seconds=1)
def figure_3(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 3: a box in the band of low loss, its images, all of one area and disjoint (theorem 2)."""
    radius, count = 0.25, 6 if full else 4
    found = disjoint_boxes(torch.ones(1), torch.ones(1), radius, count)
    centers, widths = found.centers.numpy(), found.half_widths.numpy()
    corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1], [1, 1]])
    boxes = []
    height = 0.0
    for i in range(count):
        loop = centers[i] + corners * widths[i]
        boxes.append(Line(x=loop[:, 0], y=loop[:, 1], label="boxes" if i == 0 else "", color=RED))
        height = max(height, float((0.5 * (loop.prod(1) - 1.0) ** 2).max()))
    areas = (2 * widths).prod(1)
    x = np.geomspace(0.3, 2.0 * centers[-1, 0], 400)
    band = Band(x=x, lower=(1 - radius) ** 2 / x, upper=(1 + radius) ** 2 / x, label="region of low loss")
    picture = Picture(
        title="Boxes of one area that do not meet",
        caption=f"Each box is the image of the one before it under the factor {found.factor:.3g}.",
        panels=(
            Panel(
                marks=(band, *boxes),
                x=Axis(label="first weight", scale="log"),
                y=Axis(label="second weight", scale="log"),
            ),
        ),
    )
    first = 0.5 * ((1 + radius) ** 2 - 1.0) ** 2
    return Outcome(
        checks=(
            check("no two boxes meet", "disjoint", found.disjoint(), found.disjoint()),
            check(
                "all boxes have one area",
                float(areas[0]),
                float(areas[-1]),
                bool(np.allclose(areas, areas[0])),
            ),
            check(
                "the loss on every box is that on the first",
                first,
                height,
                math.isclose(height, first, rel_tol=1e-9),
            ),
        ),
        pictures=(picture,),
    )


@item("figure-4", "The same ball around an equivalent network reaches the constant function", seconds=1)
def figure_4(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 4: equal circles around a network and its equivalent; the second touches a weight of zero."""
    surface, radius = product_surface(2.0), 0.5
    witness = constant_in_the_ball(surface, radius)
    assert witness.model is not None
    moved = surface.around(witness.model)
    sharp = [float(epsilon_sharpness(place, radius, seed=seed).value) for place in (surface, moved)]
    angle = np.linspace(0, 2 * np.pi, 200)
    circles = [
        Line(
            x=float(p.theta[0]) + radius * np.cos(angle),
            y=float(p.theta[1]) + radius * np.sin(angle),
            label=label,
            color=i,
        )
        for i, (p, label) in enumerate(((surface, "around the network"), (moved, "around its equivalent")))
    ]
    x = np.linspace(0.3, 4, 300)
    picture = Picture(
        title="One radius, two balls",
        caption=(
            f"The ball around the equivalent touches the line where the first weight is zero and the network "
            f"constant: sharpness {sharp[0]:.3g} against {sharp[1]:.3g}."
        ),
        panels=(
            Panel(
                marks=(
                    Line(x=x, y=2.0 / x, label="minima", color=3),
                    Rule(x=0.0, label="constant function"),
                    *circles,
                ),
                x=_axis("first weight", -0.5, 5),
                y=_axis("second weight", -0.5, 5),
                equal=True,
            ),
        ),
    )
    return Outcome(
        checks=(
            check(
                "the constant function lies in the closed ball",
                radius,
                float(moved.theta[0]),
                abs(float(moved.theta[0]) - radius) < 1e-12,
            ),
            check(
                "sharpness of the equivalent is at least that of the zero function",
                witness.guaranteed,
                sharp[1],
                sharp[1] >= witness.guaranteed - 1e-9,
                note="the point lies on the sphere, so the ball must be closed",
            ),
            check("and more than that of the network itself", sharp[0], sharp[1], sharp[1] > sharp[0]),
        ),
        pictures=(picture,),
    )


@item("figure-5", "One loss in three coordinates: as it is, flattened, sharpened", seconds=1)
def figure_5(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 5: ``eta = (|theta - c|^2 + b)^a (theta - c)`` changes the curvature at c by ``b^(-2a)``.

    The paper gives neither a nor b; here b = 0.1 and a = -0.2 (flatter) or 0.5 (sharper).
    """
    b, grid = 0.1, np.linspace(-4, 4, 1601)
    dots = np.linspace(-4, 4, 33)
    panels = [Panel(marks=(Line(x=grid, y=wavy(grid)), Points(x=dots, y=wavy(dots))), title="as it is")]
    checks = []
    for a, name in ((-0.2, "flatter"), (0.5, "sharper")):
        bijection = PowerBijection(a, b)
        where = bijection.to_eta(grid[:, None])[:, 0]
        place = bijection.to_eta(dots[:, None])[:, 0]
        panels.append(Panel(marks=(Line(x=where, y=wavy(grid)), Points(x=place, y=wavy(dots))), title=name))
        h = 1e-3
        left, middle, right = wavy(bijection.to_theta(np.array([[-h], [0.0], [h]]))[:, 0])
        plain = (wavy(h) - 2 * wavy(0.0) + wavy(-h)) / h**2
        ratio = float((right - 2 * middle + left) / h**2 / plain)
        checks.append(
            check(
                f"curvature at the minimum ({name})",
                b ** (-2 * a),
                ratio,
                abs(ratio / b ** (-2 * a) - 1) < 1e-3,
            )
        )
    for panel in panels[1:]:
        line = panel.marks[0]
        assert isinstance(line, Line)
        monotone = bool((np.diff(line.x) > 0).all())
        checks.append(check(f"the map is a bijection ({panel.title})", "increasing", monotone, monotone))
    picture = Picture(
        title="The same loss in other coordinates",
        caption="Points of a regular grid of parameters; only the coordinate is changed.",
        panels=tuple(panels),
        columns=3,
    )
    return Outcome(checks=tuple(checks), pictures=(picture,))


@item("figure-6", "A map that is the identity outside a ball and rescales the middle", seconds=1)
def figure_6(*, full: bool = False, seed: int = 0) -> Outcome:
    """Figure 6: the function psi and its action on a lattice, inner 0.24 and image 0.75 of the outer radius.

    The radii are read off the drawing.
    """
    outer, inner, image = 1.0, 0.24, 0.75
    bijection = RadialBijection(np.zeros(2), outer, inner, image)
    r = np.linspace(0, 1.5, 601)
    psi = np.linalg.norm(bijection.to_eta(np.stack([r, np.zeros_like(r)], 1)), axis=1)
    side = np.linspace(-1.3, 1.3, 41 if full else 27)
    lattice = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    size = np.linalg.norm(lattice, axis=1)
    moved = bijection.to_eta(lattice)
    groups = (
        (size <= inner, "inner ball"),
        ((size > inner) & (size <= outer), "shell"),
        (size > outer, "outside"),
    )
    marks = tuple(
        Points(x=moved[mask, 0], y=moved[mask, 1], label=label, color=i)
        for i, (mask, label) in enumerate(groups)
    )
    back = float(np.abs(bijection.to_theta(moved) - lattice).max())
    radii = np.array([inner / 2, inner, (inner + outer) / 2, outer])
    wanted = np.interp(radii, [0, inner, outer], [0, image, outer])
    found = np.linalg.norm(bijection.to_eta(np.stack([np.zeros(4), radii], 1)), axis=1)
    slopes = [b - a for a, b in pairwise(psi)]
    picture = Picture(
        title="A local change of coordinates",
        caption="Left: the radius after the map. Right: a lattice after the map; the inner ball has grown.",
        panels=(
            Panel(marks=(Line(x=r, y=psi),), x=Axis(label="radius"), y=Axis(label="radius after the map")),
            Panel(marks=marks, x=Axis(label="first coordinate"), y=Axis(label="second"), equal=True),
        ),
    )
    outside = float(np.abs(moved - lattice)[size > outer].max())
    return Outcome(
        checks=(
            check(
                "psi is linear between its corners",
                str(wanted.round(4)),
                str(found.round(4)),
                bool(np.allclose(found, wanted)),
            ),
            check("psi increases", "> 0", float(min(slopes)), min(slopes) > 0),
            check("nothing moves outside", 0.0, outside, outside == 0.0),
            check("the inverse leads back", 0.0, back, back < 1e-12),
        ),
        pictures=(picture,),
    )
