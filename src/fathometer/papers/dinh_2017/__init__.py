"""Dinh, Pascanu, Bengio & Bengio: Sharp Minima Can Generalize For Deep Nets, ICML 2017.

The paper has six figures and six theorems and no experiment. `figures` draws the figures
from networks and maps that are computed, `theorems` turns every theorem into numbers that are
taken by other means than the construction, `sections` holds section 5 and the appendices.
Beyond the paper, `fuzz` asks of random networks whether all rescalings are found and no others.
"""

from fathometer.papers.dinh_2017 import figures, fuzz, sections, theorems

__all__ = ["figures", "fuzz", "sections", "theorems"]
