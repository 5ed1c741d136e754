"""Pennington & Bahri: Geometry of Neural Network Loss Surfaces via Random Matrix Theory, ICML 2017.

`laws` checks what the paper derives, `spectra` compares it with networks (freeness, the residual
part, what fails on real ones), `energies` rebuilds the experiments at critical points.
Figure numbers are those of the published version as far as known; titles say what is meant.
"""

from fathometer.papers.pennington_bahri_2017 import energies, laws, spectra

__all__ = ["energies", "laws", "spectra"]
