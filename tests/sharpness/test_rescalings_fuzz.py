"""Random networks: no move that the equations allow may change a function, and few are missed."""

import pytest
import torch

from fathometer.papers.dinh_2017.fuzz import RandomNetwork, found_in
from fathometer.sharpness.units import units


@pytest.mark.parametrize("block", range(3))
def test_random_networks_keep_their_function_and_hardly_a_rescaling_is_missed(block):
    """``reproduce dinh_2017:beyond-random-networks --full`` does the same for a thousand."""
    found = [found_in(seed) for seed in range(14 * block, 14 * block + 14)]
    assert max(change for *_, change in found) < 1e-10
    assert all(dimension <= truth for dimension, truth, _ in found)
    assert sum(dimension for dimension, *_ in found) >= 0.98 * sum(truth for _, truth, _ in found) > 0


@pytest.mark.parametrize("block", range(2))
def test_no_permutation_of_a_random_network_changes_its_function(block):
    many = 0
    for seed in range(16 * block, 16 * block + 16):
        torch.manual_seed(seed)
        model = RandomNetwork(seed).double().eval()
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
        x = 3 * torch.randn(16, 4, dtype=torch.float64)
        found = units(model, x[:2])
        with torch.no_grad():
            torch.testing.assert_close(found.permute(seed=seed)(x), model(x))
        many += bool(found.classes)
    assert many >= 4
