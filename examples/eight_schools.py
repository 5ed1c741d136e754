"""Is my MCMC converged? Eight schools, sampled in two ways.

    python examples/eight_schools.py

Draws of PyMC (in the package, from ArviZ) in the centered and the non-centered form. The centered
sampler does not reach the narrow neck of the funnel. R-hat asks whether the chains agree with each other, the
discrepancy whether they agree with the posterior.
"""

import warnings

import numpy as np

import fathometer as fm


def main():
    log_density = fm.stein.examples.eight_schools_log_density
    score = fm.stein.score(log_density)
    named = {}
    for form in ("centered", "non_centered"):
        draws = fm.stein.examples.eight_schools(form).astype(np.float64)  # (4 chains, 500 draws, 10)
        points = draws.reshape(-1, draws.shape[2])
        named[form] = points, score(points)
        print(f"{form}: R-hat at most {fm.stein.rhat(draws).max():.3f}, ", end="")
        print(f"effective draws at least {fm.stein.ess(draws).min():.0f} of {len(points)}")
    points, scores = named["non_centered"]
    worst = fm.stein.check_score(log_density, scores[:20], points[:20])
    print(f"the scores agree with differences of the log density to {worst:.1g}")

    kernel = fm.stein.InverseMultiquadric(preconditioner=np.cov(points.T))  # one kernel for both
    for form, (x, s) in named.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fm.TheoryWarning)  # tau has heavy tails: see the guide
            found = fm.stein.ksd(x, s, kernel)
            test = fm.stein.goodness_of_fit(x, s, kernel, correlated=True)
        print(f"{form}: discrepancy {found.value:.3f}; draws of the posterior? p = {test.p_value:.3f}")
        print(
            f"  log tau is below 0 in {(x[:, 9] < 0).mean():.1%} of the draws, at least {x[:, 9].min():.2f}"
        )
    keep = fm.stein.thin(points, scores, 40, kernel)
    print(f"40 thinned draws: {fm.stein.ksd(points[keep], scores[keep], kernel).value:.3f}, ", end="")
    print(f"every 50th draw: {fm.stein.ksd(points[::50], scores[::50], kernel).value:.3f}")


if __name__ == "__main__":
    main()
