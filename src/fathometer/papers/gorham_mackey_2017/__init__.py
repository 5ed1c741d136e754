"""Gorham & Mackey: Measuring Sample Quality with Kernels, ICML 2017 (arXiv 1703.01717).

`figures` compares discrepancies and kernels, `samplers` holds the three choices between biased
samplers and samples, `theory` the propositions and theorems as numbers.
"""

from fathometer.papers.gorham_mackey_2017 import figures, samplers, theory

__all__ = ["figures", "samplers", "theory"]
