"""Liang & Srikant: Why Deep Neural Networks for Function Approximation?, ICLR 2017.

The paper proves and draws; it has no experiments. `statements` builds every network of its theorems
and corollaries and checks counts and certified errors, `bounds` takes up the lower bound, as printed and
corrected, and `beyond` shows what smaller networks, shallow networks and training achieve.
"""

from fathometer.papers.liang_srikant_2017 import beyond, bounds, statements

__all__ = ["beyond", "bounds", "statements"]
