"""exp(x) for a microcontroller: a small rectifier network in ONNX, with a proved error.

    python examples/certified_exp.py

The certificate holds for every x of the interval, not for those that were tried. The file is then run by
another program (onnxruntime) and compared; that is a test of the file, not the proof.
"""

import argparse
from pathlib import Path

import numpy as np

import fathometer as fm


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--error", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=Path("exp.onnx"))
    options = parser.parse_args()
    net = fm.approximation.approximate("exp(x)", (0, 1), error=options.error)
    print(net)
    bound = fm.approximation.lower_bound("exp(x)", (0, 1), options.error)
    print(f"what any network needs: {bound}")
    print(f"wrote {net.to_onnx(options.out)}, {options.out.stat().st_size} bytes")
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: the file was not run")
        return
    session = onnxruntime.InferenceSession(str(options.out), providers=["CPUExecutionProvider"])
    x = np.linspace(0, 1, 10_001)[:, None]
    (y,) = session.run(None, {"x": x})
    largest = np.abs(y - np.exp(x)).max()
    print(f"largest error on 10,001 points: {largest:.3g}, below the proved {net.certificate.upper:.3g}")
    assert largest <= net.certificate.upper


if __name__ == "__main__":
    main()
