"""A headless Chromium for tests of pages, and axe-core, the accessibility checker, from the npm registry."""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AXE = "axe-core@4.14.1"
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "axe"
SCRIPT = CACHE / f"{AXE}.min.js"


@contextmanager
def chromium() -> Iterator:
    """A browser of playwright; skips the test, and says why, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'netcarver[test]'")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed (apt-get install chromium)")
    _fetch_axe()  # no process is started once the event loop of playwright runs in this one
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def axe_source() -> str:
    """The source text of axe-core, kept in the cache of pytest; skips the test, and says why, where it cannot be had."""
    reason = _fetch_axe()
    if reason:
        pytest.skip(f"needs axe-core: {reason}")
    return SCRIPT.read_text()


@cache
def _fetch_axe() -> str:
    """Get axe-core with npm where it is not in the cache; returns why it cannot be had, if so."""
    if SCRIPT.is_file():
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm, which would fetch it, is not installed"
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as name:  # other workers may be at it, too
        try:
            done = subprocess.run([npm, "pack", AXE, "--silent"], cwd=name, capture_output=True, text=True, timeout=90)
        except subprocess.TimeoutExpired:
            return "npm did not get it within 90 s"
        if done.returncode:
            return f"npm could not get it ({done.stderr.strip()[-200:]})"
        with tarfile.open(Path(name) / done.stdout.strip().splitlines()[-1]) as archive:
            archive.extract("package/axe.min.js", name, filter="data")
        (Path(name) / "package" / "axe.min.js").replace(SCRIPT)
    return ""
