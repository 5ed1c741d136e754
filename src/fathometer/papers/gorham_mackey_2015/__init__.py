"""Gorham & Mackey: Measuring Sample Quality with Stein's Method, NIPS 2015 (arXiv 1506.03039).

`figures` holds the five experiments, `theory` the propositions as numbers, `targets` the
posterior and the samples that several of them share.
"""

from fathometer.papers.gorham_mackey_2015 import figures, posteriors, theory

__all__ = ["figures", "posteriors", "theory"]
