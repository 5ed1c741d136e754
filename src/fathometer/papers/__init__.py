"""The papers, rebuilt: one module a paper, one function a figure, table, theorem or experiment.

``fathometer reproduce list`` names the items, ``fathometer reproduce dinh_2017:figure-1``
runs one, ``fathometer reproduce all`` runs every one and writes the gallery.
"""

from fathometer.papers.item import Check, Item, Outcome, check, item

__all__ = ["Check", "Item", "Outcome", "check", "item"]
