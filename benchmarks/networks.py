"""The networks that more than one area races on; both take 28 x 28 images."""

from torch import nn


def perceptron():
    """784-256-256-10, on flat images."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolutional():
    """Three strided layers of 16, 32 and 32 channels, and a linear one."""

    def block(i, o):
        return nn.Conv2d(i, o, 3, padding=1, stride=2), nn.ReLU()

    return nn.Sequential(*block(1, 16), *block(16, 32), *block(32, 32), nn.Flatten(), nn.Linear(512, 10))
