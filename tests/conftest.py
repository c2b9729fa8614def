"""What tests share: threads, order and size of the suite; how hypothesis looks for examples; the docs site, a browser.

`make check` runs what is marked quick. `make test` runs all in two processes, the longest first so that both end
together; tests of one `xdist_group` stay in one process, for the sake of what they share.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.tools import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same sums on every machine; two processes keep two cores busy
os.environ.setdefault("MPLBACKEND", "agg")
TOGETHER = ("test_survive", "test_launch", "test_browser", "test_site", "test_demo")  # parts of names
QUICK = ("method", "layers", "io", "data", "datasets")  # packages whose notebooks and tests are quick
LONGEST = (  # parts of names, the longest first
    "test_survive", "test_site", "05_launch", "test_demo", "other_data[", "test_launch", "[beyond",
    "tutorials/attention", "test_papermill_ends", "tutorials/satellite", "test_front_door", "test_both_start_over",
    "[own_data", "01_network", "tutorials/own_images", "[sensitivity", "test_memory", "11_notebook",
)  # fmt: skip
settings.register_profile(  # the same few examples at every run; CTM_EXAMPLES=1000 for a long one
    "ctm", derandomize=True, deadline=None, max_examples=int(os.environ.get("CTM_EXAMPLES", 30)),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], database=None,
)  # fmt: skip
settings.load_profile("ctm")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(BROWSERS)} is installed")


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): tests that share what is slow to make stay together")
    config.addinivalue_line("markers", "quick: what `make check` runs at every save")


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory):
    "What programs, kernels and notebooks leave in the folder for temporary files goes with the suite's own."
    folder = tmp_path_factory.mktemp("t", numbered=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "Tests that share what is slow to make stay in one process (xdist 3.8 has no groups with pytest 9.2)."
    from xdist.scheduler import LoadScopeScheduling

    class Shared(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((name for name in TOGETHER if name in nodeid), nodeid)

    return Shared(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        notebook = item.callspec.params.get("notebook") if hasattr(item, "callspec") else None
        if (notebook or item.path).parent.name in QUICK:
            item.add_marker("quick")
    if hasattr(config, "workerinput"):  # of xdist, which hands tests out in this order
        place = {name: n for n, name in enumerate(LONGEST)}
        items.sort(key=lambda item: min((place[name] for name in place if name in item.nodeid), default=len(place)))


def keep(page, name):
    "A screenshot to be looked at, where CTM_SCREENSHOTS names a folder."
    if os.environ.get("CTM_SCREENSHOTS"):
        page.screenshot(path=str(Path(os.environ["CTM_SCREENSHOTS"], f"{name}.png")))


@pytest.fixture(scope="module")  # not longer: while playwright runs, no other event loop can
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The docs site: built once for all tests, or the one that CTM_SITE names."
    if os.environ.get("CTM_SITE"):
        return Path(os.environ["CTM_SITE"]).resolve()
    site = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, ROOT / "nbs/_sphinx/build.py", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout + done.stderr, "the build is quiet"
    return site
