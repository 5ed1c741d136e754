import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathometer.approximation import SkipNetwork
from fathometer.errors import InputError


def random_network(seed, inputs=2, units=9):
    rng = np.random.default_rng(seed)
    rows = []
    for j in range(units):
        reads = rng.choice(inputs + j, size=min(inputs + j, 3), replace=False)
        weights = {int(i): float(w) for i, w in zip(reads, rng.integers(-8, 9, len(reads)) / 4, strict=True)}
        rows.append((weights, float(rng.integers(-8, 9) / 4), "step" if rng.random() < 0.3 else "relu"))
    output = {i: float(w) for i, w in enumerate(rng.integers(-8, 9, inputs + units) / 8)}
    return SkipNetwork(inputs, rows, (output, 0.5))


def by_hand(network, point):
    """One point, unit by unit, straight from the definition."""
    values = list(point)
    for weights, bias, kind in network.definition():
        z = sum(w * values[i] for i, w in weights.items()) + bias
        values.append((1.0 if z >= 0 else 0.0) if kind == "step" else max(0.0, z))
    weights, bias = network.output
    return sum(w * values[i] for i, w in weights.items()) + bias


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_call_module_and_definition_agree(seed):
    network = random_network(seed)
    points = np.random.default_rng(seed + 1).integers(-16, 17, (11, 2)) / 8
    expected = np.array([by_hand(network, p) for p in points])
    np.testing.assert_allclose(network(points), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(
            network.module(torch.tensor(points))[:, 0], expected, rtol=1e-12, atol=1e-12
        )


def test_counts_are_those_of_the_graph():
    # x -> a -> c, x -> b -> c, and the output reads x directly: a skip edge
    units = [({0: 1.0}, 0.0, "relu"), ({0: -1.0}, 1.0, "step"), ({1: 2.0, 2: 1.0}, -1.0, "relu")]
    skip = SkipNetwork(1, units, ({0: 1.0, 3: 1.0}, 0.0))
    assert (skip.units, skip.steps, skip.relus, skip.depth, skip.widths) == (3, 1, 2, 2, (2, 1))
    assert (skip.wiring, skip.parameters, skip.layers.tolist()) == ("skip", 8, [1, 1, 2])
    assert SkipNetwork(1, units, ({3: 1.0}, 0.0)).wiring == "layered"
    reading_back = [*units, ({0: 1.0, 3: 1.0}, 0.0, "relu")]
    assert SkipNetwork(1, reading_back, ({4: 1.0}, 0.0)).wiring == "skip"


def test_a_zero_weight_is_no_wire():
    network = SkipNetwork(1, [({0: 1.0}, 0.0, "relu"), ({0: 0.0, 1: 1.0}, 0.0, "relu")], ({2: 1.0}, 0.0))
    assert (network.wiring, network.parameters) == ("layered", 3)


def test_the_step_is_one_at_zero():
    network = SkipNetwork(1, [({0: 1.0}, 0.0, "step")], ({1: 1.0}, 0.0))
    assert network(np.array([-1e-300, -0.0, 0.0])).tolist() == [0.0, 1.0, 1.0]
    assert network.module(torch.tensor([-1.0, 0.0], dtype=torch.float64)).tolist() == [0.0, 1.0]


def test_numpy_and_torch_come_out_as_they_went_in_and_scalars_too():
    network = SkipNetwork(1, [({0: 1.0}, 0.0, "relu")], ({1: 2.0}, 0.0))
    assert isinstance(network(np.array([1.0])), np.ndarray)
    out = network(torch.tensor([1.0, -1.0]))
    assert out.dtype == torch.float64 and out.tolist() == [2.0, 0.0]
    assert network(0.5) == 1.0


def test_export_keeps_float64_and_the_global_generator_untouched():
    network = random_network(3)
    before, default = torch.get_rng_state(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        module = network.module
    finally:
        torch.set_default_dtype(default)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [0, 1])
def test_onnx_runtime_gives_the_same_bits_on_dyadic_inputs(seed, tmp_path):
    network = random_network(seed)
    path = network.to_onnx(tmp_path / "net.onnx")
    points = np.random.default_rng(5).integers(-16, 17, (50, 2)) / 8
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": points})[0][:, 0], network(points))


def test_json_and_table_round_trip_every_bit():
    network = SkipNetwork(
        1, [({0: 1 / 3}, -0.1, "relu"), ({0: 2.0, 1: 1e-300}, 0.7, "step")], ({2: 0.3}, 1.0)
    )
    for copy in (SkipNetwork.from_json(network.to_json()), SkipNetwork.from_table(network.table())):
        assert list(copy.definition()) == list(network.definition())
        assert copy.output == network.output


def test_a_network_without_units_is_affine():
    network = SkipNetwork(2, [], ({0: 2.0, 1: -1.0}, 3.0))
    assert network(np.array([[1.0, 1.0]])).tolist() == [4.0]
    assert (network.units, network.depth, network.wiring) == (0, 0, "layered")


def test_the_picture_shows_every_unit_and_wire():
    network = random_network(4)
    graph = network.picture().panels[0].marks[0]
    assert len(graph.positions) == network.inputs + network.units + 1
    wires = sum(len(weights) for weights, _, _ in network.definition()) + len(network.output[0])
    assert len(graph.edges) == wires


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [], ({}, 0.0)), "inputs is 0"),
        ((1, [], None), "output is missing"),
        ((1, [({1: 1.0}, 0.0, "relu")], ({}, 0.0)), r"unit 0 reads index 1; it may read 0\.\.0"),
        ((1, [({0: 1.0}, 0.0, "tanh")], ({}, 0.0)), "unit 0 has the activation 'tanh'"),
        ((1, [({0: np.nan}, 0.0, "relu")], ({}, 0.0)), "the weight of unit 0 from index 0 is nan"),
        ((1, [({0: 1.0}, np.inf, "relu")], ({}, 0.0)), "the bias of unit 0 is inf"),
        ((1, [({0: 1.0}, "a", "relu")], ({}, 0.0)), "the bias of unit 0 is 'a'"),
        ((1, [([1.0], 0.0, "relu")], ({}, 0.0)), "unit 0 has weights of type list"),
        ((1, ["relu"], ({}, 0.0)), "unit 0 is 'relu'; a unit is"),
        ((1, [], ({1: 1.0}, 0.0)), "the output reads index 1"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SkipNetwork(*arguments)


def test_points_of_another_shape_are_refused():
    network = random_network(0)
    with pytest.raises(InputError, match=r"x has shape \(3,\); this network takes \(n, 2\)"):
        network(np.zeros(3))
    with pytest.raises(InputError, match="x is not finite at row 1"):
        network(np.array([[0.0, 0.0], [np.nan, 0.0]]))
    with pytest.raises(InputError, match="not a network written by to_json"):
        SkipNetwork.from_json("{}")
