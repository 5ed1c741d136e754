"""What every test shares: one thread, so that sums come out the same, and a browser for reports."""

import inspect
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items):
    """Mark the tests that pass what is refused: the typed run, which would refuse first, leaves them out."""
    for item in items:
        function = getattr(item, "function", None)
        if function and ("raises(" in inspect.getsource(function) or "refus" in item.name):
            item.add_marker("refusal")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one the test fails in CI and is skipped elsewhere."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        message = f"no Chromium found (looked for {', '.join(BROWSERS)}); install the package chromium."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=str(Path(path)), args=list(QUIET))
        yield running
        running.close()
