"""The stable public interface: names that users may build on, with the arguments they pass."""

import inspect
from importlib import import_module

import pytest

NAMES = {
    "fathometer": """
        LossSurface ParamSpace Eigenpairs LinearOperator Estimate Result Table InputError TheoryWarning
        FathometerError CapabilityError BudgetError as_operator budget diagonal eigenpairs
        frobenius_norm load trace survey spectra sharpness stein symmetry approximation
    """,
    "fathometer.model.LossSurface": """
        theta size examples names energy gradient hessian gauss_newton residual fisher at write
    """,
    "fathometer.spectra": """
        density index MarchenkoPastur Semicircle WishartPlusWigner WishartPlusReluResidual
        critical_energy minimizer_energy critical_points compare free_sum gauss_newton_spectrum
        class_split kfac_error
    """,
    "fathometer.spectra.SpectralDensity": "pdf cdf plot bracket",
    "fathometer.spectra.MarchenkoPastur": "pdf cdf stieltjes support atoms index sample",
    "fathometer.spectra.Semicircle": "pdf cdf stieltjes support atoms index sample",
    "fathometer.spectra.WishartPlusWigner": "pdf cdf stieltjes support atoms index sample",
    "fathometer.spectra.WishartPlusReluResidual": "pdf cdf stieltjes support atoms index sample",
    "fathometer.sharpness": """
        rescalings layer_scale measure hessian_norm hessian_trace epsilon_sharpness keskar adaptive
        fisher_rao relative_flatness geodesic pac_bayes path_norm local_volume local_entropy sharpen
        flatten audit landscape RadialBijection PowerBijection Reparametrization
    """,
    "fathometer.sharpness.Rescalings": "move",
    "fathometer.sharpness.Reparametrization": "apply",
    "fathometer.sharpness.RadialBijection": "to_eta to_theta jacobian",
    "fathometer.sharpness.PowerBijection": "to_eta to_theta jacobian",
    "fathometer.stein": """
        InverseMultiquadric Gaussian Matern32 ksd ksd_path graph_discrepancy classical_discrepancy
        goodness_of_fit thin reweight score check_score select samplers
    """,
    "fathometer.stein.samplers": """
        langevin stochastic_gradient_langevin fisher_scoring approximate_metropolis approximate_slice
        svgd
    """,
    "fathometer.symmetry": """
        Action TiedLinear tie defect project discover check_equivariance network_automorphisms Tying
        Automorphisms Discovery
    """,
    "fathometer.symmetry.Action": """
        cyclic dihedral symmetric alternating subsets tuples product wreath grid graph cosets
        weight_space order orbits tying
    """,
    "fathometer.symmetry.Tying": "automorphisms",
    "fathometer.symmetry.TiedLinear": "to_dense restrict forward",
    "fathometer.approximation": """
        approximate certify SkipNetwork liang_srikant shallow lower_bound tradeoff pieces
    """,
    "fathometer.approximation.liang_srikant": "bits square polynomial smooth product multinomial",
    "fathometer.linalg.LinearOperator": "to_dense to_scipy __matmul__ __add__ __rmul__",
}
FIELDS = {
    "fathometer.linalg.Eigenpairs": "values vectors residuals",
    "fathometer.results.Estimate": "value kind error",
    "fathometer.spectra.SpectralDensity": "nodes weights",
    "fathometer.spectra.IndexResult": "negative zero positive fraction",
    "fathometer.sharpness.Equivalent": "model before after output_error",
    "fathometer.sharpness.Landscape": "axes values directions",
    "fathometer.stein.GraphSteinDiscrepancy": "value per_coordinate gap saturation witness",
    "fathometer.stein.TestResult": "statistic p_value",
    "fathometer.stein.Chain": "points scores acceptance evaluations",
    "fathometer.symmetry.Automorphisms": "order generators unique reason repair",
    "fathometer.symmetry.Discovery": "labels automorphisms gap",
    "fathometer.approximation.Approximation": """
        units depth parameters wiring module certificate to_onnx __call__
    """,
    "fathometer.approximation.Certificate": "lower upper level pieces",
    "fathometer.linalg.LinearOperator": "shape dtype device",
}
ARGUMENTS = {
    "fathometer.model.LossSurface": "model loss data parameters chunk",
    "fathometer.linalg.eigenpairs": "k which tolerance seed",
    "fathometer.linalg.trace": "method tolerance seed",
    "fathometer.spectra.density": "probes steps seed",
    "fathometer.spectra.MarchenkoPastur": "aspect_ratio scale",
    "fathometer.spectra.WishartPlusWigner": "energy aspect_ratio",
    "fathometer.spectra.WishartPlusReluResidual": "energy aspect_ratio",
    "fathometer.spectra.critical_energy": "aspect_ratio law",
    "fathometer.spectra.critical_points": "count tolerance seed index attempts",
    "fathometer.sharpness.layer_scale": "model factors example_inputs",
    "fathometer.sharpness.keskar": "surface radius subspace",
    "fathometer.sharpness.adaptive": "surface radius norm average",
    "fathometer.sharpness.sharpen": "surface measure factor target",
    "fathometer.sharpness.landscape": "surface directions points span tolerance",
    "fathometer.stein.ksd": "points scores kernel statistic weights",
    "fathometer.stein.graph_discrepancy": "points scores graph constants support weights",
    "fathometer.stein.goodness_of_fit": "points scores kernel correlated replicates seed",
    "fathometer.stein.thin": "points scores size kernel standardize regularize",
    "fathometer.stein.reweight": "points scores kernel simplex",
    "fathometer.symmetry.Action": "inputs outputs sizes signs group",
    "fathometer.symmetry.TiedLinear": "in_channels out_channels bias kernel",
    "fathometer.symmetry.discover": "weight tolerance",
    "fathometer.approximation.approximate": """
        f domain error wiring breakpoints method seed units activations layers dtype
    """,
    "fathometer.approximation.certify": "network f domain tolerance",
    "fathometer.approximation.shallow": "f domain pieces error",
    "fathometer.approximation.lower_bound": "error layers printed",
    "fathometer.approximation.tradeoff": "f domain errors",
    "fathometer.survey.run.survey": "model loss data out instruments run_dir seed",
}


def named(dotted):
    """The module or object of a dotted name."""
    first, *rest = dotted.split(".")
    found = import_module(first)
    for place, part in enumerate(rest, 2):
        if not hasattr(found, part):
            import_module(".".join(dotted.split(".")[:place]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("owner", NAMES)
def test_stable_names_are_there(owner):
    found = named(owner)
    assert [name for name in NAMES[owner].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("owner", FIELDS)
def test_results_have_the_stable_fields(owner):
    found = named(owner)
    fields = set(getattr(found, "__dataclass_fields__", ())) | set(dir(found))
    assert [name for name in FIELDS[owner].split() if name not in fields] == []


@pytest.mark.parametrize("call", ARGUMENTS)
def test_calls_take_the_stable_arguments(call):
    parameters = inspect.signature(named(call)).parameters
    assert [name for name in ARGUMENTS[call].split() if name not in parameters] == []


def test_a_tying_has_the_stable_fields():
    tying = import_module("fathometer.symmetry").Action.cyclic(3).tying()
    assert [name for name in ("labels", "num_orbits", "bias_labels") if not hasattr(tying, name)] == []
