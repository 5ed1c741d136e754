"""Ravanbakhsh, Schneider & Poczos: Equivariance Through Parameter-Sharing, ICML 2017.

The paper proves and draws, and trains nothing. `examples` rebuilds the structures it names,
`theorems` turns its claims (and the exact versions of them) into counts taken by other means,
`digits` adds a worked example on real data.
"""

from fathometer.papers.ravanbakhsh_2017 import digits, examples, theorems

__all__ = ["digits", "examples", "theorems"]
