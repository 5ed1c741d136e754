"""A layer for a symmetry of one's own, and proof that it has no other.

    python examples/layer_for_my_group.py

A molecule of benzene shape: six atoms in a ring, turned and flipped. Atom features come in, bond
features go out: the group acts on six atoms and on six bonds. The layer is trained on a target that has
the symmetry, beside a dense layer with all weights free.
"""

import torch
from torch import nn

import fathometer as fm

ATOMS = 6
TURN = [(i + 1) % ATOMS for i in range(ATOMS)]
FLIP = [-i % ATOMS for i in range(ATOMS)]
# bond i joins the atoms i and i + 1: a turn moves it like its first atom, the flip sends it to bond -i - 1
BOND_FLIP = [(-i - 1) % ATOMS for i in range(ATOMS)]


def main():
    act = fm.symmetry.Action(inputs=[TURN, FLIP], outputs=[TURN, BOND_FLIP])
    tying = act.tying()
    print(f"group of order {act.order}; weights from atoms (columns) to bonds (rows):")
    print(tying.labels)
    print(tying.automorphisms())

    torch.manual_seed(0)
    layer = fm.symmetry.TiedLinear(act, 2, 4)
    dense = nn.Linear(2 * ATOMS, 4 * ATOMS)
    print(fm.symmetry.check_equivariance(layer, act))
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in (("tied", layer), ("dense", dense))}
    print(f"weights: {count['tied']} tied, {count['dense']} dense")

    def features(atoms):
        """Of each bond: what its two atoms have together."""
        pair = atoms + atoms.roll(-1, dims=-1)
        return torch.cat([pair, 0.5 * pair], dim=1)

    train, test = torch.randn(12, 2, ATOMS), torch.randn(500, 2, ATOMS)
    for name, module, shape in (("tied", layer, (2, ATOMS)), ("dense", dense, (2 * ATOMS,))):
        optimizer = torch.optim.LBFGS(module.parameters(), max_iter=200)

        def closure(module=module, shape=shape, optimizer=optimizer):
            optimizer.zero_grad()
            out = module(train.reshape(-1, *shape)).reshape(-1, 4, ATOMS)
            loss = (out - features(train)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        error = (module(test.reshape(-1, *shape)).reshape(-1, 4, ATOMS) - features(test)).square().mean()
        print(f"{name}: error {error.item():.2g} on new molecules after 12 examples")
    print(f"how far the dense layer is from the symmetry: {fm.symmetry.defect(dense.weight, act):.3f}")


if __name__ == "__main__":
    main()
