"""One network inside another."""

from collections.abc import Mapping, Sequence

from fathometer.approximation.network import Affine, Builder, SkipNetwork


def inlined(build: Builder, network: SkipNetwork, *inputs: Affine) -> Affine:
    """The units of a network, reading ``inputs``; returns its output."""
    mapped: list[Affine] = list(inputs)

    def affine(weights: Mapping[int, float], bias: float) -> Affine:
        return sum((w * mapped[i] for i, w in weights.items()), Affine({}, bias))

    for weights, bias, kind in network.definition():
        unit = build.relu if kind == "relu" else build.step
        mapped.append(unit(affine(weights, bias)))
    return affine(*network.output)


def chained(inner: SkipNetwork, outer: SkipNetwork, clip: bool = True) -> SkipNetwork:
    """``outer(inner(x))``; the inner output is clipped to [0, 1] by two ReLUs unless it has no units."""
    build = Builder(inner.inputs)
    value = inlined(build, inner, *variables(build))
    if clip and inner.units:
        value = build.relu(value) - build.relu(value - 1.0)
    return build.network(inlined(build, outer, value))


def variables(build: Builder) -> Sequence[Affine]:
    """All inputs."""
    return [build.variable(k) for k in range(build.inputs)]
