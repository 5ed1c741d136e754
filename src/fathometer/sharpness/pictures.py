"""Pictures of the sharpness room: a result in, a description out."""

from typing import TYPE_CHECKING

from fathometer.drawing import Axis, Bars, Panel, Picture

if TYPE_CHECKING:
    from fathometer.sharpness.equivalent import Equivalent


def equivalent_picture(equivalent: "Equivalent") -> Picture:
    """Two bars on a log axis: a measure at the network and at its equivalent."""
    heights = [float(equivalent.before.value), float(equivalent.after.value)]
    places = ("this network", "its equivalent")
    bars = Bars(edges=[-0.5, 0.5, 1.5], heights=heights, texts=tuple(f"{h:.4g}" for h in heights))
    name = equivalent.measure.replace("_", " ")
    return Picture(
        title=f"One function, two values of the {name}",
        caption=(
            "Both networks compute the same outputs (largest relative change "
            f"{equivalent.output_error:.1e}); the "
            f"{name} differs {equivalent.value:.3g} times. The axis is logarithmic."
        ),
        panels=(
            Panel(
                marks=(bars,),
                x=Axis(label="network", scale="category", categories=places),
                y=Axis(label=name, scale="log"),
            ),
        ),
        table=(("network", name), tuple(zip(places, heights, strict=True))),
    )
