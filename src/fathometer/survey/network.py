"""Section 1: the network, and whether its weights are a critical point at all."""

import numpy as np
import torch

from fathometer.drawing import Axis, Bars, Panel, Picture, Rule
from fathometer.drawing.texts import number
from fathometer.results import Row, Table
from fathometer.survey.subject import Subject
from fathometer.survey.vocabulary import Fact, Section, records

CRITICAL = 1e-6
"""Share of the loss that one best gradient step may still gain at a "critical point"."""


def measure(subject: Subject) -> Section:
    """Sizes, loss, gradient, and what one best step along the gradient would still gain."""
    surface = subject.surface
    exact = surface.double()
    energy, gradient = float(exact.energy()), exact.gradient()
    norm = float(torch.linalg.vector_norm(gradient))
    gain = subject.attempt("the gain of a gradient step", lambda: _gain(subject, gradient)) if norm else 0.0
    ratio = surface.size / surface.examples
    facts = [
        Fact(label="parameters P", value=surface.size, kind="exact"),
        Fact(label="examples N", value=surface.examples, kind="exact"),
        Fact(
            label="parameters per example",
            value=ratio,
            kind="exact",
            meaning="above 1 a network can usually fit anything",
        ),
        Fact(label="loss", value=energy, kind="exact", meaning=f"mean {surface.loss} over the examples"),
        Fact(label="gradient norm", value=norm, kind="exact"),
    ]
    if gain is not None:
        facts.append(
            Fact(
                label="gain of one best gradient step",
                value=gain,
                kind="exact",
                meaning="loss that the step of the quadratic model really removes",
            )
        )
    facts += _accuracies(subject)
    losses = subject.attempt("the loss of each example", surface.losses)
    pictures = [] if losses is None else [_losses(losses.double().numpy())]
    return Section(
        name="network",
        title="The network",
        question="What is measured, and is this point a critical point at all?",
        verdict=_verdict(subject, ratio, energy, norm, gain),
        facts=tuple(facts),
        pictures=records(pictures),
        tables=(_parameters(subject),),
        notes=(*subject.remarks, *surface.notes),
    )


def _gain(subject: Subject, gradient: torch.Tensor) -> float:
    """Loss that a step along the gradient removes, measured; the quadratic model gives its length."""
    surface = subject.surface
    image = (surface.hessian() @ gradient.to(surface.theta.dtype)).double()
    square, curvature = float(gradient @ gradient), float(gradient @ image)
    # without positive curvature the model has no best step: take the length of the gradient
    step = square / curvature if curvature > 0 else 1.0
    exact = surface.double()
    before = exact.energy()
    return float(before - exact.energy(exact.theta - step * gradient))


def _verdict(subject: Subject, ratio: float, energy: float, norm: float, gain: float | None) -> str:
    size = (
        f"{subject.surface.size:,} parameters for {subject.surface.examples:,} examples "
        f"({number(ratio, 3)} each), loss {number(energy)}, gradient norm {number(norm, 2)}"
    )
    if gain is None:
        return f"{size}."
    if gain <= CRITICAL * abs(energy):
        share = number(max(gain, 0.0) / abs(energy), 2) if energy else "0"
        return (
            f"{size}: one best gradient step would remove only {share} of the loss, so for what follows "
            "this is a critical point."
        )
    return (
        f"{size}: one gradient step would still remove {number(gain, 2)}, so this is a slope, not a "
        "critical point; index and sharpness below describe a place that training would leave."
    )


def _accuracies(subject: Subject) -> list[Fact]:
    found = []
    if subject.test is not None:
        inputs, classes = subject.test
        with torch.no_grad():
            right = (subject.model(inputs).argmax(1) == classes).double().mean()
        found.append(
            Fact(
                label="test accuracy",
                value=float(right),
                kind="exact",
                meaning=f"share of {len(classes)} images that were not trained on",
            )
        )
    return found


def _parameters(subject: Subject) -> Table:
    space = subject.surface.space
    parts = space.split(subject.surface.theta)
    rows = tuple(
        Row(
            parameter=name,
            shape=" × ".join(str(n) for n in tensor.shape),
            count=tensor.numel(),
            share=tensor.numel() / subject.surface.size,
            norm=float(torch.linalg.vector_norm(tensor.double())),
            kind="exact",
        )
        for name, tensor in parts.items()
    )
    return Table(title="Parameters", rows=rows)


def _losses(losses: np.ndarray) -> Picture:
    heights, edges = np.histogram(losses, bins=40)
    panel = Panel(
        marks=(
            Bars(edges=edges, heights=heights, label="examples"),
            Rule(x=float(losses.mean()), label="mean"),
        ),
        x=Axis(label="loss of one example"),
        y=Axis(label="number of examples", scale="log"),
    )
    return Picture(
        title="Loss of each example",
        caption="A long tail to the right is made of examples that the network finds hard; counts are on a "
        "logarithmic axis.",
        panels=(panel,),
    )
