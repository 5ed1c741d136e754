"""What one pass over the data costs, counted on a few examples before any work is done."""

from torch.utils.flop_counter import FlopCounterMode

from fathometer.errors import InputError
from fathometer.model.surface import LossSurface

FEW = 2


def forward_flops(surface: LossSurface) -> float:
    """Floating-point operations of one evaluation of the loss over all examples.

    Matrix products, convolutions and attention are counted as torch knows them, on a few
    examples; two operations a parameter and example at the least, for what torch does not count
    (recurrent cells on a CPU, for instance). A gradient costs about three times as much, a
    Hessian product six times.
    """
    try:
        few = surface.select(range(min(FEW, surface.examples)))
    except InputError:  # batches of a kind of their own cannot be cut
        few = surface
    with FlopCounterMode(display=False) as counter:
        few.energy()
    counted = float(counter.get_total_flops()) / few.examples
    return surface.examples * max(counted, 2.0 * surface.size)
