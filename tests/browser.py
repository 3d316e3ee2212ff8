"""A headless Chromium for tests of pages, and axe-core, the accessibility checker, from the npm registry."""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AXE = "axe-core@4.14.1"
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "axe"


@contextmanager
def chromium() -> Iterator:
    """A browser of playwright; skips the test, and says why, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'netcarver[test]'")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def axe_source() -> str:
    """The source text of axe-core, kept in the cache of pytest; skips the test, and says why, where it cannot be had."""
    script = CACHE / "package" / "axe.min.js"
    if not script.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("needs axe-core: npm, which would fetch it, is not installed")
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run([npm, "pack", AXE, "--silent"], cwd=CACHE, capture_output=True, text=True, timeout=90)
        except subprocess.TimeoutExpired:
            pytest.skip("needs axe-core: npm did not get it within 90 s")
        if done.returncode:
            pytest.skip(f"needs axe-core: npm could not get it ({done.stderr.strip()[-200:]})")
        with tarfile.open(CACHE / done.stdout.strip().splitlines()[-1]) as archive:
            archive.extract("package/axe.min.js", CACHE, filter="data")
    return script.read_text()
